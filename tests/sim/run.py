"""The simulation from the command line.

    python -m tests.sim.run --seeds 300            the gate: seeds that failed once, then 1..300
    python -m tests.sim.run --seed 4711 --trace    one run again, with everything that happened
    python -m tests.sim.run --seed 4711 --shrink   the smallest run that still fails
    python -m tests.sim.run --seed 4711 --set clients=1 --set strikes=kill,pause
    python -m tests.sim.run --engine --seeds 40    on the chunk engine itself
    python -m tests.sim.run --seed 4711 --bug NAME with a planted bug (tests/sim/bugs_table.py)

Every 20th seed runs twice and must leave the same fingerprint. A run in which no fault landed at
all fails: it would have tested nothing. A seed that fails is shrunk, and belongs into
seeds/failed.txt for ever.
"""

import argparse
import itertools
import logging
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.sim.bugs import Bugs
from tests.sim.bugs_table import PLANTED
from tests.sim.checks import Judged
from tests.sim.cluster import Outcome, simulate
from tests.sim.ledger import Violation
from tests.sim.plan import Plan
from tests.sim.shrink import command, shrink
from tests.sim.strikes import STRIKES

__all__ = ["Run", "Summary", "known_runs", "main", "run_all"]

KNOWN = pathlib.Path(__file__).parent / "seeds" / "failed.txt"
ENGINE = {"engine": "1"}
TWICE_EVERY = 20
TELL_EVERY = 500
SHRINK_MAX = 3  # failures of one call that are made smaller: each costs a hundred runs


@dataclass(frozen=True, slots=True)
class Run:
    """A seed, and the values of its plan that were set by hand."""

    seed: int
    changes: dict[str, str] = field(default_factory=dict)


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
    work: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.steps += outcome.steps
        self.operations += outcome.operations
        self.updates += outcome.updates
        self.virtual_s += outcome.virtual_s
        self.judged.add(outcome.judged)
        self.landed.update(outcome.landed)
        self.rows.update(outcome.rows)
        self.work.update(outcome.work)


def known_runs() -> list[Run]:
    """Those that failed once; they run first, for ever. A line: SEED [name=value ...] # what."""
    runs = []
    for line in KNOWN.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            runs.append(Run(int(words[0]), _settings(words[1:])))
    return runs


def run_all(runs: Iterable[Run]) -> Summary:
    summary = Summary()
    for run in runs:
        summary.runs += 1
        if summary.runs % TELL_EVERY == 0:
            print(f"{summary.runs} runs, {len(summary.failures)} failed", flush=True)
        summary.drawn.update(Plan.draw(run.seed).strikes.keys())
        try:
            outcome = simulate(run.seed, changes=run.changes)
            summary.add(outcome)
            if summary.runs % TWICE_EVERY == 1:
                summary.repeated += 1
                again = simulate(run.seed, changes=run.changes)
                if again.fingerprint != outcome.fingerprint:
                    raise Violation("determinism", "two runs of the seed differ")
        except Violation as violation:
            summary.failures.append((run.seed, str(violation)))
            _report(run, violation)
            if len(summary.failures) <= SHRINK_MAX and run.changes.keys() <= ENGINE.keys():
                _report_smaller(run, violation.rule)
    return summary


def _report(run: Run, violation: Violation) -> None:
    repeat = command(run.seed, run.changes)
    print(f"FAIL {violation.rule} seed={run.seed} -> {repeat}")
    print(f"     {violation}\n     {Plan.draw(run.seed).changed(run.changes)}", flush=True)


def _report_smaller(run: Run, rule: str, bug: type[Bugs] = Bugs) -> None:
    changes = shrink(run.seed, rule, bug, begin=run.changes)
    settings = " ".join(f"{name}={value}" for name, value in changes.items())
    print(f"     smaller: {command(run.seed, changes)}")
    print(f"     for seeds/failed.txt: {run.seed} {settings}  # {rule}", flush=True)


def _one(run: Run, bug: type[Bugs], trace: bool, smaller: bool) -> int:
    print(f"seed {run.seed}: {Plan.draw(run.seed).changed(run.changes)}")
    try:
        outcome = simulate(run.seed, bug(), print if trace else None, run.changes)
    except Violation as violation:
        _report(run, violation)
        if smaller:
            _report_smaller(run, violation.rule, bug)
        return 1
    print(
        f"ok: {outcome.operations} operations ({outcome.updates} updates), {outcome.steps} steps, "
        f"{outcome.virtual_s:.1f} virtual s, fingerprint {outcome.fingerprint}"
    )
    print("landed: " + _counts(outcome.landed))
    return 0


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "nothing"


def _settings(words: Iterable[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    return {name: value for name, _, value in pairs}


def _tell(summary: Summary, spent_s: float) -> None:
    print(
        f"{summary.runs} seeds ({summary.repeated} of them twice): "
        f"{(summary.runs + summary.repeated) / spent_s:.1f} schedules/s per core, "
        f"{summary.steps} steps, {summary.operations} operations, {summary.updates} acknowledged "
        f"updates, {summary.virtual_s:.0f} virtual s"
    )
    drawn = [f"{kind} {summary.drawn[kind]}" for kind in STRIKES]
    print("drawn:  " + ", ".join(drawn))
    print("landed: " + _counts(summary.landed))
    print("rows of the target state table met: " + " ".join(sorted(summary.rows)))
    if summary.work:
        print(f"engines: {_counts(summary.work)}")
    judged = summary.judged
    print(f"black box: {judged.blind} histories judged, {judged.too_big} were beyond its bar")
    print(f"reads of unacknowledged updates that died with all replicas: {judged.forgotten_reads}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run")
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds (default 300)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--engine", action="store_true", help="on the chunk engine itself")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--shrink", action="store_true", help="make the failure of --seed smaller")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the plan"
    )
    parser.add_argument("--bug", choices=sorted(PLANTED), help="plant this protocol bug")
    options = parser.parse_args(arguments)
    logging.getLogger("fs3").addHandler(logging.NullHandler())  # what managers warn of is in traces
    below = ENGINE if options.engine else {}
    if options.seed is not None:
        bug = PLANTED[options.bug] if options.bug else Bugs
        run = Run(options.seed, {**bug.aim, **below, **_settings(options.set)})
        return _one(run, bug, options.trace, options.shrink)
    seeds = itertools.islice(itertools.count(options.first), options.seeds)
    begin_s = time.process_time()
    known = [run for run in known_runs() if ("engine" in run.changes) == options.engine]
    summary = run_all([*known, *(Run(seed, dict(below)) for seed in seeds)])
    _tell(summary, time.process_time() - begin_s)
    if not summary.landed:
        print("FAIL no fault landed: nothing was tested")
        return 1
    if summary.failures:
        print(f"{len(summary.failures)} seeds failed: {[seed for seed, _ in summary.failures]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
