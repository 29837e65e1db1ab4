"""Runs the levels of the test suite, cheapest first, and says at the end what passed.

Every level runs even when one before it failed; the exit status is 0 only when all passed.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]


@dataclasses.dataclass(frozen=True)
class Level:
    name: str
    commands: list[list[str]]


def levels() -> list[Level]:
    python_code = ["fs3", "tests", "bench", "native/proto_python.py"]
    native_code = sorted(
        str(path.relative_to(ROOT))
        for top in ("native", "tests/native")
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
        Level("proof", [[*PYTEST, "tests/cluster/test_proof.py"]]),
    ]


def run(level: Level) -> tuple[bool, int]:
    """Runs the commands of a level; whether all ended with 0, and how many tests they counted."""
    good, counted = True, 0
    for command in level.commands:
        print(f"--- {level.name}: {' '.join(command)[:150]}", flush=True)
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            found = re.search(r"(\d+) passed", line) or re.search(
                r"tests passed.* out of (\d+)", line
            )
            counted += int(found.group(1)) if found else 0
        good &= process.wait() == 0
    return good, counted


def main(names: list[str]) -> int:
    known = levels()
    unknown = set(names) - {level.name for level in known}
    if unknown:
        print(
            f"no such level: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(level.name for level in known)}"
        )
        return 2
    os.environ.setdefault("PYTHONHASHSEED", "0")
    rows, tests, failures = [], 0, 0
    for level in known:
        if level.name not in names and (names or level.name == "proof"):
            continue
        begin_s = time.monotonic()
        good, counted = run(level)
        tests += counted
        failures += not good
        rows.append(
            f"  {'ok  ' if good else 'FAIL'}  {level.name:<8} {time.monotonic() - begin_s:7.1f} s"
        )
    print("\n".join(["", *rows]))
    print(f"{tests} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["sim"] and len(sys.argv) > 2:  # tests/run sim --seed N --trace
        sys.exit(subprocess.call([sys.executable, "-m", "tests.sim.run", *sys.argv[2:]], cwd=ROOT))
    sys.exit(main(sys.argv[1:]))
