"""Random file operations through two mounts of a real cluster, every byte compared: in peace, and
while its processes are killed and stopped."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fs3.cli.selftest import ColdMounts
from tests.cluster.conftest import ROOT, LocalFs3
from tests.cluster.disturber import Disturber
from tests.posix.data_tester import DataTester

# With those of tests/native/client_space_test.cc 100,000; tests/run --deep asks for more.
OPERATIONS = int(os.environ.get("FS3_DATA_OPERATIONS", "28000"))
FAULTS = 5


@contextlib.contextmanager
def two_mounts(fs3: LocalFs3, name: str) -> Iterator[list[pathlib.Path]]:
    """The same new directory on the cluster's mount and on a second one."""
    work = fs3.mount / name
    work.mkdir()
    with ColdMounts(fs3.cluster, work) as cold:
        yield [work, cold.fresh()]


@pytest.mark.timeout(0)  # as many operations as are asked for
def test_random_operations(running: LocalFs3) -> None:
    with two_mounts(running, "peace") as mounts:
        tester = DataTester(mounts, seed=4711)
        try:
            tester.run(OPERATIONS)
        finally:  # a mismatch must be seen, not that the mount is busy with its files
            tester.remove()


@pytest.mark.timeout(600)
def test_random_operations_while_processes_die(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    with two_mounts(running, "faults") as mounts:
        command = [sys.executable, "-m", "tests.posix.data_tester", "--seed", "4712"]
        log = tmp_path / "tester.log"
        with log.open("wb") as output:
            tester = subprocess.Popen(
                [*command, "--operations", "0", *map(str, mounts)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            with Disturber(running.cluster, seed=4712) as disturber:
                running.wait_for(
                    lambda: disturber.counts.total() >= FAULTS or tester.poll() is not None,
                    f"{FAULTS} faults",
                    timeout_s=400,
                )
            tester.terminate()
            status = tester.wait()
        finally:
            tester.kill()
    assert status == 0, f"{disturber.counts}\n{log.read_text()}{running.logs()}"
