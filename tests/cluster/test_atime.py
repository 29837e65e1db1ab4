"""Times of access by the policy of the mount, and the root of a host that is nobody."""

import errno
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from fs3.client import Client
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted
from tests.cluster.test_attributes import Who, acting_as, open_way_to

NS = 1_000_000_000
OLD = 1_000 * NS


@pytest.fixture
def place(running: LocalFs3, tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "place"


def told(running: LocalFs3, path: str) -> int:
    """What the service knows."""
    with Client(running.data) as client:
        return client.stat(path).st_atime_ns


def atime(path: pathlib.Path) -> int:
    return os.lstat(path).st_atime_ns


def read(path: pathlib.Path) -> None:
    assert path.read_bytes()


def test_relatime_notes_the_first_read_after_a_change(running: LocalFs3) -> None:
    path = running.mount / "relatime"
    path.write_bytes(b"content")
    before = time.time_ns()
    born = atime(path)
    read(path)
    first = atime(path)
    assert first > born
    assert first >= before - NS
    read(path)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read()
    assert atime(path) == first, "it was read since it was changed"
    path.write_bytes(b"changed")
    read(path)
    assert atime(path) > first
    running.wait_for(lambda: told(running, "/relatime") == atime(path), "the service hears of it")


def test_relatime_leaves_what_is_newer_than_every_change(running: LocalFs3) -> None:
    path = running.mount / "newer"
    path.write_bytes(b"content")
    future = time.time_ns() + 100 * NS
    os.utime(path, ns=(future, OLD))
    read(path)
    assert atime(path) == future
    os.utime(path, ns=(OLD, OLD))
    read(path)
    assert atime(path) > OLD


def test_a_time_set_by_hand_stays(running: LocalFs3) -> None:
    path = running.mount / "by-hand"
    path.write_bytes(b"content")
    read(path)
    ahead = time.time_ns() + 1000 * NS
    os.utime(path, ns=(ahead, OLD))
    assert atime(path) == ahead
    os.utime(path, ns=(5, OLD))
    assert atime(path) == 5
    assert told(running, "/by-hand") == 5


def test_directories_and_links_have_it_too(running: LocalFs3) -> None:
    directory = running.mount / "atimes"
    directory.mkdir()
    (directory / "inside").touch()
    link = running.mount / "atime-link"
    link.symlink_to("atimes")
    changed, born = atime(directory), atime(link)
    os.listdir(directory)
    os.readlink(link)
    assert atime(directory) > changed
    assert atime(link) > born


def test_who_asks_for_no_atime_gets_none(running: LocalFs3) -> None:
    path = running.mount / "quiet"
    path.write_bytes(b"content")
    born = atime(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    assert os.read(descriptor, 10)
    os.close(descriptor)
    assert atime(path) == born
    with Client(running.data) as client:
        client.chattr("/quiet", no_atime=True)
    os.stat(path)
    path.chmod(0o600)  # a later ctime, and the flag is known here
    read(path)
    assert atime(path) == born


def test_noatime_notes_nothing(running: LocalFs3, place: pathlib.Path) -> None:
    with mounted(running, place, "native", "--atime", "noatime"):
        path = place / "noatime"
        path.write_bytes(b"content")
        born = atime(path)
        read(path)
        os.listdir(place)
        assert atime(path) == born
    assert told(running, "/noatime") == born


def test_strictatime_notes_every_read(running: LocalFs3, place: pathlib.Path) -> None:
    with mounted(running, place, "native", "--atime", "strictatime"):
        path = place / "strict"
        path.write_bytes(b"content")
        seen = [atime(path)]
        for _ in range(3):
            read(path)
            seen.append(atime(path))
        with path.open("rb", buffering=0) as file:
            for _ in range(3):
                assert file.read(1)
                seen.append(atime(path))
        assert seen == sorted(set(seen)), "each one later"
    # What waited was told when the mount ended.
    assert told(running, "/strict") == seen[-1]


def test_a_read_only_mount_changes_nothing(running: LocalFs3, place: pathlib.Path) -> None:
    path = running.mount / "untouched"
    path.write_bytes(b"content")
    born = atime(path)
    with mounted(running, place, "native", "--read-only"):
        read(place / "untouched")
        assert atime(place / "untouched") == born
    assert told(running, "/untouched") == born


# ---- root of a host


@pytest.fixture
def squashed(running: LocalFs3, place: pathlib.Path) -> Iterator[pathlib.Path]:
    with mounted(running, place, "native", "--squash-root"):
        yield place


def refused(call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError) as error:
        call(*arguments)
    assert error.value.errno in (errno.EACCES, errno.EPERM)


def test_the_root_of_a_host_is_nobody(running: LocalFs3, squashed: pathlib.Path) -> None:
    open_to_all = running.mount / "all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for name, mode in (("private", 0o600), ("shown", 0o644), ("program", 0o6777)):
        (open_to_all / name).write_bytes(b"content")
        (open_to_all / name).chmod(mode)
    directory = squashed / "all"
    refused((directory / "private").read_bytes)
    assert (directory / "shown").read_bytes() == b"content"
    refused((directory / "shown").write_bytes, b"x")
    refused((directory / "shown").chmod, 0o777)
    refused(os.chown, directory / "shown", 5, 5)
    refused(os.setxattr, directory / "shown", "trusted.a", b"")
    open_way_to(running.data)
    open_way_to(squashed)
    (directory / "mine").write_bytes(b"nobody's")
    info = (running.mount / "all" / "mine").stat()
    assert (info.st_uid, info.st_gid) == (65534, 65534)
    # The privileges of a program that others may write to go all the same.
    with acting_as(Who(1001, 1001), 0o022), (directory / "program").open("ab") as file:
        file.write(b"x")
    with Client(running.data) as client:
        assert client.stat("/all/program").st_mode & 0o7777 == 0o777
