"""Quotas through the command line and the mount: set, seen, enforced."""

import errno
import io
import os
import pathlib

import pytest

from fs3.client import Client
from tests.cluster.conftest import LocalFs3

MIB = 1 << 20


def test_a_tree_with_content_gets_limits_that_bind(running: LocalFs3) -> None:
    team = running.mount / "team"
    for i in range(3):
        (team / f"d{i}").mkdir(parents=True)
        (team / f"d{i}" / "file").write_bytes(bytes(MIB))
    said = running.local("quota", "set", "/team", "--bytes", "4M", "--inodes", "10")
    assert "/team" in said
    assert "3M" in said
    running.wait_for(lambda: os.statvfs(running.mount).f_blocks > 0, "the disks told their size")
    df = os.statvfs(team / "d1")
    assert df.f_blocks * df.f_frsize == 4 * MIB
    assert df.f_bfree * df.f_frsize == MIB
    assert df.f_files == 10
    assert os.statvfs(running.mount).f_files > 1000
    for i in range(3):
        (team / f"more{i}").touch()
    with pytest.raises(OSError) as refused:
        (team / "one too many").touch()
    assert refused.value.errno == errno.EDQUOT
    with pytest.raises(OSError) as refused:
        os.rename(team / "more0", running.mount / "outside")
    assert refused.value.errno == errno.EXDEV
    os.truncate(team / "more0", 1 << 40)  # a hole counts nothing
    with (team / "more0").open("r+b") as file, pytest.raises(OSError) as refused:
        os.posix_fallocate(file.fileno(), 0, 2 * MIB)
    assert refused.value.errno == errno.EDQUOT
    assert "/team" in running.local("quota", "list")
    running.local("quota", "set", "/team", "--inodes", "0")
    assert " 4M" in running.local("quota", "get", str(team / "d1"))
    (team / "one too many").touch()
    running.local("quota", "clear", "/team")
    os.rename(team / "more0", running.mount / "outside")
    assert "no tree" in running.local("quota", "get", "/team")


def test_a_writer_is_stopped_near_the_limit(running: LocalFs3) -> None:
    """It settles after 64 MiB at the latest; then the client knows that the account is full."""
    place = running.mount / "full"
    place.mkdir()
    running.local("quota", "set", "/full", "--bytes", "1M")
    with (place / "file").open("wb", buffering=0) as file, pytest.raises(OSError) as refused:
        grow(file)
    assert refused.value.errno == errno.EDQUOT
    size = (place / "file").stat().st_size
    assert MIB < size <= 66 * MIB
    with (place / "file").open("r+b", buffering=0) as file:
        file.write(b"over what is there")
        with pytest.raises(OSError) as refused:
            os.pwrite(file.fileno(), b"x", size)
        assert refused.value.errno == errno.EDQUOT
        (place / "sparse").touch()
        os.truncate(place / "sparse", 1 << 40)
        with pytest.raises(OSError) as refused:
            write_into_a_hole(place / "sparse")
        assert refused.value.errno == errno.EDQUOT
        os.truncate(place / "file", 100)
        os.pwrite(file.fileno(), b"x", 100)
        os.fsync(file.fileno())
    with Client(running.data) as client:
        quota = client.get_quota("/full")
        assert (quota.bytes, quota.inodes, quota.bytes_max) == (101, 3, MIB)


def write_into_a_hole(path: pathlib.Path) -> None:
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"x", 1 << 30)


def grow(file: io.FileIO) -> None:
    for _ in range(80):
        file.write(bytes(MIB))


def test_a_user(running: LocalFs3) -> None:
    running.local("quota", "set", "--user", "4711", "--inodes", "1")
    first = running.mount / "first"
    first.touch()
    os.chown(first, 4711, 4711)
    second = running.mount / "second"
    second.touch()
    with pytest.raises(OSError) as refused:
        os.chown(second, 4711, 4711)
    assert refused.value.errno == errno.EDQUOT
    assert "user 4711" in running.local("quota", "get", "--user", "4711")
    running.local("quota", "clear", "--user", "4711")
    os.chown(second, 4711, 4711)
    assert "is no amount" in running.local("quota", "set", "/", "--bytes", "much", expect=2)
