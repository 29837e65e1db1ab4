"""AsyncClient and AsyncFile: the file system inside an asyncio event loop.

The same operations as Client (operations.py), suspended instead of blocking. The loop watches one
eventfd per client; there is no thread per call and no executor.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from fs3.client.attributes import DirEntry
from fs3.client.calls import (
    Buffer,
    Close,
    CopyRange,
    Fallocate,
    Flush,
    Fsync,
    Native,
    Operation,
    Queue,
    Read,
    Seek,
    Write,
)
from fs3.client.client import Where, connect_native, new_queue
from fs3.client.discover import meta_addresses as discover
from fs3.client.drivers import AsyncDriver
from fs3.client.identity import Identity
from fs3.client.modes import Mode, mode_of_flags, parse_mode
from fs3.client.moments import Moments, moments_of
from fs3.client.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, Opened, Operations
from fs3.client.paths import Path
from fs3.client.quota import Owner, Quota
from fs3.runtime.entropy import Entropy, SystemEntropy

__all__ = ["AsyncClient", "AsyncFile"]

T = TypeVar("T")
_COPY_BYTES = 8 << 20
_READ_ALL_BYTES = 64 << 20


class AsyncClient:
    """As Client, with coroutines. Belongs to the event loop it is first used on.

    >>> async with AsyncClient("fs3-data") as client:  # doctest: +SKIP
    ...     await client.write_bytes("/hello", b"world")
    """

    def __init__(
        self,
        where: Where | None = None,
        *,
        meta_addresses: Iterable[str] | None = None,
        cluster_id: bytes = b"",
        write_back_bytes: int = 4 << 20,
        meta_deadline_s: float = 30.0,
        data_deadline_s: float = 60.0,
        identity: Identity | None = None,
        entropy: Entropy | None = None,
        native: Native | None = None,
        queues: Callable[[], Queue] = new_queue,
    ) -> None:
        self._pid = os.getpid()
        if native is None:
            addresses = list(meta_addresses) if meta_addresses is not None else discover(where)
            native = connect_native(
                addresses,
                entropy=entropy or SystemEntropy(),
                cluster_id=cluster_id,
                write_back_bytes=write_back_bytes,
                meta_deadline_s=meta_deadline_s,
                data_deadline_s=data_deadline_s,
            )
        self._native = native
        self._queues = queues
        self._operations = Operations(native, identity or Identity.of_process())
        self._driver: AsyncDriver | None = None
        self._files: set[AsyncFile] = set()
        self._closed = False

    async def aclose(self) -> None:
        """Closes every open file (the first error is raised), then the connections. Idempotent."""
        if self._closed:
            return
        if os.getpid() != self._pid:
            self._closed = True
            return
        outcomes = await asyncio.gather(
            *(file.close() for file in list(self._files)), return_exceptions=True
        )
        self._closed = True
        if self._driver is not None:
            self._driver.close()
        # A few milliseconds: what was open has ended above.
        self._native.shutdown()
        for outcome in outcomes:
            if isinstance(outcome, OSError):
                raise outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def acting_as(self, identity: Identity) -> "AsyncClient":
        """As Client.acting_as: the same connection in the name of somebody else."""
        return _ActingAsyncClient(self, identity)

    def statistics(self) -> dict[str, int]:
        return self._native.statistics()

    # ---- files ----

    async def open(
        self, path: Path, mode: str = "rb", *, permissions: int = 0o666, flags: int = 0
    ) -> "AsyncFile":
        """Binary modes only."""
        parsed = parse_mode(mode)
        if parsed.text:
            raise ValueError(f"invalid mode: {mode!r}; an AsyncFile is binary, add b")
        opened = await self._run(self._operations.open(path, parsed.flags | flags, permissions))
        return self._file(opened, path, parsed)

    async def open_flags(self, path: Path, flags: int, permissions: int = 0o666) -> "AsyncFile":
        """As os.open, but it gives an AsyncFile: `flags` are os.O_*."""
        opened = await self._run(self._operations.open(path, flags, permissions))
        return self._file(opened, path, mode_of_flags(flags))

    async def read_bytes(self, path: Path) -> bytes:
        async with await self.open(path, "rb") as file:
            return await file.read()

    async def write_bytes(self, path: Path, data: Buffer) -> int:
        async with await self.open(path, "wb") as file:
            return await file.write(data)

    async def truncate(self, path: Path, length: int) -> None:
        await self._run(self._operations.truncate(path, length))

    async def pread_many(self, items: Iterable[tuple["Path | AsyncFile", int, int]]) -> list[bytes]:
        """[(path or AsyncFile, offset, length)] read all at once; the bytes of each."""
        return list(await asyncio.gather(*(self._pread(*item) for item in items)))

    async def _pread(self, where: "Path | AsyncFile", offset: int, length: int) -> bytes:
        if isinstance(where, AsyncFile):
            return await where.pread(length, offset)
        async with await self.open(where, "rb") as file:
            return await file.pread(length, offset)

    # ---- attributes ----

    async def stat(self, path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        return await self._run(self._operations.stat(path, follow_symlinks=follow_symlinks))

    async def lstat(self, path: Path) -> os.stat_result:
        return await self._run(self._operations.stat(path, follow_symlinks=False))

    async def exists(self, path: Path) -> bool:
        return await self._run(self._operations.exists(path))

    async def lexists(self, path: Path) -> bool:
        return await self._run(self._operations.exists(path, follow_symlinks=False))

    async def isdir(self, path: Path) -> bool:
        return await self._run(self._operations.is_dir(path))

    async def isfile(self, path: Path) -> bool:
        return await self._run(self._operations.is_file(path))

    async def islink(self, path: Path) -> bool:
        return await self._run(self._operations.is_link(path))

    async def access(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> bool:
        return await self._run(self._operations.access(path, mode, follow_symlinks=follow_symlinks))

    async def chmod(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> None:
        await self._run(self._operations.chmod(path, mode, follow_symlinks=follow_symlinks))

    async def chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        await self._run(self._operations.chown(path, uid, gid, follow_symlinks=follow_symlinks))

    async def utime(
        self,
        path: Path,
        times: tuple[float, float] | None = None,
        *,
        ns: Moments | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        moments = moments_of(times, ns)
        await self._run(self._operations.utime(path, moments, follow_symlinks=follow_symlinks))

    async def chattr(
        self,
        path: Path,
        *,
        immutable: bool | None = None,
        append_only: bool | None = None,
        no_dump: bool | None = None,
        no_atime: bool | None = None,
    ) -> None:
        wanted = (immutable, append_only, no_dump, no_atime)
        await self._run(self._operations.chattr(path, wanted))

    async def getxattr(
        self, path: Path, name: str | bytes, *, follow_symlinks: bool = True
    ) -> bytes:
        return await self._run(
            self._operations.getxattr(path, name, follow_symlinks=follow_symlinks)
        )

    async def listxattr(self, path: Path, *, follow_symlinks: bool = True) -> list[str]:
        return await self._run(self._operations.listxattr(path, follow_symlinks=follow_symlinks))

    async def setxattr(
        self,
        path: Path,
        name: str | bytes,
        value: Buffer,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        await self._run(
            self._operations.setxattr(path, name, value, flags, follow_symlinks=follow_symlinks)
        )

    async def removexattr(
        self, path: Path, name: str | bytes, *, follow_symlinks: bool = True
    ) -> None:
        await self._run(self._operations.removexattr(path, name, follow_symlinks=follow_symlinks))

    async def statvfs(self, path: Path = "/") -> os.statvfs_result:
        return await self._run(self._operations.statvfs(path))

    async def get_quota(self, owner: Owner) -> Quota:
        return await self._run(self._operations.get_quota(owner))

    async def sync(self, path: Path) -> None:
        await self._run(self._operations.sync(path))

    async def sync_all(self) -> None:
        """As Client.sync_all."""
        await self._run(self._operations.sync_all())

    # ---- entries ----

    async def mkdir(self, path: Path, mode: int = 0o777) -> None:
        await self._run(self._operations.mkdir(path, mode))

    async def mknod(self, path: Path, mode: int = 0o600, device: int = 0) -> None:
        await self._run(self._operations.mknod(path, mode, device))

    async def makedirs(self, path: Path, mode: int = 0o777, exist_ok: bool = False) -> None:
        await self._run(self._operations.makedirs(path, mode, exist_ok=exist_ok))

    async def rmdir(self, path: Path) -> None:
        await self._run(self._operations.rmdir(path))

    async def unlink(self, path: Path) -> None:
        await self._run(self._operations.unlink(path))

    remove = unlink

    async def rmtree(self, path: Path) -> None:
        await self._run(self._operations.rmtree(path))

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        flags = 0 if replace else RENAME_NOREPLACE
        await self._run(self._operations.rename(source, target, flags))

    async def exchange(self, source: Path, target: Path) -> None:
        await self._run(self._operations.rename(source, target, RENAME_EXCHANGE))

    async def replace(self, source: Path, target: Path) -> None:
        await self._run(self._operations.rename(source, target))

    async def symlink(self, target: Path, path: Path) -> None:
        await self._run(self._operations.symlink(target, path))

    async def readlink(self, path: Path) -> str:
        return await self._run(self._operations.readlink(path))

    async def link(self, source: Path, path: Path) -> None:
        await self._run(self._operations.link(source, path))

    async def listdir(self, path: Path = "/") -> list[str]:
        return await self._run(self._operations.listdir(path))

    async def scandir(self, path: Path = "/") -> list[DirEntry]:
        return await self._run(self._operations.scandir(path))

    async def walk(self, top: Path = "/") -> AsyncIterator[tuple[str, list[str], list[str]]]:
        """As os.walk from the top down; links to directories are listed among the files."""
        waiting = [os.fsdecode(top)]
        while waiting:
            where = waiting.pop()
            entries = await self.scandir(where)
            directories = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
            files = [e.name for e in entries if not e.is_dir(follow_symlinks=False)]
            yield where, directories, files
            waiting += [where.rstrip("/") + "/" + name for name in reversed(directories)]

    # ---- from and to the local file system ----

    async def put(self, source: Where, path: Path) -> int:
        """Copies a local file in; returns its length. Durable when it returns."""
        import aiofiles

        total = 0
        async with aiofiles.open(source, "rb") as reader, await self.open(path, "wb") as writer:
            while block := await reader.read(_COPY_BYTES):
                total += await writer.write(block)
            await writer.fsync()
        return total

    async def get(self, path: Path, target: Where) -> int:
        """Copies a file out, over what is at `target`; returns its length."""
        import aiofiles

        total = 0
        async with await self.open(path, "rb") as reader, aiofiles.open(target, "wb") as writer:
            while block := await reader.read(_COPY_BYTES):
                await writer.write(block)
                total += len(block)
        return total

    # ---- inside ----

    def _file(self, opened: Opened, path: Path, mode: Mode) -> "AsyncFile":
        file = AsyncFile(self, opened, path, mode)
        self._files.add(file)
        return file

    async def _run(self, operation: Operation[T]) -> T:
        if self._closed:
            operation.close()
            raise OSError(errno.ESHUTDOWN, "the client is closed")
        if self._driver is None:
            self._driver = AsyncDriver(self._native, self._queues(), asyncio.get_running_loop())
        return await self._driver.run(operation)


class _ActingAsyncClient(AsyncClient):
    """What acting_as gives: all of the client it was made from, but for the identity."""

    def __init__(self, owner: AsyncClient, identity: Identity) -> None:
        self._owner = owner
        self._native = owner._native
        self._operations = owner._operations.acting_as(identity)
        self._files = owner._files

    async def aclose(self) -> None:
        """Does nothing: the connection is the other client's."""

    async def _run(self, operation: Operation[T]) -> T:
        return await self._owner._run(operation)


class AsyncFile:
    """An open file of an AsyncClient. pread and pwrite take no notice of the position and may run
    at the same time; read and write move it and are for one task at a time."""

    def __init__(self, client: AsyncClient, opened: Opened, path: Path, mode: Mode) -> None:
        self._client = client
        self._opened = opened
        self._path = path
        self._mode = mode
        self._position = opened.size if mode.flags & os.O_APPEND else 0
        self._closed = False

    @property
    def name(self) -> str:
        return os.fsdecode(self._path)

    @property
    def mode(self) -> str:
        return self._mode.name

    @property
    def inode(self) -> int:
        return self._opened.inode

    @property
    def closed(self) -> bool:
        return self._closed

    async def stat(self) -> os.stat_result:
        return await self._client._run(self._client._operations.fstat(self._opened, self._path))

    async def link(self, path: Path) -> None:
        operations = self._client._operations
        await self._client._run(operations.link_opened(self._opened, path))

    async def preadinto(self, buffer: Buffer, offset: int) -> int:
        length: int = await self._one(Read(self._opened.handle, offset, buffer))
        return length

    async def pread(self, length: int, offset: int) -> bytes:
        block = bytearray(length)
        got = await self.preadinto(block, offset)
        return bytes(memoryview(block)[:got])

    async def pwrite(self, data: Buffer, offset: int) -> int:
        length: int = await self._one(Write(self._opened.handle, offset, data))
        return length

    async def readinto(self, buffer: Buffer) -> int:
        length = await self.preadinto(buffer, self._position)
        self._position += length
        return length

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from the position; negative: all to the end."""
        if size >= 0:
            data = await self.pread(size, self._position)
            self._position += len(data)
            return data
        parts: list[bytes] = []
        left = max((await self.stat()).st_size - self._position, 0) + 1
        while True:
            want = min(left, _READ_ALL_BYTES)
            parts.append(await self.read(want))
            if len(parts[-1]) < want:
                return b"".join(parts)
            left = max(left - want, _READ_ALL_BYTES)

    async def write(self, data: Buffer) -> int:
        length = await self.pwrite(data, self._position)
        if self._mode.flags & os.O_APPEND:
            self._position = (await self.stat()).st_size
        else:
            self._position += length
        return length

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As File.seek."""
        if whence in (os.SEEK_DATA, os.SEEK_HOLE) and offset >= 0:
            data = whence == os.SEEK_DATA
            self._position = int(await self._one(Seek(self._opened.handle, offset, data)))
            return self._position
        if whence == os.SEEK_END:
            offset += (await self.stat()).st_size
        elif whence == os.SEEK_CUR:
            offset += self._position
        if offset < 0:
            raise OSError(errno.EINVAL, f"offset must not be negative, is {offset}")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    async def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        operations = self._client._operations
        await self._client._run(operations.ftruncate(self._opened, size, self._path))
        return size

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """As File.fallocate."""
        await self._one(Fallocate(self._opened.handle, mode, offset, max(length, 0)))

    async def copy_range_to(
        self, target: "AsyncFile", length: int, *, offset: int, target_offset: int
    ) -> int:
        """As File.copy_range_to."""
        if not self._client._operations.shares_connection(target._client._operations):
            raise OSError(errno.EXDEV, f"{target.name!r} belongs to another client")
        call = CopyRange(
            self._opened.handle, offset, target._opened.handle, target_offset, max(length, 0)
        )
        return int(await self._one(call))

    async def flush(self) -> None:
        await self._one(Flush(self._opened.handle))

    async def fsync(self, *, durable: bool = True) -> None:
        await self._one(Fsync(self._opened.handle, durable))

    async def close(self) -> None:
        """Idempotent. Raises what could not be written; the file is closed all the same."""
        if self._closed:
            return
        self._closed = True
        self._client._files.discard(self)
        await self._client._run(self._client._operations.close(self._opened, self._path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _one(
        self, call: Read | Write | Seek | Fallocate | CopyRange | Flush | Fsync | Close
    ) -> Any:
        if self._closed:
            raise ValueError("I/O operation on closed file")
        return await self._client._run(self._client._operations.one(call, self._path))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<fs3.AsyncFile {self.name!r} mode={self.mode!r} {state}>"
