"""Runs the levels of the test suite, cheapest first, and says at the end what passed.

    python -m tests.runner [LEVEL ...]              the quick levels, or these
    python -m tests.runner --deep [--minutes N] [LEVEL ...]     the deep ones: hours

Every level runs even when one before it failed; the exit status is 0 only when all passed.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
FUZZ_MINUTES = 10.0  # for each target of tests/fuzz


@dataclasses.dataclass(frozen=True)
class Level:
    name: str
    commands: list[list[str]]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    by_name_only: bool = False
    in_steps: bool = False  # each command needs the one before


def levels() -> list[Level]:
    python_code = ["fs3", "tests", "bench", "native/proto_python.py"]
    native_code = sorted(
        str(path.relative_to(ROOT))
        for top in ("native", "tests/native", "tests/fuzz")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".h", ".cc")
    )
    lint = [
        [sys.executable, "-m", "ruff", "check", *python_code],
        [sys.executable, "-m", "ruff", "format", "--check", *python_code],
        [sys.executable, "-m", "mypy"],
        [
            str(pathlib.Path(sys.executable).parent / "clang-format"),
            "--dry-run",
            "-Werror",
            *native_code,
        ],
    ]
    return [
        Level("lint", lint),
        Level("unit", [[*PYTEST, "tests/unit"]]),
        Level("native", [["ctest", "--test-dir", "build", "--output-on-failure", "-j", "2"]]),
        Level(
            "sim",
            [[sys.executable, "-m", "tests.sim.run", "--seeds", "300"]],
        ),
        Level("cluster", [[*PYTEST, "tests/cluster", "--ignore=tests/cluster/test_proof.py"]]),
        Level("proof", [[*PYTEST, "tests/cluster/test_proof.py"]], by_name_only=True),
    ]


def deep_levels(minutes: float) -> list[Level]:
    """What takes too long for every change; a new kind of long run is a row here."""
    return [
        Level("sim", [[sys.executable, "-m", "tests.sim.run", "--seeds", "10000"]]),
        sanitized(
            "asan",
            "address,undefined",
            {"ASAN_OPTIONS": "detect_stack_use_after_return=1", "UBSAN_OPTIONS": STACK},
        ),
        sanitized("tsan", "thread", {"TSAN_OPTIONS": f"suppressions={TSAN_SUPPRESSIONS}"}),
        Level("fuzz", [[sys.executable, "-m", "tests.fuzz.run", "--minutes", str(minutes)]]),
        Level("proof", [[*PYTEST, "tests/cluster/test_proof.py"]]),
    ]


STACK = "print_stacktrace=1"
TSAN_SUPPRESSIONS = ROOT / "tests/native/tsan.supp"
SANITIZED_JOBS = "2"  # a test under a sanitizer takes several times the memory


def sanitized(name: str, sanitizers: str, environment: Mapping[str, str]) -> Level:
    """The native tests, built and run under a sanitizer in build-NAME."""
    build = f"build-{name}"
    configure = [
        *("cmake", "-S", "native", "-B", build, "-G", "Ninja"),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DFS3_SANITIZE={sanitizers}",
    ]
    return Level(
        name,
        [
            configure,
            ["cmake", "--build", build, "--target", "native_tests"],
            ["ctest", "--test-dir", build, "--output-on-failure", "-j", SANITIZED_JOBS],
        ],
        environment,
        in_steps=True,
    )


def run(level: Level) -> tuple[bool, int]:
    """Runs the commands of a level; whether all ended with 0, and how many tests they counted."""
    good, counted = True, 0
    for command in level.commands:
        print(f"--- {level.name}: {' '.join(command)[:150]}", flush=True)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **level.environment},
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            found = re.search(r"(\d+) passed", line) or re.search(
                r"tests passed.* out of (\d+)", line
            )
            counted += int(found.group(1)) if found else 0
        good &= process.wait() == 0
        if level.in_steps and not good:
            break
    return good, counted


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("--deep", action="store_true", help="the deep levels instead")
    parser.add_argument("--minutes", type=float, default=FUZZ_MINUTES, help="of each fuzzer")
    parser.add_argument("names", nargs="*", metavar="LEVEL")
    chosen = parser.parse_args(arguments)
    known = deep_levels(chosen.minutes) if chosen.deep else levels()
    unknown = set(chosen.names) - {level.name for level in known}
    if unknown:
        print(
            f"no such level: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(level.name for level in known)}"
        )
        return 2
    os.environ.setdefault("PYTHONHASHSEED", "0")
    wanted = [level for level in known if _is_wanted(level, chosen.names)]
    return summary([(level, *timed(level)) for level in wanted])


def _is_wanted(level: Level, names: list[str]) -> bool:
    return level.name in names if names else not level.by_name_only


def timed(level: Level) -> tuple[bool, int, float]:
    begin_s = time.monotonic()
    good, counted = run(level)
    return good, counted, time.monotonic() - begin_s


def summary(outcomes: list[tuple[Level, bool, int, float]]) -> int:
    print()
    for level, good, _, seconds in outcomes:
        print(f"  {'ok  ' if good else 'FAIL'}  {level.name:<8} {seconds:7.1f} s")
    failures = sum(not good for _, good, _, _ in outcomes)
    print(f"{sum(counted for _, _, counted, _ in outcomes)} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["sim"] and len(sys.argv) > 2:  # tests/run sim --seed N --trace
        sys.exit(subprocess.call([sys.executable, "-m", "tests.sim.run", *sys.argv[2:]], cwd=ROOT))
    sys.exit(main(sys.argv[1:]))
