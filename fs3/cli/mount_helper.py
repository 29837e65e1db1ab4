"""mount.fs3, what mount(8) runs for `mount -t fs3 SOURCE TARGET -o OPTIONS` (deploy/mount.fs3)."""

import argparse
import os
import sys
from collections.abc import Sequence

from fs3.cli import report
from fs3.mount.options import MountOptions, parse, split_source


def arguments_of(argv: Sequence[str]) -> list[str]:
    """Those of `fs3`, from those that mount(8) gives: SOURCE TARGET [-sfnv] [-o OPTIONS]."""
    parser = argparse.ArgumentParser(prog="mount.fs3")
    parser.add_argument("source", metavar="HOST:PORT[,HOST:PORT..]:/DIRECTORY")
    parser.add_argument("target")
    parser.add_argument("-o", dest="options", action="append", default=[])
    for flag, what in (("-s", "sloppy"), ("-n", "no mtab"), ("-v", "verbose")):
        parser.add_argument(flag, action="store_true", help=f"{what}: ignored")
    parser.add_argument("-f", dest="fake", action="store_true", help="Mount nothing.")
    parser.add_argument("-t", dest="type", help="ignored")
    chosen = parser.parse_args(argv)
    managers, directory = split_source(chosen.source)
    options = ",".join(chosen.options)
    parse(options, MountOptions())  # refuses what is unknown before anything happens
    if chosen.fake:
        return []
    arguments = ["mount", chosen.target, "--mgmtd", managers, "--subdir", directory]
    return [*arguments, "-o", options] if options else arguments


def main() -> None:
    arguments = arguments_of(sys.argv[1:])
    if arguments:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "fs3.cli", *arguments])


if __name__ == "__main__":
    sys.exit(report(main))
