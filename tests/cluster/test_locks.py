"""fcntl and flock locks over two mounts and the Python client: what Linux does with one file on one
host, the cluster does with one file on several."""

import asyncio
import contextlib
import errno
import fcntl
import multiprocessing
import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import fs3 as fs3_package
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted

FLOCK = struct.Struct("hhqqi4x")
KILLS = 6  # within seconds; after ten a mount is given up
PATIENCE_S = 60  # a bound for what must come, however loaded the machine is


@pytest.fixture(scope="module")
def other(running: LocalFs3) -> Iterator[pathlib.Path]:
    """A second mount of the running cluster."""
    with mounted(running, running.data.parent / "other", "native") as mount:
        yield mount.place


class Peer:
    """Another process, on one mount, that does what it is told."""

    CODE = """
import fcntl, os, signal, struct, sys

def raise_interrupted(number, frame):
    raise InterruptedError(4, "signal")

for line in sys.stdin:
    try:
        result = eval(line)
    except OSError as error:
        result = -error.errno
    print(result, flush=True)
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def result(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, expression: str) -> str:
        self.start(expression)
        return self.result()

    def open(self, path: pathlib.Path) -> int:
        return int(self.do(f"os.open({str(path)!r}, os.O_RDWR | os.O_CREAT)"))

    def lock(self, descriptor: int, kind: str, start: int = 0, length: int = 0) -> None:
        self.start(f"fcntl.lockf({descriptor}, fcntl.{kind}, {length}, {start})")

    def locked(self, descriptor: int, kind: str, start: int = 0, length: int = 0) -> str:
        self.lock(descriptor, kind, start, length)
        return self.result()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peers() -> Iterator[tuple[Peer, Peer]]:
    both = Peer(), Peer()
    yield both
    for peer in both:
        peer.end()


SET, TRY = "LOCK_EX", "LOCK_EX | fcntl.LOCK_NB"
TRY_SHARED = "LOCK_SH | fcntl.LOCK_NB"
BUSY = str(-errno.EAGAIN)


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX, start: int = 0, length: int = 0) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, length, start)
    except BlockingIOError:
        return False
    return True


def wait_until_blocked(process: subprocess.Popen[str], running: LocalFs3) -> None:
    """In a lock of the kernel's FUSE client."""

    def waits() -> bool:
        where = pathlib.Path(f"/proc/{process.pid}/wchan").read_text()
        stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return stat in "SD" and "pipe" not in where

    running.wait_for(waits, "the peer waits for a lock")


def meta_pid(cluster: LocalFs3) -> int:
    return int(cluster.cluster.state().get("processes", {}).get("meta", {}).get("pid") or 0)


def test_ranges_exclude_each_other_over_mounts(running, other, peers):
    one, two = peers
    here, there = one.open(running.mount / "ranges"), two.open(other / "ranges")
    assert one.locked(here, SET, 0, 10) == "None"
    assert two.locked(there, TRY, 9, 1) == BUSY
    assert two.locked(there, TRY, 10, 10) == "None"
    assert one.locked(here, TRY_SHARED, 15, 1) == BUSY
    assert one.locked(here, "LOCK_UN", 5, 5) == "None"
    assert two.locked(there, TRY, 5, 5) == "None"
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with open(other / "ranges", "r+b") as file:
        found = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    assert found[:4] == (fcntl.F_WRLCK, os.SEEK_SET, 0, 5)


def test_a_waiter_gets_the_lock_when_it_is_let_go(running, other, peers):
    one, two = peers
    here, there = one.open(running.mount / "waiting"), two.open(other / "waiting")
    assert one.locked(here, SET) == "None"
    two.lock(there, SET)
    wait_until_blocked(two.process, running)
    assert one.locked(here, "LOCK_UN") == "None"
    assert two.result() == "None"
    assert one.locked(here, TRY) == BUSY


def test_bytes_written_under_a_lock_are_seen_by_the_next_holder(running, other):
    with open(running.mount / "counter", "wb") as file:
        file.write(b"0".rjust(8))
    rounds = 40

    def count(place: pathlib.Path) -> None:
        descriptor = os.open(place / "counter", os.O_RDWR)
        try:
            for _ in range(rounds):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                number = int(os.pread(descriptor, 8, 0))
                os.pwrite(descriptor, str(number + 1).encode().rjust(8), 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    threads = [
        threading.Thread(target=count, args=(place,)) for place in (running.mount, other) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int((other / "counter").read_bytes()) == 4 * rounds


def test_closing_any_descriptor_ends_the_locks_of_a_process(running, other, peers):
    one, _ = peers
    path = running.mount / "closing"
    here, second = one.open(path), one.open(path)
    assert one.locked(here, SET) == "None"
    with open(other / "closing", "r+b") as file:
        assert not try_lock(file.fileno())
        assert one.do(f"os.close({second})") == "None"
        assert try_lock(file.fileno())


def test_a_process_that_is_killed_leaves_no_lock(running, other, peers):
    one, _ = peers
    here = one.open(running.mount / "killed")
    assert one.locked(here, SET) == "None"
    with open(other / "killed", "r+b") as file:
        assert not try_lock(file.fileno())
        one.end()
        running.wait_for(lambda: try_lock(file.fileno()), "the lock of a dead process is gone")


def test_flock_belongs_to_the_open_file_and_ends_with_its_last_close(running, other):
    descriptor = os.open(running.mount / "flocked", os.O_RDWR | os.O_CREAT)
    second = os.dup(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with open(other / "flocked", "r+b") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(descriptor)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(second)
        fcntl.flock(file, fcntl.LOCK_SH)


def test_locks_of_an_open_file_end_with_it_and_not_with_a_close(running, other):
    path = running.mount / "ofd"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    lock = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    os.close(os.open(path, os.O_RDWR))
    with open(other / "ofd", "r+b") as file:
        assert not try_lock(file.fileno())
        os.close(descriptor)
        running.wait_for(lambda: try_lock(file.fileno()), "the last close ends the lock")


def test_a_circle_over_two_mounts_is_a_deadlock(running, other, peers):
    one, two = peers
    here, there = one.open(running.mount / "circle"), two.open(other / "circle")
    assert one.locked(here, SET, 0, 1) == "None"
    assert two.locked(there, SET, 1, 1) == "None"
    one.lock(here, SET, 1, 1)
    wait_until_blocked(one.process, running)
    assert two.locked(there, SET, 0, 1) == str(-errno.EDEADLK)
    assert two.locked(there, "LOCK_UN", 1, 1) == "None"
    assert one.result() == "None"


def test_a_signal_ends_a_wait(running, other, peers):
    one, two = peers
    here, there = one.open(running.mount / "signal"), two.open(other / "signal")
    assert one.locked(here, SET) == "None"
    two.do(
        "__import__('signal').signal(10, lambda *a: (_ for _ in ()).throw(OSError(4, 'signal')))"
    )
    two.lock(there, SET)
    wait_until_blocked(two.process, running)
    two.process.send_signal(signal.SIGUSR1)
    assert two.result() == str(-errno.EINTR)
    # It does not get the lock afterwards.
    assert one.locked(here, "LOCK_UN") == "None"
    assert one.locked(here, TRY) == "None"


def test_a_process_that_waits_can_be_killed(running, other, peers):
    one, two = peers
    here, there = one.open(running.mount / "kill"), two.open(other / "kill")
    assert one.locked(here, SET) == "None"
    two.lock(there, SET)
    wait_until_blocked(two.process, running)
    two.process.kill()
    two.process.wait(PATIENCE_S)
    assert one.locked(here, "LOCK_UN") == "None"
    assert one.locked(here, TRY) == "None"


def test_the_python_client_shares_locks_with_mounts(running, other):
    with fs3_package.Client(running.data) as client:
        with client.open("/python", "wb") as file, open(other / "python", "r+b") as there:
            file.lock(0, 10)
            assert not try_lock(there.fileno(), length=1)
            assert try_lock(there.fileno(), start=10, length=5)
            with pytest.raises(BlockingIOError):
                file.lock(12, 1, wait=False)
            file.unlock(0, 5)
            assert try_lock(there.fileno(), length=5)
            file.flock(fcntl.LOCK_EX)
            with pytest.raises(BlockingIOError):
                fcntl.flock(there, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with pytest.raises(OSError) as refused:
                file.lock(shared=True)
            assert refused.value.errno == errno.EBADF
        with open(other / "python", "r+b") as there:
            assert try_lock(there.fileno())
            fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_cancelled_task_does_not_get_the_lock(running, other):
    async def main() -> None:
        async with fs3_package.AsyncClient(running.data) as client:
            file = await client.open("/async", "wb")
            with open(other / "async", "r+b") as there:
                fcntl.lockf(there, fcntl.LOCK_EX)
                task = asyncio.create_task(file.lock())
                await asyncio.sleep(0.2)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                fcntl.lockf(there, fcntl.LOCK_UN)
                assert try_lock(there.fileno())
            await file.lock()
            await file.close()

    asyncio.run(main())


def test_locks_outlive_the_process_that_serves_a_mount(running, peers) -> None:
    """Held, waited for, let go: whoever serves the mount."""
    one, two = peers
    with mounted(running, running.data.parent / "taken-over", "native") as mount:
        ranges, whole = one.open(mount.place / "o-ranges"), one.open(mount.place / "o-whole")
        file = one.open(mount.place / "o-file")
        assert one.locked(ranges, SET, 0, 10) == "None"
        assert one.do(f"fcntl.flock({whole}, fcntl.LOCK_EX)") == "None"
        packed = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        assert one.do(f"len(fcntl.fcntl({file}, {fcntl.F_OFD_SETLK}, {packed!r}))")
        taken, waited = Peer(), two.open(mount.place / "o-waited")
        try:
            there = taken.open(running.mount / "o-waited")
            assert taken.locked(there, SET) == "None"
            two.lock(waited, SET)
            wait_until_blocked(two.process, running)
            with contextlib.ExitStack() as opened:
                names = ("o-ranges", "o-whole", "o-file")
                seen = [opened.enter_context(open(running.mount / name, "r+b")) for name in names]
                for _ in range(3):
                    mount.kill_server(running)
                    assert not try_lock(seen[0].fileno(), length=1)
                    assert try_lock(seen[0].fileno(), start=10)
                    with pytest.raises(BlockingIOError):
                        fcntl.flock(seen[1], fcntl.LOCK_SH | fcntl.LOCK_NB)
                    assert not try_lock(seen[2].fileno())
                assert one.locked(ranges, "LOCK_UN", 0, 5) == "None"
                assert try_lock(seen[0].fileno(), length=5)
                mount.kill_server(running)
                assert one.do(f"os.close({ranges})") == "None"
                assert try_lock(seen[0].fileno())
                assert one.do(f"os.close({whole})") == "None"
                fcntl.flock(seen[1], fcntl.LOCK_EX)
                assert one.do(f"os.close({file})") == "None"
                running.wait_for(lambda: try_lock(seen[2].fileno()), "the last close lets go")
            assert taken.locked(there, "LOCK_UN") == "None"
            assert two.result() == "None"
            assert taken.locked(there, TRY) == BUSY
            two.lock(waited, "LOCK_UN")
            assert two.result() == "None"
        finally:
            taken.end()


def test_nobody_else_gets_a_lock_while_a_mount_changes_hands(running, other) -> None:
    """A number that is counted up under a lock on two mounts, one of which is killed all the
    time: two holders at once would count one number twice."""
    rounds = 200
    (other / "o-counter").write_bytes(b"0".rjust(8))

    def count(place: pathlib.Path) -> None:
        descriptor = os.open(place / "o-counter", os.O_RDWR)
        try:
            for _ in range(rounds):
                fcntl.lockf(descriptor, fcntl.LOCK_EX)
                number = int(os.pread(descriptor, 8, 0))
                written = False
                while not written:  # what died with the process is written again
                    os.pwrite(descriptor, str(number + 1).encode().rjust(8), 0)
                    with contextlib.suppress(OSError):
                        os.fsync(descriptor)
                        written = True
                fcntl.lockf(descriptor, fcntl.LOCK_UN)
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    with mounted(running, running.data.parent / "changing", "native") as mount:
        counting = [
            multiprocessing.get_context("fork").Process(target=count, args=(place,))
            for place in (mount.place, other) * 2
        ]
        for process in counting:
            process.start()
        for _ in range(KILLS):
            mount.kill_server(running)
            before = (other / "o-counter").read_bytes()
            running.wait_for(
                lambda before=before: (
                    (other / "o-counter").read_bytes() != before
                    or not any(process.is_alive() for process in counting)
                ),
                "somebody counts",
            )
        for process in counting:
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    assert int((other / "o-counter").read_bytes()) == 4 * rounds


def test_locks_outlive_the_service(fs3: LocalFs3, tmp_path: pathlib.Path) -> None:
    """A waiter keeps its place while the service is killed and comes back."""
    fs3.up()
    fs3.wait_healthy()
    one, two = Peer(), Peer()
    with mounted(fs3, tmp_path / "other", "native") as mount:
        try:
            here, there = one.open(fs3.mount / "f"), two.open(mount.place / "f")
            assert one.locked(here, SET) == "None"
            two.lock(there, SET)
            wait_until_blocked(two.process, fs3)
            before = meta_pid(fs3)
            os.kill(before, signal.SIGKILL)
            fs3.wait_for(lambda: meta_pid(fs3) not in (0, before), "a new service")
            fs3.wait_healthy()
            with open(fs3.mount / "f", "r+b") as file:
                assert not try_lock(file.fileno())
            assert one.locked(here, "LOCK_UN") == "None"
            assert two.result() == "None"
        finally:
            one.end()
            two.end()
