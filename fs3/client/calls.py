"""What an operation can ask of the native client, as values.

An operation is a generator that yields calls and is sent their results (or thrown their errors):
the same operation runs blocking in `Client` and suspended in `AsyncClient`. No operation knows
which; nothing in here waits.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = [
    "Buffer",
    "Call",
    "Close",
    "CopyRange",
    "Fallocate",
    "Flush",
    "Fsync",
    "Handle",
    "Meta",
    "Native",
    "Operation",
    "Queue",
    "Read",
    "Seek",
    "SyncAll",
    "Write",
]

Buffer = Any  # an object with the buffer protocol, contiguous
T = TypeVar("T")


class Handle(Protocol):
    """fs3._native.FileHandle."""

    @property
    def inode(self) -> int: ...


class Queue(Protocol):
    """fs3._native.CompletionQueue."""

    def fileno(self) -> int: ...
    def wait(self, timeout_s: float) -> bool: ...
    def drain(self) -> list[tuple[int, Any, tuple[int, str, str] | None]]: ...


class Native(Protocol):
    """fs3._native.NativeClient: what this package uses of it. Thread-safe."""

    def meta_call(self, method: int, caller: bytes, umask: int, body: bytes) -> bytes: ...
    def open_handle(self, open_reply: bytes, flags: int) -> Handle: ...
    def read(self, handle: Handle, offset: int, length: int) -> bytes: ...
    def readinto(self, handle: Handle, offset: int, buffer: Buffer) -> int: ...
    def readinto_many(self, reads: list[tuple[Handle, int, Buffer]]) -> list[int]: ...
    def write(self, handle: Handle, offset: int, buffer: Buffer) -> int: ...
    def seek(self, handle: Handle, offset: int, data: bool) -> int: ...
    def fallocate(self, handle: Handle, mode: int, offset: int, length: int) -> None: ...
    def copy_range(
        self,
        source: Handle,
        source_offset: int,
        target: Handle,
        target_offset: int,
        length: int,
    ) -> int: ...
    def sync_all(self) -> None: ...
    def flush(self, handle: Handle) -> None: ...
    def fsync(self, handle: Handle, durable: bool) -> None: ...
    def close(self, handle: Handle) -> None: ...
    def submit_meta_call(
        self, queue: Queue, token: int, method: int, caller: bytes, umask: int, body: bytes
    ) -> None: ...
    def submit_read(
        self, queue: Queue, token: int, handle: Handle, offset: int, buffer: Buffer
    ) -> None: ...
    def submit_write(
        self, queue: Queue, token: int, handle: Handle, offset: int, buffer: Buffer
    ) -> None: ...
    def submit_seek(
        self, queue: Queue, token: int, handle: Handle, offset: int, data: bool
    ) -> None: ...
    def submit_fallocate(
        self, queue: Queue, token: int, handle: Handle, mode: int, offset: int, length: int
    ) -> None: ...
    def submit_copy_range(
        self,
        queue: Queue,
        token: int,
        source: Handle,
        source_offset: int,
        target: Handle,
        target_offset: int,
        length: int,
    ) -> None: ...
    def submit_sync_all(self, queue: Queue, token: int) -> None: ...
    def submit_flush(self, queue: Queue, token: int, handle: Handle) -> None: ...
    def submit_fsync(self, queue: Queue, token: int, handle: Handle, durable: bool) -> None: ...
    def submit_close(self, queue: Queue, token: int, handle: Handle) -> None: ...
    def settle(self, inode: int) -> None: ...
    def submit_settle(self, queue: Queue, token: int, inode: int) -> None: ...
    def note_truncated(self, inode: int, size: int, version: int) -> None: ...
    def local_size(self, inode: int, version: int) -> tuple[int, int] | None: ...
    def statistics(self) -> dict[str, int]: ...
    def shutdown(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Meta:
    """One metadata call; the result is the serialized reply."""

    method: int
    caller: bytes
    umask: int
    body: bytes

    def run(self, native: Native) -> bytes:
        return native.meta_call(self.method, self.caller, self.umask, self.body)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_meta_call(queue, token, self.method, self.caller, self.umask, self.body)


@dataclass(frozen=True, slots=True)
class Read:
    """Into `buffer`, which must not change its size meanwhile; the result is the bytes read."""

    handle: Handle
    offset: int
    buffer: Buffer

    def run(self, native: Native) -> int:
        return native.readinto(self.handle, self.offset, self.buffer)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_read(queue, token, self.handle, self.offset, self.buffer)


@dataclass(frozen=True, slots=True)
class Write:
    """All of `buffer`, which is copied; the result is its length in bytes."""

    handle: Handle
    offset: int
    buffer: Buffer

    def run(self, native: Native) -> int:
        return native.write(self.handle, self.offset, self.buffer)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_write(queue, token, self.handle, self.offset, self.buffer)


@dataclass(frozen=True, slots=True)
class Seek:
    """SEEK_DATA when `data`, else SEEK_HOLE; the result is the offset."""

    handle: Handle
    offset: int
    data: bool

    def run(self, native: Native) -> int:
        return native.seek(self.handle, self.offset, self.data)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_seek(queue, token, self.handle, self.offset, self.data)


@dataclass(frozen=True, slots=True)
class Fallocate:
    """`mode` has the flags of fallocate(2)."""

    handle: Handle
    mode: int
    offset: int
    length: int

    def run(self, native: Native) -> None:
        native.fallocate(self.handle, self.mode, self.offset, self.length)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_fallocate(queue, token, self.handle, self.mode, self.offset, self.length)


@dataclass(frozen=True, slots=True)
class CopyRange:
    """From file to file inside the native client; the result is the bytes copied."""

    source: Handle
    source_offset: int
    target: Handle
    target_offset: int
    length: int

    def run(self, native: Native) -> int:
        return native.copy_range(
            self.source, self.source_offset, self.target, self.target_offset, self.length
        )

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_copy_range(
            queue,
            token,
            self.source,
            self.source_offset,
            self.target,
            self.target_offset,
            self.length,
        )


@dataclass(frozen=True, slots=True)
class SyncAll:
    """fsync of everything that is open."""

    def run(self, native: Native) -> None:
        native.sync_all()

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_sync_all(queue, token)


@dataclass(frozen=True, slots=True)
class Flush:
    handle: Handle

    def run(self, native: Native) -> None:
        native.flush(self.handle)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_flush(queue, token, self.handle)


@dataclass(frozen=True, slots=True)
class Fsync:
    handle: Handle
    durable: bool = True

    def run(self, native: Native) -> None:
        native.fsync(self.handle, self.durable)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_fsync(queue, token, self.handle, self.durable)


@dataclass(frozen=True, slots=True)
class Close:
    handle: Handle

    def run(self, native: Native) -> None:
        native.close(self.handle)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_close(queue, token, self.handle)


@dataclass(frozen=True, slots=True)
class Settle:
    """Brings what this client wrote to the inode to storage and to the metadata service. Errors of
    buffered writes stay with the handles."""

    inode: int

    def run(self, native: Native) -> None:
        native.settle(self.inode)

    def submit(self, native: Native, queue: Queue, token: int) -> None:
        native.submit_settle(queue, token, self.inode)


Call = Meta | Read | Write | Seek | Fallocate | CopyRange | SyncAll | Flush | Fsync | Close | Settle
Operation = Generator[Call, Any, T]
