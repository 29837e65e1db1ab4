"""File: an open file of a Client, usable wherever a raw binary file is (io.RawIOBase)."""

import errno
import io
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any

from fs3.client.calls import (
    Buffer,
    CopyRange,
    Fallocate,
    Flush,
    Fsync,
    Read,
    Seek,
    Write,
)
from fs3.client.modes import Mode
from fs3.client.operations import Opened
from fs3.client.paths import Path

if TYPE_CHECKING:
    from fs3.client.client import Client

__all__ = ["File"]

# One request of a read to the end: large enough to keep every chain busy.
_READ_ALL_BYTES = 64 << 20
_LINE_BYTES = 8192


class File(io.RawIOBase):
    """Reads and writes go to the native client, which splits, retries and buffers small writes: a
    write is acknowledged from memory, `flush` waits for the replicas, `fsync` makes length and
    bytes durable, `close` does all of it and ends the session. An error of a buffered write is
    raised by the next flush, fsync or close.

    pread and pwrite take no notice of the position and may be called from many threads at once.
    There is no fileno: the file has no descriptor in the kernel.
    """

    def __init__(self, client: "Client", opened: Opened, path: Path, mode: Mode) -> None:
        self._client = client
        self._opened = opened
        self._path = path
        self._mode = mode
        self._position = opened.size if mode.flags & os.O_APPEND else 0
        self._lock = threading.Lock()  # of the position
        self._ended = False

    # ---- what it is ----

    @property
    def name(self) -> str:
        return os.fsdecode(self._path)

    @property
    def mode(self) -> str:
        return self._mode.name

    @property
    def inode(self) -> int:
        return self._opened.inode

    def readable(self) -> bool:
        self._check_open()
        return self._mode.flags & os.O_ACCMODE != os.O_WRONLY

    def writable(self) -> bool:
        self._check_open()
        return self._mode.flags & os.O_ACCMODE != os.O_RDONLY

    def seekable(self) -> bool:
        self._check_open()
        return True

    def stat(self) -> os.stat_result:
        self._check_open()
        return self._client._run(self._client._operations.fstat(self._opened, self._path))

    def link(self, path: Path) -> None:
        """One more name for the file; the first one for what was opened with O_TMPFILE."""
        self._check_open()
        self._client._run(self._client._operations.link_opened(self._opened, path))

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<fs3.File {self.name!r} mode={self.mode!r} {state}>"

    # ---- at an offset ----

    def pread(self, length: int, offset: int) -> bytes:
        """At most `length` bytes from `offset`, fewer only at the end of the file."""
        self._check(self.readable(), "read")
        _check_offset(offset)
        if length < 0:
            raise ValueError(f"length must not be negative, is {length}")
        return self._client._read(self._opened.handle, offset, length, self._path)

    def preadinto(self, buffer: Buffer, offset: int) -> int:
        """Into a writable contiguous buffer; returns the bytes read."""
        self._check(self.readable(), "read")
        _check_offset(offset)
        return int(self._one(Read(self._opened.handle, offset, buffer)))

    def pwrite(self, data: Buffer, offset: int) -> int:
        """All of `data`; returns its length in bytes. At the end in append mode, as on Linux."""
        self._check(self.writable(), "write")
        _check_offset(offset)
        return int(self._one(Write(self._opened.handle, offset, data)))

    # ---- at the position ----

    def readinto(self, buffer: Buffer, /) -> int:
        with self._lock:
            length = self.preadinto(buffer, self._position)
            self._position += length
            return length

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        with self._lock:
            data = self.pread(size, self._position)
            self._position += len(data)
            return data

    def readall(self) -> bytes:
        parts: list[bytes] = []
        # One byte more than is there, so that the common case is one request that sees the end.
        left = max(self.stat().st_size - self.tell(), 0) + 1
        while True:
            want = min(left, _READ_ALL_BYTES)
            parts.append(self.read(want))
            if len(parts[-1]) < want:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            left = max(left - want, _READ_ALL_BYTES)  # it grows while it is read

    def write(self, data: Buffer, /) -> int:
        with self._lock:
            length = self.pwrite(data, self._position)
            if self._mode.flags & os.O_APPEND:
                self._position = self._end()
            else:
                self._position += length
            return length

    def readline(self, size: int | None = -1, /) -> bytes:
        """For loops over many lines open with buffering or in text mode: this asks per line."""
        limit = -1 if size is None else size
        parts: list[bytes] = []
        got = 0
        with self._lock:
            while limit < 0 or got < limit:
                want = _LINE_BYTES if limit < 0 else min(_LINE_BYTES, limit - got)
                piece = self.pread(want, self._position)
                end = piece.find(b"\n") + 1
                piece = piece[:end] if end else piece
                parts.append(piece)
                got += len(piece)
                self._position += len(piece)
                if end or len(piece) < want:
                    break
        return b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Also SEEK_DATA and SEEK_HOLE: OSError ENXIO when nothing of the kind follows."""
        self._check_open()
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            _check_offset(offset)
            with self._lock:
                data = whence == os.SEEK_DATA
                self._position = int(self._one(Seek(self._opened.handle, offset, data)))
                return self._position
        with self._lock:
            base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
            if base is None:
                if whence != os.SEEK_END:
                    raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
                base = self._end()
            _check_offset(base + offset)
            self._position = base + offset
            return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    # ---- the end of the file, and of the handle ----

    def truncate(self, size: int | None = None, /) -> int:
        """To `size` bytes (default: the position), which it returns. The position stays."""
        self._check(self.writable(), "truncate")
        size = self._position if size is None else size
        _check_offset(size)
        operations = self._client._operations
        self._client._run(operations.ftruncate(self._opened, size, self._path))
        return size

    # ---- holes and copies ----

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        """As fallocate(2): `mode` 0 (the file is at least offset + length long afterwards; ENOSPC
        when that much cannot be stored now), KEEP_SIZE 1, PUNCH_HOLE 2 (with 1), ZERO_RANGE 16.
        Other modes: OSError EOPNOTSUPP."""
        self._check(self.writable(), "fallocate")
        _check_offset(offset)
        self._one(Fallocate(self._opened.handle, mode, offset, max(length, 0)))

    def copy_range_to(self, target: "File", length: int, *, offset: int, target_offset: int) -> int:
        """As os.copy_file_range, between files of one client: the bytes do not pass through
        Python, holes stay holes. Returns the bytes copied: fewer at the end of this file, and as
        many as suits one call. No position moves."""
        self._check(self.readable(), "read")
        target._check(target.writable(), "write")
        _check_offset(offset)
        _check_offset(target_offset)
        if not self._client._operations.shares_connection(target._client._operations):
            raise OSError(errno.EXDEV, f"{target.name!r} belongs to another client")
        call = CopyRange(
            self._opened.handle, offset, target._opened.handle, target_offset, max(length, 0)
        )
        return int(self._one(call))

    def flush(self) -> None:
        """Waits until every byte written so far is on all replicas."""
        if self.closed or self._ended:
            return
        if self._mode.flags & os.O_ACCMODE != os.O_RDONLY:
            self._one(Flush(self._opened.handle))

    def fsync(self, *, durable: bool = True) -> None:
        """flush, and the length is settled: every later open sees it. durable=False does not wait
        for the metadata to be on stable storage."""
        self._check_open()
        self._one(Fsync(self._opened.handle, durable))

    def close(self) -> None:
        """Idempotent. Raises what could not be written; the file is closed all the same."""
        if self.closed or self._ended:
            return
        self._ended = True
        try:
            self._client._forget(self)
            self._client._run(self._client._operations.close(self._opened, self._path))
        finally:
            super().close()

    def __del__(self) -> None:
        # Not close(): a collector may run anywhere and must not wait for the network. The native
        # handle is closed in the background, and a write error has nobody to hear it.
        if not getattr(self, "_ended", True):
            self._ended = True
            super().close()
            warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)

    # ---- inside ----

    def _one(self, call: Read | Write | Seek | Fallocate | CopyRange | Flush | Fsync) -> Any:
        return self._client._run(self._client._operations.one(call, self._path))

    def _end(self) -> int:
        return self.stat().st_size

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check(self, allowed: bool, what: str) -> None:
        if not allowed:
            raise io.UnsupportedOperation(f"{what}: {self.name!r} is open in mode {self.mode!r}")

    def __reduce__(self) -> Any:
        raise TypeError("an open fs3.File cannot be pickled; open it again where it is needed")


def _check_offset(offset: int) -> None:
    if offset < 0:
        raise OSError(errno.EINVAL, f"offset must not be negative, is {offset}")
