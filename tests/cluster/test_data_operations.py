"""Operations on file data through two mounts of a real cluster: what POSIX and Linux promise of
appends, holes, space, copies, synchronous writes, mappings, and files whose name goes away."""

import ctypes
import errno
import mmap
import os
import pathlib
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from fs3.client import Client
from tests.cluster.conftest import ROOT, LocalFs3
from tests.cluster.test_data import two_mounts
from tests.posix.data_tester import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

pytestmark = pytest.mark.timeout(300)

MIB = 1 << 20
TIB = 1 << 40
APPENDS = 60  # by each of two writers on each of two mounts
HEADER = struct.Struct("<4sIIII")  # magic, writer, number, length, CRC of the body


@pytest.fixture(scope="module")
def mounts(running: LocalFs3) -> Iterator[list[pathlib.Path]]:
    with two_mounts(running, "operations") as places:
        yield places


@pytest.fixture
def path(mounts: list[pathlib.Path], request: pytest.FixtureRequest) -> Iterator[pathlib.Path]:
    """A new file on the first mount; its namesake on the second one is `beside` it."""
    place = mounts[0] / request.node.name
    place.write_bytes(b"")
    yield place
    place.unlink(missing_ok=True)


@pytest.fixture
def beside(mounts: list[pathlib.Path], path: pathlib.Path) -> pathlib.Path:
    return mounts[1] / path.name


def stored(path: pathlib.Path) -> int:
    """By a handle: an open fetches attributes, which a name may take from the kernel's cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(fd).st_blocks * 512
    finally:
        os.close(fd)


def soon(condition: Callable[[], bool]) -> None:
    """What a mount has cached of an open file is believed until its lease ends: a second."""
    while not condition():
        time.sleep(0.05)  # the timeout of the test ends it


# ---- appends

APPENDER = """
import os, random, struct, sys, zlib
path, writer, count, sizes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rng = random.Random(writer)
fd = os.open(path, os.O_WRONLY | os.O_APPEND)
for number in range(count):
    largest = 1 << 20 if sizes == "large" and rng.random() < 0.3 else 5000
    length = largest if rng.random() < 0.3 else rng.randrange(20, largest + 1)
    body = rng.randbytes(length - 20)
    record = struct.pack("<4sIIII", b"REC!", writer, number, length, zlib.crc32(body)) + body
    assert os.write(fd, record) == length
    if rng.random() < 0.1:
        os.fsync(fd)
os.close(fd)
"""


def records(data: bytes) -> list[tuple[int, int]]:
    """(writer, number) of every record, in the order of the file; each must be whole."""
    found = []
    at = 0
    while at < len(data):
        magic, writer, number, length, checksum = HEADER.unpack_from(data, at)
        assert magic == b"REC!", f"no record at {at}: {data[at : at + 32].hex()}"
        body = data[at + HEADER.size : at + length]
        assert zlib.crc32(body) == checksum, f"record {writer}/{number} at {at} is torn"
        found.append((writer, number))
        at += length
    return found


@pytest.mark.parametrize("sizes", ["small", "large"])
def test_concurrent_appends_on_two_mounts_are_whole(
    mounts: list[pathlib.Path], path: pathlib.Path, beside: pathlib.Path, sizes: str
) -> None:
    command = [sys.executable, "-c", APPENDER]
    writers = [
        subprocess.Popen([*command, str(place), str(number), str(APPENDS), sizes], cwd=ROOT)
        for number, place in enumerate([path, path, beside, beside])
    ]
    try:
        assert [writer.wait(240) for writer in writers] == [0] * 4
    finally:
        for writer in writers:
            writer.kill()
    for place in (path, beside):
        found = records(place.read_bytes())
        assert sorted(found) == [(w, n) for w in range(4) for n in range(APPENDS)]
        for writer in range(4):  # the appends of one writer keep their order
            assert [n for w, n in found if w == writer] == list(range(APPENDS))
    assert stored(path) == (os.path.getsize(path) + 511) // 512 * 512


def test_a_flag_of_fcntl_appends_as_well(path: pathlib.Path, beside: pathlib.Path) -> None:
    import fcntl

    fd = os.open(path, os.O_RDWR)
    os.write(fd, b"0123")
    os.fsync(fd)
    with open(beside, "ab") as other:
        other.write(b"4567")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"89")
    os.close(fd)
    assert path.read_bytes() == beside.read_bytes() == b"0123456789"


def test_appends_of_the_library_and_of_a_mount(running: LocalFs3, path: pathlib.Path) -> None:
    inside = "/" + str(path.relative_to(running.mount))
    with Client(running.data) as client, client.open(inside, "ab") as file:
        for number in range(20):
            file.write(b"lib%02d" % number)
            with open(path, "ab") as other:
                other.write(b"mnt%02d" % number)
    data = path.read_bytes()
    parts = sorted(data[at : at + 5] for at in range(0, len(data), 5))
    assert parts == sorted(b"%s%02d" % (who, n) for who in (b"lib", b"mnt") for n in range(20))


# ---- holes and space


def test_a_terabyte_of_nothing(path: pathlib.Path, beside: pathlib.Path) -> None:
    os.truncate(path, TIB)
    assert os.stat(beside).st_size == TIB
    assert stored(beside) == 0
    with open(path, "r+b", buffering=0) as file:
        file.seek(TIB - 5)
        file.write(b"e")
        file.seek(TIB // 2 + 7)
        file.write(b"m" * 1000)
    assert stored(path) == stored(beside) <= 2 * MIB
    fd = os.open(beside, os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_DATA) == TIB // 2
        assert os.lseek(fd, TIB // 2 + 7, os.SEEK_HOLE) == TIB // 2 + 1007
        assert os.lseek(fd, TIB // 2 + 1007, os.SEEK_DATA) == TIB - MIB
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert os.pread(fd, 10, TIB - 10) == b"\0" * 5 + b"e" + b"\0" * 4
        assert os.pread(fd, MIB, TIB // 4) == bytes(MIB)
    finally:
        os.close(fd)
    os.truncate(path, 100)
    assert stored(beside) == 0


def test_the_largest_file_can_be_removed(path: pathlib.Path) -> None:
    """In as many steps as it has chunks, not as it has room for."""
    with open(path, "r+b", buffering=0) as file:
        for place in (0, 1 << 45, 1 << 50, (1 << 62) - 1):
            os.pwrite(file.fileno(), b"x", place)
    assert os.stat(path).st_size == 1 << 62
    path.unlink()
    # The check at the end finds chunks that were left.


def test_punched_chunks_give_their_space_back(path: pathlib.Path, beside: pathlib.Path) -> None:
    data = bytearray(random.Random(1).randbytes(8 * MIB))
    path.write_bytes(data)
    assert stored(beside) == 8 * MIB
    fd = os.open(path, os.O_RDWR)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB - 100, 5 * MIB)
    data[MIB - 100 : 6 * MIB - 100] = bytes(5 * MIB)
    assert stored(path) == stored(beside) == 4 * MIB
    assert beside.read_bytes() == data == path.read_bytes()
    fallocate(fd, ZERO_RANGE, 7 * MIB, 2 * MIB)
    assert os.fstat(fd).st_size == os.stat(beside).st_size == 9 * MIB
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, 0, 20 * MIB)
    os.close(fd)
    assert beside.read_bytes() == bytes(9 * MIB)
    assert stored(beside) == 0


def test_what_fallocate_promises_and_refuses(path: pathlib.Path, beside: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDWR)
    os.posix_fallocate(fd, 100, 1000)
    assert os.stat(beside).st_size == 1100
    fallocate(fd, KEEP_SIZE, 0, 5000)
    assert os.stat(beside).st_size == 1100
    for mode, number in (
        (8 | KEEP_SIZE, errno.EOPNOTSUPP),  # COLLAPSE_RANGE takes no flag beside it
        (8, errno.EOPNOTSUPP),
        (32, errno.EOPNOTSUPP),  # INSERT_RANGE
        (64, errno.EOPNOTSUPP),  # UNSHARE_RANGE
        (PUNCH_HOLE, errno.EOPNOTSUPP),
    ):
        with pytest.raises(OSError) as refused:
            fallocate(fd, mode, 0, 4096)
        assert refused.value.errno in (number, errno.EINVAL), mode
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    with pytest.raises(OSError) as refused:
        fallocate(fd, 0, 0, free * 2 + 1)
    assert refused.value.errno == errno.ENOSPC
    assert os.fstat(fd).st_size == 1100
    for offset, length, number in ((0, 0, errno.EINVAL), (-1, 5, errno.EINVAL)):
        with pytest.raises(OSError) as refused:
            fallocate(fd, 0, offset, length)
        assert refused.value.errno == number
    os.close(fd)


def test_stores_into_a_mapping_are_data(path: pathlib.Path) -> None:
    os.truncate(path, 64 * MIB)
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 64 * MIB) as memory:
        memory[40 * MIB : 40 * MIB + 3] = b"abc"
        assert os.lseek(fd, 0, os.SEEK_DATA) == 40 * MIB
        assert 40 * MIB + 3 <= os.lseek(fd, 40 * MIB, os.SEEK_HOLE) <= 41 * MIB
        assert memory[40 * MIB : 40 * MIB + 4] == b"abc\0"
    os.close(fd)


# ---- copies


def test_copies_keep_holes_and_need_no_caller(path: pathlib.Path, beside: pathlib.Path) -> None:
    target = path.with_name(path.name + ".copy")
    os.truncate(path, TIB)
    data = random.Random(2).randbytes(3 * MIB)
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, 5 * MIB + 1)
        os.pwrite(file.fileno(), data, TIB - len(data))
    try:
        with open(path, "rb") as source, open(target, "wb") as copy:
            left = TIB
            while left:
                copied = os.copy_file_range(source.fileno(), copy.fileno(), left)
                assert copied > 0
                left -= copied
        assert os.stat(target).st_size == TIB
        assert stored(target) <= 10 * MIB
        with open(beside.with_name(target.name), "rb") as copy:
            assert os.pread(copy.fileno(), len(data), 5 * MIB + 1) == data
            assert os.pread(copy.fileno(), len(data) + 1, TIB - len(data)) == data
            assert os.lseek(copy.fileno(), 9 * MIB, os.SEEK_DATA) > TIB // 2
    finally:
        target.unlink(missing_ok=True)


def test_copies_inside_one_file(path: pathlib.Path) -> None:
    data = random.Random(3).randbytes(2 * MIB)
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    assert os.copy_file_range(fd, fd, MIB, 100, 3 * MIB) == MIB
    assert os.copy_file_range(fd, fd, 10, 4 * MIB + 200, 0) == 0  # behind the end
    with pytest.raises(OSError) as refused:
        os.copy_file_range(fd, fd, MIB, 0, MIB // 2)
    assert refused.value.errno == errno.EINVAL
    os.close(fd)
    assert path.read_bytes() == data + bytes(MIB) + data[100 : 100 + MIB]


# ---- durability


def test_sync_flags_make_the_length_durable(path: pathlib.Path, beside: pathlib.Path) -> None:
    """The length is settled when the write returns: another mount sees it at once."""
    for flags in (os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_APPEND, os.O_SYNC | os.O_DIRECT):
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | flags)
        os.write(fd, b"x" * 1000)
        assert len(beside.read_bytes()) == 1000
        os.close(fd)


def test_rwf_dsync_and_rwf_append(path: pathlib.Path, beside: pathlib.Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    for flag in (os.RWF_DSYNC, os.RWF_SYNC):
        os.pwritev(fd, [b"0123456789"], 0, flag)
        assert beside.read_bytes() == b"0123456789"
    os.pwritev(fd, [b"end"], 0, getattr(os, "RWF_APPEND", 0x10))
    os.close(fd)
    assert path.read_bytes() == b"0123456789end"


def test_syncfs_and_fdatasync(path: pathlib.Path, beside: pathlib.Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    os.ftruncate(fd, MIB)
    with mmap.mmap(fd, MIB) as memory:
        memory[100:103] = b"abc"
        assert libc.syncfs(fd) == 0
    os.pwrite(fd, b"d", 2 * MIB)
    os.fdatasync(fd)
    with open(beside, "rb") as other:
        assert os.pread(other.fileno(), 3, 100) == b"abc"
        assert os.stat(beside).st_size == 2 * MIB + 1
    os.close(fd)


def test_direct_io_takes_any_offset_and_memory(path: pathlib.Path, beside: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    data = random.Random(4).randbytes(100_001)
    assert os.pwrite(fd, data, 77) == len(data)
    assert os.pread(fd, 50_000, 1000) == (bytes(77) + data)[1000:51_000]
    os.close(fd)
    assert beside.read_bytes() == bytes(77) + data


# ---- mappings and limits


def test_mappings_agree_with_writes(path: pathlib.Path) -> None:
    path.write_bytes(b"." * 3 * mmap.PAGESIZE)
    fd = os.open(path, os.O_RDWR)
    shared = mmap.mmap(fd, 3 * mmap.PAGESIZE)
    private = mmap.mmap(fd, 3 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
    os.pwrite(fd, b"written", 5000)
    assert shared[5000:5007] == private[5000:5007] == b"written"
    shared[5000:5003] = b"SHA"
    private[5003:5007] = b"priv"
    assert os.pread(fd, 7, 5000) == b"SHAtten"
    assert (shared[5000:5007], private[5000:5007]) == (b"SHAtten", b"SHApriv")
    private.close()
    shared.close()
    os.close(fd)
    assert path.read_bytes()[5000:5007] == b"SHAtten"


def test_offsets_at_the_edge(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDWR)
    largest = (1 << 63) - 1

    def refused(number: int, call, *arguments) -> None:
        with pytest.raises(OSError) as error:
            call(*arguments)
        assert error.value.errno == number, (call, arguments)

    refused(errno.EINVAL, os.pwrite, fd, b"x", -1)
    refused(errno.EINVAL, os.pread, fd, 1, -1)
    refused(errno.EINVAL, os.ftruncate, fd, -1)
    refused(errno.EFBIG, os.pwrite, fd, b"x", 1 << 62)
    refused(errno.EINVAL, os.pwrite, fd, b"x", largest)  # the end is no off_t
    refused(errno.EFBIG, os.ftruncate, fd, (1 << 62) + 1)
    refused(errno.EFBIG, os.ftruncate, fd, largest)
    refused(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    refused(errno.ENXIO, os.lseek, fd, 1, os.SEEK_DATA)
    refused(errno.ENXIO, os.lseek, fd, 1, os.SEEK_HOLE)
    assert os.pread(fd, 10, 1 << 62) == b""
    os.ftruncate(fd, 1 << 62)
    assert os.pread(fd, 10, (1 << 62) - 5) == bytes(5)
    os.close(fd)


# ---- files whose name goes


def test_holders_of_a_removed_file_go_on(path: pathlib.Path, beside: pathlib.Path) -> None:
    path.write_bytes(b"0123456789")
    holders = [os.open(path, os.O_RDWR), os.open(beside, os.O_RDWR), os.open(beside, os.O_RDONLY)]
    beside.unlink()
    for number, fd in enumerate(holders[:2]):
        os.pwrite(fd, b"%d" % number, 5 * MIB + number)
        os.fsync(fd)
    for fd in holders:
        assert os.pread(fd, 10, 0) == b"0123456789"
        soon(lambda fd=fd: os.pread(fd, 2, 5 * MIB) == b"01")
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)


def test_holders_of_a_replaced_file_go_on(path: pathlib.Path, beside: pathlib.Path) -> None:
    path.write_bytes(b"old")
    other = path.with_name(path.name + ".new")
    other.write_bytes(b"new")
    reader, writer = os.open(beside, os.O_RDONLY), os.open(path, os.O_RDWR)
    os.rename(other, path)
    os.pwrite(writer, b"OLD!", 0)
    os.close(writer)
    soon(lambda: os.pread(reader, 10, 0) == b"OLD!")
    os.close(reader)
    assert beside.read_bytes() == path.read_bytes() == b"new"


# ---- the library


def test_the_library_knows_holes_and_copies(running: LocalFs3, path: pathlib.Path) -> None:
    inside = "/" + str(path.relative_to(running.mount))
    with Client(running.data) as client, client.open(inside, "r+b") as file:
        file.pwrite(b"abc", 10 * MIB)
        assert file.seek(0, os.SEEK_DATA) == 10 * MIB
        assert file.seek(10 * MIB, os.SEEK_HOLE) == 10 * MIB + 3
        file.fallocate(0, 0, 20 * MIB)
        assert file.stat().st_size == 20 * MIB
        assert file.copy_range_to(file, MIB, offset=10 * MIB, target_offset=15 * MIB) == MIB
        file.fallocate(PUNCH_HOLE | KEEP_SIZE, 10 * MIB, MIB)
        client.sync_all()
        with pytest.raises(OSError) as refused:
            file.fallocate(8, 0, MIB)
        assert refused.value.errno == errno.EOPNOTSUPP
    data = path.read_bytes()
    assert len(data) == 20 * MIB
    assert data.find(b"a") == 15 * MIB
    assert stored(path) <= MIB
