"""The sentences of fs3/mount/README.md about names, attributes and data, one test each (its number
is in the name), on two real mounts. `other` is a mount in this process, so that its calls to the
metadata service can be counted; nothing here sleeps: what holds must hold at once."""

import contextlib
import mmap
import os
import pathlib
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest

from fs3 import _native
from fs3.client.discover import meta_addresses
from fs3.mount.mounts import mounted_at
from fs3.mount.umount import unmount
from fs3.runtime.entropy import SystemEntropy
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import MountProcess, mounted

FILES = 1000  # looked at within a lease (LEASE_S), on a loaded machine too
ROUNDS = 50


class Other:
    """A second mount."""

    def __init__(self, cluster: LocalFs3, place: pathlib.Path) -> None:
        place.mkdir()
        self.place = place
        addresses = meta_addresses(cluster.data)
        self._mount = _native.cluster_mount(
            str(place), addresses, b"", SystemEntropy().token(16), uring="off", reactors=2
        )
        self._mount.start()

    def calls(self) -> int:
        """To the metadata service, but for those that keep its session."""
        return self._mount.counts()["meta_calls"]

    def calls_of(self, action: Callable[[], object]) -> int:
        before = self.calls()
        action()
        return self.calls() - before

    def stop(self) -> None:
        self._mount.stop(force=True)
        assert mounted_at(str(self.place)) is None


@pytest.fixture(scope="module")
def other(running: LocalFs3) -> Iterator[Other]:
    mount = Other(running, running.data.parent / "other")
    yield mount
    mount.stop()


@pytest.fixture
def pair(running: LocalFs3, other: Other, request: pytest.FixtureRequest):
    """A directory of its own, on both mounts: where changes are made, and where they are seen."""
    name = request.node.name.replace("/", "-")
    here, there = running.mount / name, other.place / name
    here.mkdir()
    os.listdir(there)
    return here, there


def names(place: pathlib.Path) -> set[str]:
    return set(os.listdir(place))


# ---- names and attributes


def test_1_a_file_made_is_there(pair) -> None:
    here, there = pair
    for number in range(ROUNDS):
        name = f"{number}"
        assert not (there / name).exists()
        (here / name).write_bytes(b"x" * number)
        assert (there / name).stat().st_size == number
        assert name in names(there)


def test_2_a_file_removed_is_gone(pair) -> None:
    here, there = pair
    for number in range(ROUNDS):
        (here / f"{number}").touch()
    for number in range(ROUNDS):
        assert (there / f"{number}").exists()
        os.unlink(here / f"{number}")
        assert not (there / f"{number}").exists()
        with pytest.raises(FileNotFoundError):
            os.open(there / f"{number}", os.O_RDONLY)


def test_3_a_file_renamed_has_its_new_name_only(pair) -> None:
    here, there = pair
    (here / "d").mkdir()
    (here / "0").write_bytes(b"moved")
    for number in range(ROUNDS):
        old = ("d/" if number % 3 == 1 else "") + str(number)
        new = ("d/" if (number + 1) % 3 == 1 else "") + str(number + 1)
        assert (there / old).exists()
        assert not (there / new).exists()
        os.rename(here / old, here / new)
        assert not (there / old).exists()
        assert (there / new).read_bytes() == b"moved"


def test_4_a_new_mode_is_obeyed(pair) -> None:
    here, there = pair
    file = here / "f"
    file.touch()
    for number in range(ROUNDS):
        mode = 0o600 + number % 8
        os.chmod(file, mode)
        assert stat.S_IMODE((there / "f").stat().st_mode) == mode
        os.utime(file, ns=(number, number))
        assert (there / "f").stat().st_mtime_ns == number


def test_4_attributes_of_directories_and_links(pair) -> None:
    here, there = pair
    (here / "f").touch()
    for number in range(ROUNDS):
        assert there.stat().st_nlink == 2 + number
        (here / f"d{number}").mkdir()
        assert there.stat().st_nlink == 3 + number
        assert (there / "f").stat().st_nlink == 1 + number
        os.link(here / "f", here / f"l{number}")
        assert (there / "f").stat().st_nlink == 2 + number
        assert os.path.samefile(there / "f", there / f"l{number}")


def test_5_a_name_found_missing(pair) -> None:
    here, there = pair
    for number, make in enumerate((os.mkdir, lambda path: os.symlink("x", path), os.mkfifo) * 10):
        assert not os.path.lexists(there / f"{number}")
        assert not os.path.lexists(there / f"{number}")
        make(here / f"{number}")
        assert os.path.lexists(there / f"{number}")


def test_6_a_name_made_again_leads_to_the_new_file(pair) -> None:
    here, there = pair
    for number in range(ROUNDS):
        (here / "f").write_bytes(b"%d" % number)
        inode = (here / "f").stat().st_ino
        assert (there / "f").read_bytes() == b"%d" % number
        assert (there / "f").stat().st_ino == inode
        os.unlink(here / "f")


def test_6_both_directions_in_turn(pair) -> None:
    for number in range(ROUNDS):
        here, there = pair if number % 2 else pair[::-1]
        (here / "f").write_bytes(b"%d" % number)
        assert (there / "f").read_bytes() == b"%d" % number
        os.rename(there / "f", there / "g")
        assert (here / "g").read_bytes() == b"%d" % number
        assert not (here / "f").exists()
        os.unlink(here / "g")


def test_7_what_nobody_changes_costs_no_call(pair, other: Other) -> None:
    here, there = pair
    for number in range(FILES):
        os.mknod(here / f"{number}", 0o644)

    def stat_all() -> None:
        for number in range(FILES):
            os.stat(there / f"{number}")
            with contextlib.suppress(FileNotFoundError):
                os.stat(there / f"{number}-missing")

    first = other.calls_of(stat_all)
    assert first <= 2 * FILES + 10
    assert other.calls_of(stat_all) == 0
    assert other.calls_of(lambda: list(map(os.stat, [there] * 1000))) == 0
    os.chmod(here / "17", 0o600)
    assert 0 < other.calls_of(stat_all) < 10, "one changed, and nothing else is asked for"


def test_9_a_mount_that_is_stopped(running: LocalFs3, pair) -> None:
    here, _ = pair
    (here / "f").touch()
    with mounted(running, running.data.parent / "stopped", "native") as mount:
        there = mount.place / here.name / "f"
        assert there.exists()
        server = mount.server()
        os.kill(server, signal.SIGSTOP)
        try:
            os.chmod(here / "f", 0o600)
        finally:
            os.kill(server, signal.SIGCONT)
        assert stat.S_IMODE(there.stat().st_mode) == 0o600


def test_9_a_mount_that_is_killed(running: LocalFs3, pair) -> None:
    here, _ = pair
    (here / "f").touch()
    place = running.data.parent / "killed"
    mount = MountProcess(running, place, "native", "--no-survive")
    assert (mount.place / here.name / "f").exists()
    mount.stop(signal.SIGKILL)
    os.chmod(here / "f", 0o600)
    os.unlink(here / "f")
    unmount(mount.place, lazy=True)


def test_9_a_mount_whose_process_is_replaced(running: LocalFs3, pair) -> None:
    """What its kernel was told by the process before is recalled by the next one."""
    here, _ = pair
    (here / "f").write_bytes(b"0" * 5000)
    (here / "held").write_bytes(b"0" * 5000)
    with mounted(running, running.data.parent / "replaced", "native") as mount:
        there = mount.place / here.name
        held = os.open(there / "held", os.O_RDONLY)
        try:
            for number in range(1, 6):
                assert (there / "f").stat().st_size == 5000
                assert os.pread(held, 1, 0) == b"%d" % (number - 1)
                os.utime(here / "held", ns=(1, 1))
                assert os.fstat(held).st_mtime_ns == 1
                assert not (there / f"{number}").exists()
                mount.kill_server(running)
                os.chmod(here / "f", 0o600 + number)
                assert stat.S_IMODE((there / "f").stat().st_mode) == 0o600 + number
                (here / f"{number}").touch()
                assert (there / f"{number}").exists()
                (here / "held").write_bytes(b"%d" % number * 5000)
                os.utime(here / "held", ns=(1, 1))
                assert os.pread(held, 5000, 0) == b"%d" % number * 5000
                os.chmod(there / "f", 0o644)
                assert stat.S_IMODE((here / "f").stat().st_mode) == 0o644
        finally:
            os.close(held)


def test_10_after_a_restart_of_the_service(fs3: LocalFs3, tmp_path: pathlib.Path) -> None:
    fs3.up()
    fs3.wait_healthy()
    other = Other(fs3, tmp_path / "other")
    try:
        for number in range(3):
            (fs3.mount / "f").write_bytes(b"%d" % number)
            assert (other.place / "f").read_bytes() == b"%d" % number
            assert not (other.place / "g").exists()
            pid = int(fs3.cluster.state()["processes"]["meta"]["pid"])
            os.kill(pid, signal.SIGKILL)
            (fs3.mount / "g").touch()  # answered by the next service
            os.chmod(fs3.mount / "f", 0o600 + number)
            assert (other.place / "g").exists()
            assert stat.S_IMODE((other.place / "f").stat().st_mode) == 0o600 + number
            os.unlink(other.place / "g")
            assert not (fs3.mount / "g").exists()
            fs3.wait_healthy()
        stats = lambda: [os.stat(other.place / "f") for _ in range(100)]  # noqa: E731
        fs3.wait_for(lambda: other.calls_of(stats) <= 2, "attributes are believed again")
    finally:
        other.stop()


# ---- data


def test_11_what_was_synced_or_closed_is_read(pair) -> None:
    here, there = pair
    with open(here / "f", "wb", buffering=0) as writer, open(here / "f", "rb") as _:
        reader = os.open(there / "f", os.O_RDONLY)
        written = b""
        for number in range(ROUNDS):
            block = bytes([number]) * (1000 + number)
            writer.write(block)
            os.fsync(writer.fileno())
            written += block
            assert os.fstat(reader).st_size == len(written)
            assert os.pread(reader, 1 << 20, 0) == written
        os.close(reader)
    for number in range(ROUNDS):
        (here / "g").write_bytes(b"%d" % number)
        assert (there / "g").read_bytes() == b"%d" % number


def test_12_through_a_file_that_is_open(pair) -> None:
    here, there = pair
    (here / "f").write_bytes(b"a" * 10_000)
    reader = os.open(there / "f", os.O_RDONLY)
    try:
        for number in range(ROUNDS):
            text = bytes([65 + number % 26]) * (10_000 - 100 * number)
            (here / "f").write_bytes(text)
            assert os.pread(reader, 20_000, 0) == text
    finally:
        os.close(reader)


def test_13_also_when_size_and_time_are_as_before(pair) -> None:
    here, there = pair
    (here / "f").write_bytes(b"a" * 5000)
    os.utime(here / "f", ns=(1, 1))
    reader = os.open(there / "f", os.O_RDONLY)
    try:
        for number in range(ROUNDS):
            text = bytes([65 + number % 26]) * 5000
            (here / "f").write_bytes(text)
            os.utime(here / "f", ns=(1, 1))
            assert os.fstat(reader).st_mtime_ns == 1
            assert os.pread(reader, 5000, 0) == text
    finally:
        os.close(reader)


def test_14_a_file_that_grows_without_a_sync(running: LocalFs3, pair) -> None:
    here, there = pair
    with open(here / "log", "wb", buffering=0) as writer:
        for number in range(1, 4):
            writer.write(b"line\n")
            running.wait_for(
                lambda length=5 * number: (there / "log").read_bytes() == b"line\n" * (length // 5),
                "the other mount sees the line",
            )


def test_15_unchanged_files_are_read_from_the_page_cache(pair, other: Other) -> None:
    here, there = pair
    (here / "f").write_bytes(os.urandom(1 << 20))
    reads = []
    for _ in range(3):
        before = other._mount.counts()["reads"]
        assert (there / "f").read_bytes() == (here / "f").read_bytes()
        reads.append(other._mount.counts()["reads"] - before)
    assert reads[0] > 0
    assert reads[1:] == [0, 0]


def test_pages_of_a_mapping_are_dropped(running: LocalFs3, pair) -> None:
    here, there = pair
    (here / "f").write_bytes(b"a" * 8192)
    with open(there / "f", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:2] == b"aa"
        with open(here / "f", "r+b") as writer:
            writer.write(b"bb")
        running.wait_for(lambda: pages[:2] == b"bb", "the mapping shows the change")


def test_two_mounts_that_change_one_directory_get_on(running: LocalFs3, pair) -> None:
    """Each holds its kernel's lock of the directory while the other's change waits for it to forget
    a name: the circle that ends by time."""
    here, there = pair
    count = 60
    for number in range(count):
        (here / f"{number}").touch()
    assert len(names(there)) == count
    for number in range(count):
        assert (there / f"{number}").exists()
        assert (here / f"{number}").exists()
    commands = [
        ["sh", "-c", f"for i in $(seq {first} 2 {count - 1}); do mv $i m$i && rm m$i; done"]
        for first in (0, 1)
    ]
    both = [
        subprocess.Popen(command, cwd=place)
        for command, place in zip(commands, (here, there), strict=True)
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    assert names(here) == names(there) == set()
