"""Rings from Python: fs3.Ring, and 3FS's own modules, on a real mount."""

import asyncio
import datetime
import os
import pathlib
import select
import sys
import threading
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import pytest

from fs3.ring import Range, Ring
from tests.cluster.conftest import ROOT, LocalFs3

sys.path.append(str(ROOT / "fs3" / "usrbio" / "python"))

import hf3fs_fuse.io as hf3fs
from hf3fs_fuse.fuse import get_mount_point

BLOCK = 10_000


def content(size: int) -> bytes:
    return bytes(i * 31 % 251 for i in range(size))


@pytest.fixture(scope="module")
def data(running: LocalFs3) -> pathlib.Path:
    path = running.mount / "data"
    path.write_bytes(content(100 * BLOCK + 7))
    return path


@pytest.fixture
def shm() -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=1 << 20)
    yield memory
    memory.close()


# ---- fs3.Ring


def test_many_more_ranges_than_entries(running: LocalFs3, data: pathlib.Path) -> None:
    whole = data.read_bytes()
    with data.open("rb") as file, Ring(data, entries=4, buffer_bytes=2 << 20) as ring:
        ranges = [Range(file, i * BLOCK, BLOCK, at=i * BLOCK, tag=i) for i in range(101)]
        ring.submit(ranges)
        assert ring.under_way == 101
        done = []
        while ring.under_way:
            done += ring.wait(3)
        done.sort()  # each wait() keeps the order; a later one may bring an earlier range
        assert [each.tag for each in done] == list(range(101))
        assert [each.check() for each in done] == [BLOCK] * 100 + [7]
        assert bytes(ring.buffer[: len(whole)]) == whole
        assert ring.wait() == []
        assert {each.tag for each in ring.run(ranges)} == set(range(101))


def test_writes(running: LocalFs3) -> None:
    path = running.mount / "written"
    text = content(64 * BLOCK)
    with path.open("wb") as file, Ring(path, write=True, buffer_bytes=len(text)) as ring:
        ring.buffer[:] = text
        ring.submit(Range(file, i * BLOCK, BLOCK, at=i * BLOCK) for i in range(64))
        assert [each.check() for each in ring.wait(64)] == [BLOCK] * 64
    assert path.read_bytes() == text


def test_errors_say_what(running: LocalFs3, data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="lies in no mount"):
        Ring(tmp_path)
    (tmp_path / "local").touch()
    with data.open("rb") as file, Ring(data, entries=2, buffer_bytes=4096) as ring:
        with (tmp_path / "local").open() as local, pytest.raises(OSError, match="Bad file"):
            ring.submit([Range(local, 0, 1, at=0)])
        with pytest.raises(OSError, match="Invalid argument"):
            ring.submit([Range(file, 0, 10, at=0), Range(file, 0, 4096, at=1)])
        assert [each.result for each in ring.wait(2)] == [10]
        with data.open("r+b", buffering=0) as writable, Ring(data, write=True) as writing:
            with pytest.raises(OSError, match="Permission denied"):
                writing.submit([Range(file, 0, 1, at=0)])
            writing.submit([Range(writable, 0, 1, at=0)])
            assert writing.wait() == [(0, 1)]
            os.pwrite(writable.fileno(), content(1), 0)


def test_a_descriptor_that_is_another_files_now(running: LocalFs3, data: pathlib.Path) -> None:
    other = running.mount / "other"
    other.write_bytes(b"other")
    with Ring(data, buffer_bytes=4096) as ring:
        for path in (data, other, data):
            fd = os.open(path, os.O_RDONLY)
            ring.submit([Range(fd, 0, 5, at=0)])
            assert ring.wait() == [(0, 5)]
            assert bytes(ring.buffer[:5]) == path.read_bytes()[:5]
            os.close(fd)


def test_poll_and_event_loops(running: LocalFs3, data: pathlib.Path) -> None:
    with data.open("rb") as file, Ring(data, entries=8, buffer_bytes=1 << 20) as ring:
        poll = select.poll()
        poll.register(ring.fileno(), select.POLLIN)
        for _ in range(5):
            ring.submit([Range(file, 0, BLOCK, at=0), Range(file, 0, BLOCK, at=0)])
            got = []
            while len(got) < 2:
                assert poll.poll(60_000)
                got += ring.wait(0)
            assert poll.poll(0) == []

        async def read_all() -> int:
            ring.submit(Range(file, i * BLOCK, BLOCK, at=i * BLOCK, tag=i) for i in range(50))
            total = 0
            while ring.under_way:
                total += sum(each.check() for each in await ring.wait_async(7))
            return total

        assert asyncio.run(read_all()) == 50 * BLOCK


def test_the_time_of_a_wait_is_limited(running: LocalFs3, data: pathlib.Path) -> None:
    with Ring(data, buffer_bytes=4096) as ring:
        assert ring.wait(1, timeout=0.01) == []


def test_a_buffer_outlives_its_ring(running: LocalFs3, data: pathlib.Path) -> None:
    with data.open("rb") as file:
        ring = Ring(data, buffer_bytes=4096)
        ring.submit([Range(file, 0, 5, at=0)])
        ring.wait()
        part = ring.buffer[:5]
        ring.close()
        assert bytes(part) == content(5)
        part.release()


# ---- the names of 3FS


def test_the_modules_of_3fs(running: LocalFs3, data: pathlib.Path, shm: SharedMemory) -> None:
    mount = str(running.mount)
    assert hf3fs.extract_mount_point(str(data)) == mount
    assert hf3fs.extract_mount_point("/") is None
    assert get_mount_point("/hf3fs-test/data/x") == "/hf3fs-test/data"
    iov = hf3fs.make_iovec(shm, mount)
    shm.unlink()
    ring = hf3fs.make_ioring(mount, 8, timeout=1)
    assert ring.entries == 8
    fd = os.open(data, os.O_RDONLY)
    handle = hf3fs.register_fd(fd)
    assert handle <= 0
    with pytest.raises(OSError, match="Invalid"):
        hf3fs.register_fd(fd)
    slices = [iov[i * 1000 : (i + 1) * 1000] for i in range(8)]
    for i, part in enumerate(slices):
        ring.prepare(part, True, fd, i * 1000, userdata=("my", i))
    with pytest.raises(BlockingIOError):
        ring.prepare(iov[:10], True, fd, 0)
    done = ring.submit().wait(min_results=8, timeout=datetime.timedelta(seconds=60))
    assert [each.result for each in done] == [1000] * 8
    assert [each.userdata for each in done] == [("my", i) for i in range(8)]
    assert [each.base_off for each in done] == [i * 1000 for i in range(8)]
    assert all(each is part for each, part in zip(done, slices, strict=True))
    assert bytes(shm.buf[:8000]) == content(8000)
    assert bytes(memoryview(slices[1])) == content(2000)[1000:]
    with memoryview(shm.buf)[500:600] as view:
        assert iov.slice_by(view).base_off == 500
    assert ring.wait(timeout=datetime.timedelta(0), min_results=1) == []
    with pytest.raises(PermissionError):
        hf3fs.make_ioring(mount, 4, for_read=False).prepare(iov[:1], False, fd, 0)
    hf3fs.deregister_fd(fd)
    with pytest.raises(OSError, match="Bad file"):
        ring.prepare(iov[:10], True, fd, 0)
    assert hf3fs.force_fsync(fd) == 0
    os.close(fd)
    hf3fs.hardlink(str(data), str(running.mount / "data2"))
    assert os.path.samefile(data, running.mount / "data2")
    names = running.mount / "3fs-virt" / "iovs"
    assert len(os.listdir(names)) == 2
    del done, slices, part, iov, ring, view
    assert os.listdir(names) == []


def test_a_cache_of_pages_in_one_large_sparse_file(running: LocalFs3, shm: SharedMemory) -> None:
    """As the KV caches of inference servers do it: a file of a terabyte, pages in fixed slots, a
    ring for each direction, results taken in the order of submission."""
    path, mount = running.mount / "kv", str(running.mount)
    page = 1 << 16
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 40)
    hf3fs.register_fd(fd)
    iov = hf3fs.make_iovec(shm, mount)
    shm.unlink()
    writes = hf3fs.make_ioring(mount, 8, for_read=False, timeout=1)
    reads = hf3fs.make_ioring(mount, 8, for_read=True, timeout=1)
    slots = [7, 3, 1 << 20, 12, 500]
    for i, slot in enumerate(slots):
        shm.buf[i * page : (i + 1) * page] = bytes([i + 1]) * page
        writes.prepare(iov[i * page : (i + 1) * page], False, fd, slot * page)
    assert [each.result for each in writes.submit().wait(min_results=5)] == [page] * 5
    os.fsync(fd)
    shm.buf[:] = bytes(len(shm.buf))
    for i, slot in enumerate(slots):
        reads.prepare(iov[i * page : (i + 1) * page], True, fd, slot * page)
    assert [each.result for each in reads.submit().wait(min_results=5)] == [page] * 5
    for i in range(len(slots)):
        assert bytes(shm.buf[i * page : (i + 1) * page]) == bytes([i + 1]) * page
    hf3fs.deregister_fd(fd)
    os.close(fd)
    del iov, reads, writes


def test_read_file(running: LocalFs3, data: pathlib.Path) -> None:
    assert hf3fs.read_file(data, block_size=30_000) == data.read_bytes()
    seen: list[tuple[int, int]] = []

    def skip(block: memoryview, offset: int) -> int | bool:
        seen.append((offset, len(block)))
        return offset + 3 * len(block) if len(seen) < 3 else True

    assert hf3fs.read_file(data, block_size=1000, off=50, cb=skip) is None
    assert seen == [(50, 1000), (3050, 1000), (6050, 1000)]


def test_one_thread_prepares_and_another_waits(
    running: LocalFs3, data: pathlib.Path, shm: SharedMemory
) -> None:
    iov = hf3fs.make_iovec(shm, str(running.mount))
    shm.unlink()
    ring = hf3fs.make_ioring(str(running.mount), 16)
    results: list[int] = []

    def wait() -> None:
        while len(results) < 500:
            results.extend([each.result for each in ring.wait(min_results=1)])

    with data.open("rb") as file:
        hf3fs.register_fd(file.fileno())
        thread = threading.Thread(target=wait)
        thread.start()
        sent = 0
        while sent < 500:
            try:
                ring.prepare(iov[:100], True, file.fileno(), sent)
            except BlockingIOError:
                continue
            sent += 1
            ring.submit()
        thread.join()
        hf3fs.deregister_fd(file.fileno())
    assert results == [100] * 500
