"""Each planted bug is caught, or the checks prove nothing.

    python -m tests.sim.prove           every bug with the seed that is known to catch it (bugs.txt)
    python -m tests.sim.prove --deep    every bug from seed 1, at most 2,000 seeds each; the table
    python -m tests.sim.prove NAME...   the deep proof of some of them

A run that fails with the bug must pass without it. `--write` keeps the seeds that were found.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys
from dataclasses import dataclass

from tests.sim import bugs_table
from tests.sim.bugs import Bugs
from tests.sim.bugs_meta import META_BUGS
from tests.sim.cluster import simulate
from tests.sim.ledger import Violation
from tests.sim.meta_world import simulate_meta

__all__ = ["main"]

PLANTED: dict[str, type[Bugs]] = {
    **bugs_table.PLANTED,
    **{bug.name: bug for bug in META_BUGS},
}
KNOWN = pathlib.Path(__file__).parent / "seeds" / "bugs.txt"
SEEDS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Caught:
    seed: int
    rule: str
    detail: str


def hunt(name: str, seeds: range) -> Caught | None:
    """The first of the seeds whose run fails with the bug, and does not without it."""
    bug = PLANTED[name]
    control = type("Control", (Bugs,), {"aim": bug.aim})
    for seed in seeds:
        found = _run(seed, bug, meta=bug in META_BUGS)
        if found is None:
            continue
        otherwise = _run(seed, control, meta=bug in META_BUGS)
        if otherwise is None:
            return found
        print(f"FAIL {name} seed {seed} fails without the bug, too: {otherwise.detail}", flush=True)
    return None


def _run(seed: int, bug: type[Bugs], *, meta: bool) -> Caught | None:
    try:
        if meta:
            simulate_meta(seed, bug(), changes=bug.aim)
        else:
            simulate(seed, bug(), changes=bug.aim)
    except Violation as violation:
        return Caught(seed, violation.rule, str(violation))
    except AssertionError as broken:  # a CHECK of the state machine of mgmtd
        return Caught(seed, "check", str(broken) or "an assertion failed")
    return None


def known() -> dict[str, int]:
    rows = [line.split() for line in KNOWN.read_text().splitlines() if line[:1] not in ("#", "")]
    return {row[0]: int(row[1]) for row in rows}


def _deep(names: list[str]) -> dict[str, Caught | None]:
    print(f"{'planted bug':<44} {'seeds':>5}  caught by")
    caught: dict[str, Caught | None] = {}
    for name in names:
        found = caught[name] = hunt(name, range(1, SEEDS_MAX + 1))
        if found is None:
            print(f"{name:<44} {'none':>5}  NOT CAUGHT within {SEEDS_MAX} seeds", flush=True)
        else:
            print(f"{name:<44} {found.seed:>5}  {found.detail.splitlines()[0][:90]}", flush=True)
    return caught


def _quick() -> list[str]:
    """The names that have no seed, or that their seed does not catch any more."""
    missed = []
    for name, seed in known().items():
        found = hunt(name, range(seed, seed + 1))
        print(f"{name:<44} seed {seed:>4}  {found.rule if found else 'NOT CAUGHT'}", flush=True)
        if found is None:
            missed.append(name)
    return missed + [name for name in PLANTED if name not in known()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.prove")
    parser.add_argument("names", nargs="*", help="prove these from seed 1")
    parser.add_argument("--deep", action="store_true", help="prove all from seed 1")
    parser.add_argument("--write", action="store_true", help="keep the seeds that were found")
    options = parser.parse_args(arguments)
    logging.getLogger("fs3").addHandler(logging.NullHandler())
    if not options.deep and not options.names:
        missed = _quick()
        for name in missed:
            print(f"FAIL {name} is not caught -> python -m tests.sim.prove {name}")
        print(f"{len(PLANTED) - len(missed)} of {len(PLANTED)} planted bugs caught")
        return 1 if missed else 0
    caught = _deep(options.names or list(PLANTED))
    if options.write:
        _write({name: found.seed for name, found in caught.items() if found is not None})
    return 0 if all(caught.values()) else 1


def _write(found: dict[str, int]) -> None:
    kept = {**(known() if KNOWN.exists() else {}), **found}
    lines = [f"{name} {kept[name]}" for name in PLANTED if name in kept]
    KNOWN.write_text("# bug   the first seed that catches it\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
