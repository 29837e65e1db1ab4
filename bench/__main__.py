"""`bench/run PLAN`: measures fs3 beside a ceiling and peers, interleaved, and prints ratios.

`bench/run report FILE` prints the table of an earlier run again, and writes its page.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile

from bench.page import page
from bench.plans import PLANS, measure
from bench.report import table
from bench.results import Results, describe_machine
from bench.systems import SYSTEMS


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.plan == "report":
        results = Results.read(options.file)
    else:
        results = _measure(options, arguments)
        if options.json:
            results.write(options.json)
    print(table(results))
    if options.html:
        options.html.write_text(page(results))
    return 1 if results.errors() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    plans = parser.add_subparsers(dest="plan", required=True, metavar="PLAN")
    for name, plan in PLANS.items():
        one = plans.add_parser(name, help=plan.what)
        one.add_argument("--systems", default=",".join(plan.systems), help=", ".join(SYSTEMS))
        one.add_argument(
            "--repeats", type=int, default=plan.repeats, help="rounds over all systems"
        )
        one.add_argument("--mib", type=int, default=plan.size.mib, help="data of a fio work")
        one.add_argument("--random-s", type=int, default=plan.size.random_s)
        one.add_argument("--files", type=int, default=plan.size.files)
        one.add_argument("--json", type=pathlib.Path, help="every sample, for `report`")
        one.add_argument("--html", type=pathlib.Path, help="one self-contained page")
    again = plans.add_parser("report", help="the table and the page of an earlier run")
    again.add_argument("file", type=pathlib.Path, help="what --json wrote")
    again.add_argument("--html", type=pathlib.Path)
    return parser


def _measure(options: argparse.Namespace, arguments: list[str]) -> Results:
    plan = PLANS[options.plan]
    names = options.systems.split(",")
    if unknown := set(names) - set(SYSTEMS):
        known = ", ".join(SYSTEMS)
        raise SystemExit(f"bench: unknown system {', '.join(sorted(unknown))}; there are {known}")
    size = dataclasses.replace(
        plan.size, mib=options.mib, random_s=options.random_s, files=options.files
    )
    results = Results(arguments, dict.fromkeys(names, ""), machine=describe_machine())
    with tempfile.TemporaryDirectory(prefix="fs3-bench-") as scratch:
        measure(
            results,
            plan.works,
            size,
            repeats=options.repeats,
            scratch=pathlib.Path(scratch),
            say=lambda line: print(line, flush=True),
        )
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
