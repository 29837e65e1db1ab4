"""Histories of machine.py: fs3's two mounts against tmpfs."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.posix.conftest import Mounts
from tests.posix.machine import FileSystemMachine, Sides

RULES_LEAST = 40
RULE = "hypothesis_stateful_rule"  # how hypothesis marks them


@pytest.fixture
def tmpfs(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An ordinary user gets a directory of /dev/shm."""
    if os.geteuid() != 0:
        place = pathlib.Path("/dev/shm") / f"fs3-test-{os.getpid()}"
        place.mkdir()
        yield place
        place.rmdir()
        return
    place = tmp_path / "reference"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(place)], check=True)
    for parent in place.parents:
        os.chmod(parent, os.stat(parent).st_mode | 0o111)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.timeout(24 * 3600)
def test_every_answer_is_that_of_tmpfs(
    mounts: Mounts, tmpfs: pathlib.Path, deep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [one for one in vars(FileSystemMachine).values() if hasattr(one, RULE)]
    assert len(rules) >= RULES_LEAST
    if os.geteuid() != 0:
        with capsys.disabled():
            print("\nnot root: everybody in the histories is this user")
    sides = Sides(tmpfs, mounts.first, mounts.second)
    FileSystemMachine.sides = sides
    try:
        run_state_machine_as_test(
            FileSystemMachine,
            settings=settings(
                max_examples=10_000 if deep else 200,
                stateful_step_count=100 if deep else 50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        sides.close()
