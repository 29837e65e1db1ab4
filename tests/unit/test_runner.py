"""The test command itself: names, help, and a failing level that is reported as such."""

import sys

import pytest

from tests.runner import Level, Result, count, deep_levels, levels, main, summary

GOOD = Level("good", "passes", [[sys.executable, "-c", "print('3 passed in 0.1s')"]])
BAD = Level("bad", "fails", [[sys.executable, "-c", "import sys; print('no count'); sys.exit(3)"]])
STEPS = Level(
    "steps",
    "stops at the first failure",
    [
        [sys.executable, "-c", "import os, sys; print(os.environ['SHOWN']); sys.exit(1)"],
        [sys.executable, "-c", "print('not reached')"],
    ],
    {"SHOWN": "an environment of its own"},
    in_steps=True,
)
KNOWN = [GOOD, BAD]


def test_a_failing_level_fails_the_run_and_names_how_to_repeat_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([], KNOWN) == 1
    text = capsys.readouterr().out
    assert "FAIL  bad" in text
    assert "repeat with: tests/run bad" in text
    assert text.endswith("3 passed, 1 failed\n")


def test_only_what_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["good"], KNOWN) == 0
    assert capsys.readouterr().out.endswith("3 passed, 0 failed\n")


def test_steps_end_at_the_first_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [STEPS]) == 1
    text = capsys.readouterr().out
    assert "an environment of its own" in text
    assert "\nnot reached\n" not in text


def test_a_missing_tool_fails_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [Level("lint", "", [["/nonexistent/tool"]])]) == 1
    assert "/nonexistent/tool is missing" in capsys.readouterr().out


def test_a_level_that_hangs_is_ended_and_the_next_one_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what it started: a child of it would hold its output open."""
    hung = Level("hung", "", [["sh", "-c", "sleep 3600 & sleep 3600"]], command_s_max=0.2)
    assert main([], [hung, GOOD]) == 1
    text = capsys.readouterr().out
    assert "it has not ended by itself within 0.2 s" in text
    assert "FAIL  hung" in text
    assert "ok    good" in text


def test_unknown_name_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nope"]) == 2
    assert "there is no level nope" in capsys.readouterr().err
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {level.name} " in text for level in levels() + deep_levels())


@pytest.mark.parametrize(
    ("line", "passed", "failed"),
    [
        ("=== 2 failed, 5 passed, 1 error in 3.21s ===", 5, 3),
        ("90% tests passed, 1 tests failed out of 10", 9, 1),
        ("100% tests passed, 0 tests failed out of 12", 12, 0),
        ("300 passed", 300, 0),
        ("nothing to count", 0, 0),
    ],
)
def test_counting(line: str, passed: int, failed: int) -> None:
    result = Result("x")
    count(line, result)
    assert (result.passed, result.failed) == (passed, failed)


def test_seeds_and_faults_are_told_per_level(capsys: pytest.CaptureFixture[str]) -> None:
    said = [
        "300 seeds (16 of them twice): 12.5 schedules/s per core, 5 operations",
        "landed: kill 3, partition: mgmtd alone 2",
        "60 seeds, 3.1 schedules/s per core, 7 operations of the name space",
        "landed: kill 1, kill storage, proven 4",
        "2 seeds failed: [7, 9]",
    ]
    program = f"print({chr(10).join(said)!r}); raise SystemExit(1)"
    assert main([], [Level("sim", "", [[sys.executable, "-c", program]])]) == 1
    summary = capsys.readouterr().out.rpartition("\n\n")[2]
    assert "FAIL  sim" in summary
    assert "2 failed, 360 seeds" in summary
    assert "faults landed: kill 4, kill storage, proven 4, partition: mgmtd alone 2" in summary


def test_summary_of_nothing_failed() -> None:
    assert "repeat" not in summary([Result("unit", passed=2)])
