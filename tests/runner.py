"""Runs the levels of the test suite, cheapest first, and says at the end what passed.

Every level runs even when one before it failed, or had to be ended because it hung; the exit status
is 0 only when all passed. The deep levels (--deep) take hours: more seeds, sanitizers, fuzzers. The
end says of each level how many seeds it ran and which faults landed how often.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
SIMULATION = [sys.executable, "-m", "tests.sim.run"]
META_SIMULATION = [sys.executable, "-m", "tests.sim.meta_world"]
PROVE = [sys.executable, "-m", "tests.sim.prove"]
NEMESIS = [sys.executable, "-m", "tests.nemesis"]
DEEP_SEEDS = 10_000
DEEP_DATA_OPERATIONS = 1_000_000
FUZZ_MINUTES = 10  # for each target of tests/fuzz
NEMESIS_SEEDS = 60  # of a minute each
# No command takes so long on a slow machine: the longest, 10,000 seeds, takes two hours of a core.
# One that hangs must not keep the levels behind it from running.
COMMAND_S_MAX = 8 * 3600.0


@dataclasses.dataclass(frozen=True)
class Level:
    name: str
    what: str
    commands: list[list[str]]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_steps: bool = False  # each command needs the one before
    command_s_max: float = COMMAND_S_MAX


@dataclasses.dataclass
class Result:
    """How a level went. Commands that count nothing (linters) count as one failure at most."""

    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    seeds: int = 0
    landed: Counter[str] = dataclasses.field(default_factory=Counter)  # faults, by kind


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
        Level("lint", "ruff, mypy --strict, clang-format", lint),
        Level("unit", "Python parts by themselves", [[*PYTEST, "tests/unit"]]),
        Level(
            "native",
            "C++ parts by themselves (GoogleTest)",
            [["ctest", "--test-dir", "build", "--output-on-failure", "-j", "2"]],
        ),
        Level(
            "posix",
            "tables of every file system call; the FUSE session on a memory file system",
            [[*PYTEST, "tests/posix"]],
        ),
        Level(
            "sim",
            "simulated schedules with faults, single faults, planted bugs",
            [
                [*SIMULATION, "--seeds", "300"],
                [*SIMULATION, "--engine", "--seeds", "40"],
                [*META_SIMULATION, "--seeds", "60"],
                [sys.executable, "-m", "tests.sim.singles"],
                [*PROVE],
            ],
        ),
        Level(
            "cluster",
            "real processes and mounts",
            [[*PYTEST, "tests/cluster", "--ignore=tests/cluster/test_proof.py"]],
        ),
        Level(
            "nemesis",
            "real processes in network namespaces, faults by seed",
            [[*NEMESIS, "--seeds", "2", "--seconds", "20"]],
        ),
        Level(
            "proof",
            "real programs on the mount while nodes are killed",
            [[*PYTEST, "tests/cluster/test_proof.py"]],
        ),
    ]


def deep_levels() -> list[Level]:
    """What takes too long for every change; a new kind of long run is a row here."""
    return [
        Level(
            "sim",
            f"{DEEP_SEEDS:,} simulated schedules; every planted bug from seed 1",
            [
                [*SIMULATION, "--seeds", str(DEEP_SEEDS)],
                [*SIMULATION, "--engine", "--seeds", str(DEEP_SEEDS // 5)],
                [*META_SIMULATION, "--seeds", str(DEEP_SEEDS // 5)],
                [*PROVE, "--deep"],
            ],
        ),
        _sanitized(
            "asan",
            "address,undefined",
            {
                "ASAN_OPTIONS": "detect_stack_use_after_return=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
            },
        ),
        _sanitized_cluster(),
        _sanitized(
            "tsan",
            "thread",
            {"TSAN_OPTIONS": f"halt_on_error=1 suppressions={ROOT}/tests/native/tsan.supp"},
        ),
        Level(
            "fuzz",
            f"each decoder for {FUZZ_MINUTES} minutes",
            [[sys.executable, "-m", "tests.fuzz.run", "--minutes", str(FUZZ_MINUTES)]],
        ),
        Level(
            "data",
            f"{DEEP_DATA_OPERATIONS:,} random operations on files from two mounts",
            [[*PYTEST, "tests/cluster/test_data.py", "--timeout", "0"]],
            {"FS3_DATA_OPERATIONS": str(DEEP_DATA_OPERATIONS)},
        ),
        Level(
            "nemesis",
            f"{NEMESIS_SEEDS} minutes of faults on real processes",
            [[*NEMESIS, "--seeds", str(NEMESIS_SEEDS), "--seconds", "60"]],
        ),
    ]


def _sanitized(name: str, sanitizers: str, environment: Mapping[str, str]) -> Level:
    """The native tests, built and run under a sanitizer in build-NAME."""
    build = f"build-{name}"
    commands = [
        _configure(build, sanitizers),
        ["cmake", "--build", build, "--target", "native_tests"],
        ["ctest", "--test-dir", build, "--output-on-failure", "-j", "2"],
    ]
    return Level(name, f"native tests under {sanitizers}", commands, environment, in_steps=True)


def _sanitized_cluster() -> Level:
    """Services and mounts of real clusters under ASan and UBSan, in the build of asan."""
    build = "build-asan"
    sanitized = [sys.executable, "-m", "tests.sanitized", build]
    tests = ["tests/cluster/test_storage_processes.py", "tests/cluster/test_crash.py"]
    commands = [
        [*sanitized, "copy"],
        _configure(build, "address,undefined"),
        ["cmake", "--build", build, "--target", "_native", "fs3_python_proto"],
        # Five times as slow: what has a limit of minutes gets an hour.
        [*sanitized, "run", *tests, "--override-ini=timeout=3600"],
    ]
    what = "real clusters under address,undefined: writes, kill -9, return, compare"
    return Level("asan-cluster", what, commands, in_steps=True)


def _configure(build: str, sanitizers: str) -> list[str]:
    return [
        *("cmake", "-S", "native", "-B", build, "-G", "Ninja"),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DFS3_SANITIZE={sanitizers}",
        f"-DFS3_PACKAGE={ROOT / build / 'tree' / 'fs3'}",
    ]


_PASSED = (re.compile(r"(\d+) passed"), re.compile(r"tests passed.* out of (\d+)"))
_FAILED = (
    re.compile(r"(\d+) (?:failed|errors?)\b(?! out of)"),
    re.compile(r"(\d+) tests failed out"),
    re.compile(r"^(\d+) seeds failed"),
)
_SEEDS = re.compile(r"^(\d+) seeds?\b(?! failed)")
_LANDED = re.compile(r"^landed: (.*)$")
_LANDED_KIND = re.compile(r"\s*(.*\S) (\d+)$")


def count(line: str, result: Result) -> None:
    """Adds what a summary line of pytest, ctest, the simulators or the nemesis says.

    >>> result = Result("unit")
    >>> count("=== 2 failed, 5 passed, 1 error in 3.21s ===", result); result.passed, result.failed
    (5, 3)
    >>> result = Result("native")
    >>> count("90% tests passed, 1 tests failed out of 10", result); result.passed, result.failed
    (9, 1)
    >>> result = Result("sim")
    >>> count("300 seeds (16 of them twice): 12.5 schedules/s", result); result.seeds
    300
    >>> count("landed: kill 3, partition: mgmtd alone 2", result); result.landed["kill"]
    3
    """
    if seeds := _SEEDS.match(line):
        result.seeds += int(seeds[1])
    if landed := _LANDED.match(line):
        # A kind may have a comma in its name ("kill storage, proven 2").
        for part in re.findall(r"(.*?\d)(?:, |$)", landed[1]):
            if kind := _LANDED_KIND.match(part):
                result.landed[kind[1]] += int(kind[2])
        return
    passed = sum(int(found) for pattern in _PASSED for found in pattern.findall(line))
    failed = sum(int(found) for pattern in _FAILED for found in pattern.findall(line))
    if "tests failed out of" in line:  # ctest names the total
        passed -= failed
    result.passed += passed
    result.failed += failed


def run(level: Level) -> Result:
    """Runs the commands of a level, all of them, and shows their output."""
    result = Result(level.name)
    begin_s = time.monotonic()
    for command in level.commands:
        print(f"--- {level.name}: {' '.join(command)[:150]}", flush=True)
        before = result.failed
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **level.environment},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            print(f"{error.filename} is missing; install what the tests need: deploy/setup --dev")
            result.failed += 1
            continue
        with process, _ends_within(level.command_s_max, process):
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                count(line, result)
        # The exit status decides; what looks like a count in other output does not.
        failed = result.failed - before
        result.failed = before + (max(failed, 1) if process.returncode else 0)
        if level.in_steps and process.returncode:
            break
    result.seconds = time.monotonic() - begin_s
    return result


@contextlib.contextmanager
def _ends_within(seconds: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kills the command and all that it started when it takes longer, or we are interrupted."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def give_up() -> None:
        print(f"ended: it has not ended by itself within {seconds:g} s", flush=True)
        kill()

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()


def usage() -> str:
    def table(levels: list[Level]) -> str:
        return "\n".join(f"  {level.name:<12} {level.what}" for level in levels)

    return (
        "tests/run [LEVEL...]             every level, or only these:\n"
        f"{table(levels())}\n"
        "tests/run --deep [LEVEL...]      what takes hours:\n"
        f"{table(deep_levels())}\n"
        "tests/run sim --seed N --trace   repeats one simulated schedule\n"
        "Exit status: 0 all passed, 1 something failed, 2 wrong use."
    )


def summary(results: list[Result], command: str = "tests/run") -> str:
    """The last lines of a run: one per level, how to repeat what failed, and the counts."""
    lines = [line for one in results for line in _told(one)]
    bad = [one.name for one in results if one.failed]
    if bad:
        lines.append(f"failed: {', '.join(bad)}; repeat with: {command} {' '.join(bad)}")
    passed, failed = sum(one.passed for one in results), sum(one.failed for one in results)
    return "\n".join(["", *lines, f"{passed} passed, {failed} failed"])


def _told(one: Result) -> Iterator[str]:
    verdict = "FAIL" if one.failed else "ok  "
    line = f"  {verdict}  {one.name:<12} {one.seconds:7.1f} s  {one.passed:>5} passed"
    line += f", {one.failed} failed" if one.failed else ""
    yield line + (f", {one.seeds} seeds" if one.seeds else "")
    if one.landed:
        landed = ", ".join(f"{kind} {times}" for kind, times in one.landed.most_common())
        yield f"        faults landed: {landed}"


def main(arguments: list[str], known: list[Level] | None = None) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(usage())
        return 0
    names = [name for name in arguments if name != "--deep"]
    known = known or (deep_levels() if "--deep" in arguments else levels())
    unknown = [name for name in names if name not in {level.name for level in known}]
    if unknown:
        print(f"there is no level {', '.join(unknown)}\n\n{usage()}", file=sys.stderr)
        return 2
    os.environ.setdefault("PYTHONHASHSEED", "0")
    results = [run(level) for level in known if level.name in names or not names]
    print(summary(results, "tests/run --deep" if "--deep" in arguments else "tests/run"))
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["sim"] and len(sys.argv) > 2:  # tests/run sim --seed N --trace
        sys.exit(subprocess.call([*SIMULATION, *sys.argv[2:]], cwd=ROOT))
    sys.exit(main(sys.argv[1:]))
