"""`bench/run`: chooses the plan, prepares the systems, prints the table."""

import argparse
import json
import pathlib
import sys
import tempfile

from bench.quick import run_quick
from bench.report import table
from bench.systems import SYSTEMS, Unavailable


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "plan", choices=["quick"], help="quick: fio and metadata, about ten minutes"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds over all systems (3)")
    parser.add_argument("--size-mib", type=int, default=256, help="bytes per fio job (256 MiB)")
    parser.add_argument("--files", type=int, default=1000, help="files of the metadata work (1000)")
    parser.add_argument("--systems", default="local,fs3,juicefs", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--json", type=pathlib.Path, help="also write all samples to this file")
    arguments = parser.parse_args()
    names = arguments.systems.split(",")
    if unknown := set(names) - set(SYSTEMS):
        parser.error(f"unknown system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    with tempfile.TemporaryDirectory(prefix="fs3-bench-") as scratch:
        try:
            samples = run_quick(
                [SYSTEMS[name](pathlib.Path(scratch) / name) for name in names],
                repeats=arguments.repeats,
                size_mib=arguments.size_mib,
                files=arguments.files,
            )
        except Unavailable as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(samples, indent=1) + "\n")
    print(table(samples, reference="fs3", ceiling="local"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
