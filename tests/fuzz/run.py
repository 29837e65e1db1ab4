"""Runs the native fuzzers one after the other, and says how fast and what they found.

    python -m tests.fuzz.run [--minutes 10] [--keep DIRECTORY] [TARGET ...]

Needs clang++ with its fuzzer runtime (Debian: clang libclang-rt-14-dev) and builds into build-fuzz.
A finding is an input left in build-fuzz/findings; after the fix it goes to tests/fuzz/corpus/TARGET
and is replayed for ever. Inputs that reached new code stay in --keep (build-fuzz/corpus), where the
next run goes on.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

from tests.fuzz.seed import CORPUS, ROOT, TARGETS

BUILD = ROOT / "build-fuzz"
FINDINGS = BUILD / "findings"
HANG_S = 10  # one input: the slowest sound one needs a few ms
MEMORY_MIB = 3000  # with the quarantine of AddressSanitizer
ALLOCATION_MIB = 256  # a single allocation; a chunk has at most 64 MiB


@dataclasses.dataclass(frozen=True)
class Outcome:
    target: str
    executions: int
    per_second: int
    covered: int  # edges
    sound: bool

    def __str__(self) -> str:
        verdict = "ok  " if self.sound else "FAIL"
        return (
            f"  {verdict}  {self.target:<18} {self.executions:>10} executions, "
            f"{self.per_second:>6} per second, {self.covered} edges"
        )


def build() -> None:
    configure = [
        *("cmake", "-S", "native", "-B", str(BUILD), "-G", "Ninja"),
        f"-DPython_EXECUTABLE={sys.executable}",
        *("-DCMAKE_CXX_COMPILER=clang++", "-DFS3_TESTS=OFF", "-DFS3_FUZZ=ON"),
        "-DFS3_SANITIZE=address,undefined,fuzzer-no-link",
    ]
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", "fuzzers"]):
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def fuzz(target: str, seconds: float, keep: pathlib.Path) -> Outcome:
    """One fuzzer, alone, with lowered priority."""
    (keep / target).mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    command = [
        *("nice", str(BUILD / f"fuzz/{target}_fuzz")),
        f"-max_total_time={max(1, round(seconds))}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-malloc_limit_mb={ALLOCATION_MIB}",
        "-print_final_stats=1",
        f"-artifact_prefix={FINDINGS}/{target}-",
        *(str(keep / target), str(CORPUS / target)),
    ]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace")
    log = process.stderr
    if process.returncode:
        print(log[-8000:])
        print(f"repeat it with: {BUILD}/fuzz/{target}_fuzz {FINDINGS}/{target}-...")
    return Outcome(
        target,
        _number(r"stat::number_of_executed_units:\s*(\d+)", log),
        _number(r"stat::average_exec_per_sec:\s*(\d+)", log),
        _number(r"cov: (\d+)", log),
        process.returncode == 0,
    )


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="for each target")
    parser.add_argument("--keep", type=pathlib.Path, default=BUILD / "corpus")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if shutil.which("clang++") is None:
        print("clang++ is not here; as root: apt-get install clang libclang-rt-14-dev")
        return 2
    os.chdir(ROOT)
    build()
    outcomes = []
    for target in chosen.targets or TARGETS:
        outcomes.append(fuzz(target, chosen.minutes * 60, chosen.keep))
        print(outcomes[-1], flush=True)
    print(f"{sum(outcome.sound for outcome in outcomes)} passed")
    return 0 if all(outcome.sound for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
