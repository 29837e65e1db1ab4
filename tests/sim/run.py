"""The simulation from the command line.

    python -m tests.sim.run --seeds 300            the gate: seeds that failed once, then 1..300
    python -m tests.sim.run --seed 4711 --trace    one run again, with everything that happened
    python -m tests.sim.run --seed 4711 --bug NAME with a planted bug (tests/sim/bugs.py)

Every 20th seed runs twice and must leave the same fingerprint. A run in which no fault landed at
all fails: it would have tested nothing.
"""

import argparse
import itertools
import logging
import pathlib
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.sim.bugs import Bugs
from tests.sim.bugs_table import PLANTED
from tests.sim.checks import Judged
from tests.sim.cluster import Outcome, simulate
from tests.sim.ledger import Violation
from tests.sim.plan import Plan
from tests.sim.strikes import STRIKES

__all__ = ["Summary", "known_seeds", "main", "run_seeds"]

KNOWN = pathlib.Path(__file__).parent / "seeds" / "failed.txt"
TWICE_EVERY = 20


@dataclass(slots=True)
class Summary:
    runs: int = 0
    repeated: int = 0
    steps: int = 0
    operations: int = 0
    updates: int = 0
    virtual_s: float = 0.0
    judged: Judged = field(default_factory=Judged)
    landed: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.steps += outcome.steps
        self.operations += outcome.operations
        self.updates += outcome.updates
        self.virtual_s += outcome.virtual_s
        self.judged.add(outcome.judged)
        self.landed.update(outcome.landed)
        self.rows.update(outcome.rows)


def known_seeds() -> list[int]:
    """Seeds that failed once; they run first, for ever."""
    lines = KNOWN.read_text().splitlines()
    return [int(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


def run_seeds(seeds: list[int], bugs: Bugs | None = None, stop_at_failure: bool = False) -> Summary:
    summary = Summary()
    for number, seed in enumerate(seeds):
        summary.runs += 1
        summary.drawn.update(Plan.draw(seed).strikes.keys())
        try:
            outcome = simulate(seed, bugs)
            summary.add(outcome)
            if number % TWICE_EVERY == 0:
                summary.repeated += 1
                again = simulate(seed, bugs)
                if again.fingerprint != outcome.fingerprint:
                    raise Violation("determinism", "two runs of the seed differ")
        except Violation as violation:
            summary.failures.append((seed, str(violation)))
            _report(seed, violation, bugs)
            if stop_at_failure:
                break
    return summary


def _report(seed: int, violation: Violation, bugs: Bugs | None) -> None:
    planted = f" --bug {bugs.name}" if bugs else ""
    if not planted:
        print(f"FAIL {violation.rule} seed={seed} -> tests/run sim --seed {seed} --trace")
        print(f"     {violation}\n     {Plan.draw(seed)}", flush=True)


def _one(seed: int, bugs: Bugs | None, trace: bool) -> int:
    print(f"seed {seed}: {Plan.draw(seed)}")
    try:
        outcome = simulate(seed, bugs, print if trace else None)
    except Violation as violation:
        _report(seed, violation, bugs)
        print(f"FAIL {violation}")
        return 1
    print(
        f"ok: {outcome.operations} operations ({outcome.updates} updates), {outcome.steps} steps, "
        f"{outcome.virtual_s:.1f} virtual s, fingerprint {outcome.fingerprint}"
    )
    print("landed: " + _counts(outcome.landed))
    return 0


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "nothing"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run")
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds (default 300)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="plant this protocol bug")
    options = parser.parse_args(arguments)
    logging.getLogger("fs3").addHandler(logging.NullHandler())  # what managers warn of is in traces
    bugs = PLANTED[options.bug]() if options.bug else None
    if options.seed is not None:
        return _one(options.seed, bugs, options.trace)
    seeds = [*known_seeds(), *itertools.islice(itertools.count(options.first), options.seeds)]
    begin_s = time.monotonic()
    summary = run_seeds(seeds, bugs)
    spent_s = time.monotonic() - begin_s
    print(
        f"{summary.runs} seeds ({summary.repeated} of them twice) in {spent_s:.1f} s: "
        f"{(summary.runs + summary.repeated) / spent_s:.1f} schedules/s, {summary.steps} steps, "
        f"{summary.operations} operations, {summary.updates} acknowledged updates, "
        f"{summary.virtual_s:.0f} virtual s"
    )
    drawn = [f"{kind} {summary.drawn[kind]}" for kind in STRIKES]
    print("drawn:  " + ", ".join(drawn))
    print("landed: " + _counts(summary.landed))
    print("rows of the target state table met: " + " ".join(sorted(summary.rows)))
    judged = summary.judged
    print(f"black box: {judged.blind} histories judged, {judged.too_big} were beyond its bar")
    print(f"reads of unacknowledged updates that died with all replicas: {judged.forgotten_reads}")
    if not summary.landed:
        print("FAIL no fault landed: nothing was tested")
        return 1
    if summary.failures:
        print(f"{len(summary.failures)} seeds failed: {[seed for seed, _ in summary.failures]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
