"""Which lines of the native decoders the corpora of the fuzzers reach.

    python -m tests.fuzz.coverage [TARGET ...]

Compiles the decoders once more, with the compiler's own counters (gcov), links them into the
replays that `deploy/setup --dev` has built, and feeds each its corpus. Functions that do not decode
are not counted. Prints the share of every source and the lines that nothing reached; fails below
BAR.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys

from tests.fuzz.seed import CORPUS, ROOT

BUILD = ROOT / "build"
OUT = BUILD / "coverage"
BAR = 0.95
DECODERS = {
    "frame": ("wire/frame.cc", "wire/hello.cc", "wire/error_detail.cc"),
    "storage_messages": ("storage/codec.cc",),
    "capability": ("auth/capability.cc",),
    "engine_records": ("engine/records.cc",),
    "superblock": ("engine/superblock.cc",),
    "engine_load": ("engine/loader.cc",),
    "routing": ("client/routing.cc", "storage/routing.cc", "net/address.cc", "wire/layout.cc"),
    "mount": ("fuse/decode.cc", "fuse/negotiate.cc"),
}
# Beginnings of names of functions: who encodes, or looks at what was decoded.
NOT_COUNTED = (
    *("encode", "put_", "fill_", "serialize", "printable", "utf8_length"),
    *("load_superblock", "check_owner", "hex"),
)


@dataclasses.dataclass
class Covered:
    source: str
    reached: set[int]
    missed: set[int]

    @property
    def share(self) -> float:
        return len(self.reached) / max(len(self.reached) + len(self.missed), 1)

    def __str__(self) -> str:
        missed = f", not reached: {_ranges(self.missed)}" if self.missed else ""
        total = len(self.reached) + len(self.missed)
        return f"  {self.share:6.1%}  {self.source:<24} of {total} lines{missed}"


def compile_counted(source: pathlib.Path) -> pathlib.Path:
    """The object, beside which the counters will lie."""
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    command = next(e["command"] for e in entries if pathlib.Path(e["file"]) == source)
    words = shlex.split(command)
    made = OUT / f"{source.parent.name}-{source.stem}.o"
    words[words.index("-o") + 1] = str(made)
    kept = [word for word in words if not word.startswith(("-O", "-D_FORTIFY_SOURCE"))]
    subprocess.run([*kept, "-O0", "--coverage"], cwd=BUILD, check=True)
    made.with_suffix(".gcda").unlink(missing_ok=True)
    return made


def link(target: str, objects: list[pathlib.Path]) -> pathlib.Path:
    """The replay of the target with these objects instead of what the libraries have."""
    replay = f"fuzz/{target}_replay"
    listing = ["ninja", "-C", str(BUILD), "-t", "commands", replay]
    said = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    last = said.strip().splitlines()[-1]
    words = shlex.split(last.removeprefix(": && ").removesuffix(" && :"))
    at = words.index("-o") + 1
    program = OUT / f"{target}_replay"
    words[at] = str(program)
    subprocess.run(
        [*words[: at - 1], *map(str, objects), *words[at - 1 :], "--coverage"],
        cwd=BUILD,
        check=True,
    )
    return program


def covered(source: pathlib.Path, made: pathlib.Path) -> Covered:
    command = ["gcov", "--json-format", "--stdout", str(made.with_suffix(".gcda"))]
    said = subprocess.run(command, cwd=OUT, capture_output=True, text=True, check=True).stdout
    counts: collections.Counter[int] = collections.Counter()
    for line in said.splitlines():
        for file in json.loads(line)["files"]:
            if (BUILD / file["file"]).resolve() == source:
                skipped = _skipped(file["functions"])
                for row in file["lines"]:
                    if row["line_number"] not in skipped:
                        counts[row["line_number"]] += row["count"]
    reached = {number for number, count in counts.items() if count}
    return Covered(str(source.relative_to(ROOT / "native")), reached, set(counts) - reached)


def _skipped(functions: list[dict[str, object]]) -> set[int]:
    lines: set[int] = set()
    for function in functions:
        name = str(function["demangled_name"]).replace("(anonymous namespace)::", "")
        name = name.partition("(")[0].partition("<")[0].rpartition("::")[2]
        if name.split(" ")[-1].startswith(NOT_COUNTED):
            lines |= set(
                range(int(str(function["start_line"])), int(str(function["end_line"])) + 1)
            )
    return lines


def _ranges(lines: set[int]) -> str:
    parts: list[list[int]] = []
    for line in sorted(lines):
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(DECODERS)}; default: all")
    chosen = parser.parse_args(arguments).targets or list(DECODERS)
    unknown = set(chosen) - set(DECODERS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    OUT.mkdir(parents=True, exist_ok=True)
    low = 0
    for target in chosen:
        sources = [ROOT / "native" / name for name in DECODERS[target]]
        objects = [compile_counted(source) for source in sources]
        program = link(target, objects)
        subprocess.run([program, str(CORPUS / target)], check=True, stdout=subprocess.DEVNULL)
        print(target)
        for source, made in zip(sources, objects, strict=True):
            found = covered(source, made)
            low += found.share < BAR
            print(found, flush=True)
    print(f"{low} sources below {BAR:.0%}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
