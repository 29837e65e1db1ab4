"""3FS's module of this name: shared memory and rings, and reading files through them.

>>> iov = make_iovec(shared_memory, "/mnt/fs3")  # doctest: +SKIP
>>> ring = make_ioring("/mnt/fs3", 64)  # doctest: +SKIP
>>> register_fd(fd)  # doctest: +SKIP
>>> ring.prepare(iov[:4096], True, fd, 0)  # doctest: +SKIP
>>> ring.submit().wait(min_results=1)[0].result  # doctest: +SKIP
4096
"""

import contextlib
import datetime
import enum
import os
import uuid
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from hf3fs_py_usrbio import (
    deregister_fd,
    extract_mount_point,
    force_fsync,
    hardlink,
    ioring,
    iovec,
    punch_hole,
    register_fd,
)

__all__ = [
    "IorPriority",
    "deregister_fd",
    "extract_mount_point",
    "force_fsync",
    "hardlink",
    "make_ioring",
    "make_iovec",
    "punch_hole",
    "read_file",
    "register_fd",
]

_READ_ENTRIES = 1


class IorPriority(enum.IntEnum):
    HIGH = -1
    NORMAL = 0
    LOW = 1


class _Iovec:
    """Registered as long as this object lives. Slices are buffers and keep it."""

    def __init__(
        self, shm: SharedMemory, hf3fs_mount_point: str, block_size: int, numa: int
    ) -> None:
        self._link = ""
        self._pid = os.getpid()
        self.id = uuid.uuid4()
        suffix = f".b{block_size}" if block_size > 0 else ""
        link = f"{hf3fs_mount_point}/3fs-virt/iovs/{self.id}{suffix}"
        os.symlink(f"/dev/shm/{shm.name.lstrip('/')}", link)
        self._link = link
        self.iov = iovec(shm.buf, self.id, hf3fs_mount_point, block_size, numa)

    def __len__(self) -> int:
        return len(self.iov)

    def __getitem__(self, part: slice) -> iovec:
        return self.iov[part]

    def slice_by(self, buffer: Any) -> iovec:
        """The part that `buffer`, which lies in this memory, covers."""
        return self.iov.slice_by(buffer)

    def __del__(self) -> None:
        # A forked child has a copy of this object, not the registration.
        if self._link and self._pid == os.getpid():
            with contextlib.suppress(OSError):  # the mount may be gone
                os.unlink(self._link)


class _Ioring:
    def __init__(self, ring: ioring) -> None:
        self.ring = ring

    @property
    def entries(self) -> int:
        return self.ring.entries

    def prepare(self, iov: Any, read: bool, fd: int, off: int, userdata: Any = None) -> "_Ioring":
        """One I/O with all of `iov`, an iovec or a slice of one. Raises OSError."""
        self.ring.prepare(getattr(iov, "iov", iov), read, fd, off, userdata)
        return self

    def submit(self) -> "_Ioring":
        self.ring.submit()
        return self

    def wait(
        self,
        *,
        max_results: int = 0,
        min_results: int = 0,
        timeout: datetime.timedelta | None = None,
    ) -> list[iovec]:
        """The iovecs that were prepared and whose I/O has ended; `.result`: bytes or -errno."""
        return self.ring.wait(max_results=max_results, min_results=min_results, timeout=timeout)


def make_iovec(
    shm: SharedMemory, hf3fs_mount_point: str, block_size: int = 0, numa: int = -1
) -> _Iovec:
    """Registers the memory; shm.unlink() may follow at once. Raises OSError."""
    return _Iovec(shm, hf3fs_mount_point, block_size, numa)


def make_ioring(
    hf3fs_mount_point: str,
    entries: int,
    for_read: bool = True,
    io_depth: int = 0,
    priority: int | None = None,
    timeout: int | None = None,
    numa: int = -1,
    flags: int = 0,
) -> _Ioring:
    """Raises OSError."""
    return _Ioring(
        ioring(hf3fs_mount_point, entries, for_read, io_depth, priority, timeout, numa, flags)
    )


def read_file(
    fn: str | os.PathLike[str],
    hf3fs_mount_point: str | None = None,
    block_size: int = 1 << 30,
    off: int = 0,
    priority: int | None = None,
    cb: Callable[[memoryview, int], Any] | None = None,
) -> bytes | None:
    """Reads a file from `off` on, block by block. With `cb` each block is given to it, as
    cb(bytes, offset): an int that it returns is where to go on, anything else true ends the
    reading. Without, the bytes are returned."""
    place = hf3fs_mount_point or extract_mount_point(os.fspath(fn))
    if place is None:
        raise OSError(f"{fn} lies in no mount of fs3")
    collected = bytearray()
    fd = os.open(fn, os.O_RDONLY)
    try:
        size = max(1, min(block_size, os.fstat(fd).st_size - off))
        shm = SharedMemory(create=True, size=size)
        try:
            _read_blocks(fd, place, shm, size, off, priority, cb, collected)
        finally:
            shm.unlink()
            with contextlib.suppress(BufferError):  # a callback has kept a part of it
                shm.close()
    finally:
        os.close(fd)
    return None if cb else bytes(collected)


def _read_blocks(
    fd: int,
    place: str,
    shm: SharedMemory,
    size: int,
    off: int,
    priority: int | None,
    cb: Callable[[memoryview, int], Any] | None,
    collected: bytearray,
) -> None:
    iov = make_iovec(shm, place)
    ring = make_ioring(place, _READ_ENTRIES, priority=priority)
    register_fd(fd)
    try:
        while True:
            [done] = ring.prepare(iov[:size], True, fd, off).submit().wait(min_results=1)
            if done.result < 0:
                raise OSError(-done.result, os.strerror(-done.result))
            if done.result == 0:
                return
            with memoryview(done) as view, view[: done.result] as block:
                answer = cb(block, off) if cb else None
                if cb is None:
                    collected += block
            if isinstance(answer, int) and not isinstance(answer, bool):
                off = answer
            elif answer:
                return
            else:
                off += done.result
    finally:
        deregister_fd(fd)
