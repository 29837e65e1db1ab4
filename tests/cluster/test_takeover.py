"""A mount outlives the process that serves it: killed, killed again, replaced."""

import contextlib
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fs3.mount.keeper import mount_server
from tests.cluster.conftest import ROOT, LocalFs3
from tests.cluster.mounts import MountProcess, mounted


def rounds(directory: pathlib.Path) -> int:
    """Of takeover_user.py in DIRECTORY, so far."""
    try:
        return (directory / "log").stat().st_size // len("00000000\n")
    except FileNotFoundError:
        return 0


def server_of(fs3: LocalFs3) -> int:
    return mount_server(int(fs3.cluster.state()["processes"]["mount"]["pid"]))


def kill_server(fs3: LocalFs3) -> None:
    """Returns when another process serves."""
    before = server_of(fs3)
    assert before
    os.kill(before, signal.SIGKILL)
    fs3.wait_for(lambda: server_of(fs3) not in (0, before), "another server of the mount")


def kill_server_of(fs3: LocalFs3, mount: MountProcess) -> None:
    """The same for a mount of its own."""
    before = mount_server(mount.process.pid)
    assert before
    os.kill(before, signal.SIGKILL)
    fs3.wait_for(lambda: mount_server(mount.process.pid) not in (0, before), "another server")


class User:
    """takeover_user.py at work in DIRECTORY."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.takeover_user", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def is_past(self, before: int) -> bool:
        """It has made another round. Fails with what it says when it has ended."""
        assert self._process.poll() is None, self._process.communicate()[1]
        return rounds(self._directory) > before

    def finish(self) -> int:
        """Rounds that it made. Fails with what it found wrong."""
        output, errors = self._process.communicate("stop\n", timeout=120)
        assert self._process.returncode == 0, errors
        return int(output)


@contextlib.contextmanager
def using(directory: pathlib.Path) -> Iterator[User]:
    user = User(directory)
    try:
        yield user
    finally:
        user._process.kill()


def test_programs_go_on_when_the_server_is_killed(running: LocalFs3) -> None:
    keeper = int(running.cluster.state()["processes"]["mount"]["pid"])
    places = [running.mount / f"killed{i}" for i in range(3)]
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(using(place)) for place in places]
        for kill in range(4):
            done = [rounds(place) for place in places]
            time.sleep(0.05 * kill)  # in the middle of whatever they do
            kill_server(running)
            for user, before in zip(users, done, strict=True):
                running.wait_for(lambda u=user, b=before: u.is_past(b), "a round of each", 120)
        assert all(user.finish() for user in users)
    assert int(running.cluster.state()["processes"]["mount"]["pid"]) == keeper


APPENDER = """
import os, select, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_SYNC)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    os.write(log, b"%s %08d\\n" % (sys.argv[2].encode(), number))
    number += 1
print(number)
"""


@contextlib.contextmanager
def appending(path: pathlib.Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A program that appends numbered lines to the file, each durable before the next."""
    writer = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield writer
    finally:
        writer.kill()


def test_appends_happen_once_on_two_mounts(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    """While the server of one of them is killed: no line is torn, doubled or gone, though the two
    have the same length, and each kernel has its own idea of where the end is."""
    log = running.mount / "appended"
    log.touch()
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(mounted(running, tmp_path / "other", "native"))
        places = {"a": log, "b": other.place / "appended"}
        writers = [stack.enter_context(appending(path, name)) for name, path in places.items()]
        for kill in range(4):
            before = log.read_bytes()
            time.sleep(0.05 * kill)
            kill_server_of(running, other)
            running.wait_for(
                lambda b=before: all(
                    log.read_bytes().count(name) > b.count(name) + 20 for name in (b"a", b"b")
                ),
                "lines of both",
            )
        counts = [int(writer.communicate("stop\n", timeout=120)[0]) for writer in writers]
        lines = log.read_bytes().splitlines()
    for name, count in zip((b"a", b"b"), counts, strict=True):
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [b"%s %08d" % (name, number) for number in range(count)]
    assert len(lines) == sum(counts)


def test_an_upgrade_loses_nothing_that_was_written(running: LocalFs3) -> None:
    """Not even what was not synced: the server that goes settles it."""
    path = running.mount / "upgraded"
    before = server_of(running)
    with using(running.mount / "upgrade-user") as user, path.open("wb", buffering=0) as file:
        time.sleep(0.5)
        file.write(b"a" * 100_000)
        said = running.fs3("mount", "--upgrade", str(running.mount))
        file.write(b"b" * 100_000)
        os.fsync(file.fileno())
        assert path.read_bytes() == b"a" * 100_000 + b"b" * 100_000
        assert user.finish()
    after = server_of(running)
    assert before != after
    assert str(after) in said


def test_a_new_program_that_does_not_start_is_not_used(running: LocalFs3) -> None:
    from fs3.mount import keeper

    path = running.mount / "kept"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        with pytest.raises(OSError, match="the old one serves again"):
            keeper.upgrade(running.mount, ["/bin/false"])
        assert file.read() == b"x"


def test_bytes_that_died_with_the_server_are_told_of(running: LocalFs3) -> None:
    """Writes that were answered and not sent yet are lost, as with the machine of a program; the
    program is told by the next fsync, and then everything is as if it had not written."""
    path = running.mount / "buffered"
    with path.open("wb", buffering=0) as file:
        file.write(b"synced")
        os.fsync(file.fileno())
        file.write(b"x")
        kill_server(running)
        with pytest.raises(OSError) as told:
            os.fsync(file.fileno())
        assert told.value.errno == errno.EIO
        os.fsync(file.fileno())
        assert path.read_bytes()[:6] == b"synced"
        os.pwrite(file.fileno(), b"again", 6)
        os.fsync(file.fileno())
    assert path.read_bytes() == b"syncedagain"


def test_listings_and_directories_go_on(running: LocalFs3) -> None:
    directory = running.mount / "listed"
    directory.mkdir()
    for i in range(3000):
        (directory / f"f{i}").touch()
    names = set()
    with os.scandir(directory) as entries:
        names.add(next(entries).name)
        kill_server(running)
        names |= {entry.name for entry in entries}
    assert names == {f"f{i}" for i in range(3000)}
    here = os.getcwd()
    os.chdir(directory)
    try:
        kill_server(running)
        assert len(os.listdir(".")) == 3000
    finally:
        os.chdir(here)


def test_fs3_kill_mount_kills_the_server(running: LocalFs3) -> None:
    before = server_of(running)
    assert "the next process takes it over" in running.local("kill", "mount")
    running.wait_for(lambda: server_of(running) not in (0, before), "another server")
    assert json.loads(running.local("ps", "-o", "json"))["mount"]["restarts"] == 0
    assert os.path.isdir(running.mount)


def test_a_mount_of_its_own_ends_cleanly_after_a_takeover(
    running: LocalFs3, tmp_path: pathlib.Path
) -> None:
    with mounted(running, tmp_path / "own", "native") as mount:
        kill_server_of(running, mount)
        (mount.place / "own").write_bytes(b"x")
    with mounted(running, tmp_path / "none", "native", "--no-survive") as mount:
        assert mount_server(mount.process.pid) == 0
        said = running.fs3("mount", "--upgrade", str(mount.place), expect=1)
        assert "cannot be taken over" in said
