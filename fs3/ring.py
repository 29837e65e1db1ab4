"""Ring: many reads (or writes) of a mounted file system at once, straight into one buffer.

    program ── ring and buffer in shared memory ──> the process of the mount ──> storage

No system call per I/O, no copy of ours on the way in, no thread here. What lies underneath is
USRBIO (fs3/usrbio/README.md).
"""

import asyncio
import collections
import contextlib
import errno
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

__all__ = ["Completion", "Range", "Ring"]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Range(NamedTuple):
    """Bytes [offset, offset + length) of a file, and where they lie in the buffer."""

    file: int | HasFileno
    offset: int
    length: int
    at: int
    tag: int = 0


class Completion(NamedTuple):
    """`result`: bytes, fewer than asked for only at the end of a file; or a negative errno."""

    tag: int
    result: int

    def check(self) -> int:
        """The bytes. Raises OSError."""
        if self.result < 0:
            raise OSError(-self.result, os.strerror(-self.result))
        return self.result


class _Registered(NamedTuple):
    handle: int
    file: int | HasFileno


class _Files:
    """Registrations are of the process: rings that use one file share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[tuple[int, int], int] = {}  # of (descriptor, handle)

    def acquire(self, fd: int) -> int:
        from fs3._usrbio import register_fd

        with self._lock:
            for known, handle in self._users:
                if known == fd and os.path.sameopenfile(fd, -handle):
                    self._users[known, handle] += 1
                    return handle
            handle = int(register_fd(fd))
            self._users[fd, handle] = 1
            return handle

    def release(self, fd: int, handle: int) -> None:
        from fs3._usrbio import deregister_fd

        with self._lock:
            self._users[fd, handle] -= 1
            if self._users[fd, handle] == 0:
                del self._users[fd, handle]
                deregister_fd(handle)


_files = _Files()


def _descriptor(file: int | HasFileno) -> int:
    return file if isinstance(file, int) else file.fileno()


class Ring:
    """One ring and its buffer.

    mount: any path in a mounted file system.
    entries: I/Os under way at the same time; more may be submitted, they wait here.
    write: the ring writes from the buffer; otherwise it reads into it.
    buffer_bytes: allocated at once, in /dev/shm.
    priority: < 0 before others, > 0 after them.

    Not for several threads at the same time. Files are registered when they are first used, and
    stay open until close(), or forget(). Before fork() nothing is special: both processes may use
    it, and share its entries.

    >>> with Ring("/mnt/fs3", buffer_bytes=1 << 20) as ring:  # doctest: +SKIP
    ...     ring.submit([Range(file, 0, 4096, at=0), Range(file, 1 << 20, 4096, at=4096)])
    ...     for tag, result in ring.wait(2):
    ...         print(bytes(ring.buffer[:result]))
    """

    def __init__(
        self,
        mount: str | os.PathLike[str],
        *,
        entries: int = 64,
        write: bool = False,
        buffer_bytes: int = 64 << 20,
        priority: int = 0,
        numa: int = -1,
    ) -> None:
        # Here, so that importing fs3 loads no extension.
        from fs3._usrbio import Ring as NativeRing
        from fs3._usrbio import extract_mount_point

        place = extract_mount_point(os.fspath(mount))
        if place is None:
            raise OSError(errno.ENODEV, f"{mount} lies in no mount of fs3", os.fspath(mount))
        self.mount = pathlib.Path(place)
        self.entries = entries
        self._ring = NativeRing(place, entries, not write, buffer_bytes, priority, numa)
        self._registered: dict[int, _Registered] = {}  # by descriptor
        self._waiting: collections.deque[tuple[int, int, int, int, int]] = collections.deque()
        self.buffer = memoryview(self._ring)
        self._closed = False

    # ---- submit and wait

    def submit(self, ranges: Iterable[Range]) -> None:
        """Starts them, as many as there are entries free; the others follow as results are taken.
        Raises OSError for a range that cannot be, EBADF for a file that is not of the mount; those
        before it are under way then, it and those behind it are not."""
        wanted = list(ranges)
        handles = self._handles(wanted)
        self._waiting += ((handles[_descriptor(each.file)], *each[1:]) for each in wanted)
        self._pump()

    def wait(self, least: int = 1, timeout: float | None = None) -> list[Completion]:
        """What has ended, at least so many unless the time (in seconds) is over or fewer are under
        way; in the order of submission as far as they are there."""
        done: list[Completion] = []
        least = min(least, self.under_way)
        while True:
            # All that were submitted first have to be waited for in one call, to keep the order.
            wanted = min(max(least - len(done), 0), self._ring.under_way)
            got = self._ring.wait(wanted, self.entries, timeout)
            done += [Completion(*each) for each in got]
            self._pump()
            if len(done) >= least or (timeout is not None and len(got) < wanted):
                return done

    async def wait_async(self, least: int = 1) -> list[Completion]:
        """The same, in an event loop."""
        loop = asyncio.get_running_loop()
        done = self.wait(0)
        least = min(least, len(done) + self.under_way)
        while len(done) < least:
            ready = loop.create_future()
            loop.add_reader(self.fileno(), _set, ready)
            try:
                # Between the last look and the registration some may have ended: that is readable.
                await ready
            finally:
                loop.remove_reader(self.fileno())
            done += self.wait(0)
        return done

    def run(self, ranges: Iterable[Range]) -> Iterator[Completion]:
        """Submits them and yields each when it has ended."""
        self.submit(ranges)
        while self.under_way:
            yield from self.wait(1)

    @property
    def under_way(self) -> int:
        """Submitted, and not yet returned by wait()."""
        started: int = self._ring.under_way
        return started + len(self._waiting)

    def fileno(self) -> int:
        """Readable when I/Os may have ended since the last wait(). For poll(2) and event loops."""
        fd: int = self._ring.fileno()
        return fd

    def _pump(self) -> None:
        if not self._waiting:
            return
        free = self.entries - self._ring.under_way
        batch = [self._waiting[i] for i in range(min(free, len(self._waiting)))]
        try:
            taken = self._ring.submit(batch)
        except OSError:
            self._waiting.clear()
            raise
        for _ in range(taken):
            self._waiting.popleft()
        if taken < len(batch) and self._ring.under_way < self.entries:
            self._pump()  # the next one cannot be: that is its error

    # ---- files

    def _handles(self, ranges: Sequence[Range]) -> dict[int, int]:
        """Of every descriptor among them; looked at once."""
        handles: dict[int, int] = {}
        for each in ranges:
            fd = _descriptor(each.file)
            if fd in handles:
                continue
            known = self._registered.get(fd)
            same = known is not None and (
                (known.file is each.file and not isinstance(each.file, int))
                or os.path.sameopenfile(fd, -known.handle)
            )
            if not same:
                self.forget(fd)  # the number is another file's now
                self._registered[fd] = _Registered(_files.acquire(fd), each.file)
            handles[fd] = self._registered[fd].handle
        return handles

    def forget(self, file: int | HasFileno) -> None:
        """Closes what this ring holds of the file. None of its I/Os may be under way."""
        fd = _descriptor(file)
        known = self._registered.pop(fd, None)
        if known is not None:
            _files.release(fd, known.handle)

    # ---- the end

    def close(self) -> None:
        """Waits for what is under way; what has not been started is dropped. The buffer stays as
        long as somebody has a part of it."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._ring.end()
        for fd in list(self._registered):
            self.forget(fd)
        with contextlib.suppress(BufferError):
            self.buffer.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fs3.Ring {self.mount}, {self.under_way} of {self.entries} under way>"


def _set(ready: "asyncio.Future[Any]") -> None:
    if not ready.done():
        ready.set_result(None)
