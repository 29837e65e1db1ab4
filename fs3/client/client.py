"""Client: the file system for programs, without a mount."""

import atexit
import contextlib
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from fs3._proto import meta_pb2
from fs3.client.attributes import DirEntry
from fs3.client.batch import ReadIntoItem, ReadItem, plan_reads
from fs3.client.calls import Buffer, Handle, Native, Operation, Queue
from fs3.client.discover import meta_addresses as discover
from fs3.client.drivers import Batch, run
from fs3.client.file import File
from fs3.client.identity import Identity
from fs3.client.modes import Mode, mode_of_flags, parse_mode
from fs3.client.moments import Moments, moments_of
from fs3.client.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, Opened, Operations
from fs3.client.paths import Path, naming
from fs3.client.quota import Owner, Quota
from fs3.runtime.entropy import Entropy, SystemEntropy

__all__ = ["Client", "Scan", "Where", "connect_native", "new_queue"]

T = TypeVar("T")
Where = str | os.PathLike[str]
_COPY_BYTES = 8 << 20  # of put and get: one request on the way in, one on the way out

_open_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def connect_native(
    addresses: Sequence[str],
    *,
    entropy: Entropy,
    cluster_id: bytes = b"",
    write_back_bytes: int = 4 << 20,
    meta_deadline_s: float = 30.0,
    data_deadline_s: float = 60.0,
) -> Native:
    """A native client under a fresh client id. It connects when it is first used."""
    from fs3._native import NativeClient  # here, so that importing fs3 loads no extension

    native: Native = NativeClient(
        list(addresses),
        entropy.token(16),
        cluster_id=cluster_id,
        meta_deadline_s=meta_deadline_s,
        data_deadline_s=data_deadline_s,
        write_back_bytes=write_back_bytes,
    )
    return native


def new_queue() -> Queue:
    from fs3._native import CompletionQueue

    queue: Queue = CompletionQueue()
    return queue


class Client:
    """One connection to a file system; paths are absolute inside it.

    Thread-safe. Methods are those of `os`, `os.path` and `shutil`, with the same arguments and the
    same exceptions (OSError and its subclasses, with errno and filename). Calls wait without the
    GIL, so threads make use of one client. After fork() the child makes its own: an inherited one
    raises OSError ESHUTDOWN.

    where: data directory of a local cluster, "tcp://host:port", "unix:///path" or
        "fs3://host:port"; several addresses with commas. None: $FS3_META, $FS3_DATA, ./fs3-data.
    meta_addresses: the addresses themselves, instead of `where`.
    write_back_bytes: unsent bytes per open file; 0 makes every write wait for its replicas.
    meta_deadline_s, data_deadline_s: how long calls are repeated while servers cannot answer.

    >>> with Client("fs3-data") as client:  # doctest: +SKIP
    ...     with client.open("/hello", "wb") as file:
    ...         file.write(b"world")
    5
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
        self._closed = False
        self._queues = queues
        if native is None:
            addresses = list(meta_addresses) if meta_addresses is not None else discover(where)
            self._recipe: dict[str, Any] | None = {
                "meta_addresses": addresses,
                "cluster_id": cluster_id,
                "write_back_bytes": write_back_bytes,
                "meta_deadline_s": meta_deadline_s,
                "data_deadline_s": data_deadline_s,
                "identity": identity,
            }
            native = connect_native(
                addresses,
                entropy=entropy or SystemEntropy(),
                cluster_id=cluster_id,
                write_back_bytes=write_back_bytes,
                meta_deadline_s=meta_deadline_s,
                data_deadline_s=data_deadline_s,
            )
        else:
            self._recipe = None
        self._native = native
        self._operations = Operations(native, identity or Identity.of_process())
        self._files: weakref.WeakSet[File] = weakref.WeakSet()
        self._files_lock = threading.Lock()
        _open_clients.add(self)

    # ---- the client itself ----

    def close(self) -> None:
        """Closes every open file (the first error is raised), then the connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._pid:
            return  # the parent's files and threads
        with self._files_lock:
            files = list(self._files)
        first: OSError | None = None
        for file in files:
            try:
                file.close()
            except OSError as error:
                first = first or error
        self._native.shutdown()
        _open_clients.discard(self)
        if first is not None:
            raise first

    def acting_as(self, identity: Identity) -> "Client":
        """The same connection in the name of somebody else, for a server that works for others:
        `identity` decides what may be found, opened and changed. Only root, the user who runs the
        metadata service and trusted networks are believed. Costs no call. It shares the open files
        and ends with this client; closing it does nothing."""
        return _ActingClient(self, identity)

    def statistics(self) -> dict[str, int]:
        """Counters since the client was made: calls, retries, bytes; and dirty_bytes now."""
        return self._native.statistics()

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
        where = ",".join(self._recipe["meta_addresses"]) if self._recipe else "given"
        return f"<fs3.Client {where}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> Any:
        """Pickled as its addresses: a worker process connects by itself, as its own user unless an
        identity was given."""
        if self._recipe is None:
            raise TypeError("a Client over a given native client cannot be pickled")
        return _rebuild, (self._recipe,)

    # ---- files ----

    def open(
        self,
        path: Path,
        mode: str = "rb",
        buffering: int = 0,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        permissions: int = 0o666,
        flags: int = 0,
    ) -> Any:
        """As the built-in open. Binary modes give a File (or, with buffering > 1, a buffered reader
        or writer over one), text modes an io.TextIOWrapper. `permissions` are those of a new file
        before the umask; `flags` are more os.O_* (O_DIRECT: every write waits for its replicas)."""
        parsed = parse_mode(mode)
        opened = self._run(self._operations.open(path, parsed.flags | flags, permissions))
        raw = self._file(opened, path, parsed)
        if not parsed.text and buffering <= 1:
            return raw
        size = buffering if buffering > 1 else 1 << 20
        return _buffered(raw, size, parsed.text, encoding, errors, newline)

    def open_flags(self, path: Path, flags: int, permissions: int = 0o666) -> File:
        """As os.open, but it gives a File: `flags` are os.O_*. A last component that is a symbolic
        link is followed unless O_NOFOLLOW says otherwise (ELOOP)."""
        opened = self._run(self._operations.open(path, flags, permissions))
        return self._file(opened, path, mode_of_flags(flags))

    def read_bytes(self, path: Path) -> bytes:
        with self.open(path, "rb") as file:
            data: bytes = file.readall()
            return data

    def write_bytes(self, path: Path, data: Buffer) -> int:
        """Replaces the content; when it returns, every later open sees it."""
        with self.open(path, "wb") as file:
            length: int = file.write(data)
            return length

    def truncate(self, path: Path, length: int) -> None:
        self._run(self._operations.truncate(path, length))

    # ---- many reads at once ----

    def pread_many(self, items: Iterable[ReadItem]) -> list[bytes]:
        """[(path or File, offset, length)] read all at once; the bytes of each, short only at the
        end of a file. Paths are opened (each once) and closed again. Raises the first error."""
        wanted = list(items)
        buffers = [bytearray(length) for _, _, length in wanted]
        into = [
            (where, offset, buffer)
            for (where, offset, _), buffer in zip(wanted, buffers, strict=True)
        ]
        lengths = self.preadinto_many(into)
        return [bytes(memoryview(b)[:n]) for b, n in zip(buffers, lengths, strict=True)]

    def preadinto_many(self, items: Iterable[ReadIntoItem]) -> list[int]:
        """[(path or File, offset, buffer)] read all at once, without the GIL; the bytes read into
        each buffer."""
        wanted = list(items)
        files, paths = plan_reads(wanted)
        opened = self._open_all(paths)
        try:
            handles = {**files, **{path: each.handle for path, each in opened.items()}}
            reads: list[tuple[Handle, int, Buffer]] = [
                (handles[where], offset, buffer) for where, offset, buffer in wanted
            ]
            with naming("pread_many"):
                return self._native.readinto_many(reads)
        finally:
            ends = [self._operations.close(each, path) for path, each in opened.items()]
            self._batch(ends)

    def _open_all(self, paths: Sequence[Path]) -> dict[Any, Opened]:
        results = self._batch([self._operations.open(path, os.O_RDONLY) for path in paths])
        opened = {p: r for p, r in zip(paths, results, strict=True) if isinstance(r, Opened)}
        for result in results:
            if isinstance(result, OSError):
                self._batch([self._operations.close(each, path) for path, each in opened.items()])
                raise result
        return opened

    # ---- attributes ----

    def stat(self, path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._run(self._operations.stat(path, follow_symlinks=follow_symlinks))

    def lstat(self, path: Path) -> os.stat_result:
        return self._run(self._operations.stat(path, follow_symlinks=False))

    def attributes(self, path: Path) -> meta_pb2.Attr:
        """The metadata service's own record, layout included."""
        return self._run(self._operations.attributes(path))

    def exists(self, path: Path) -> bool:
        """False when it is not there (or a link to nowhere); an error when that cannot be said."""
        return self._run(self._operations.exists(path))

    def lexists(self, path: Path) -> bool:
        return self._run(self._operations.exists(path, follow_symlinks=False))

    def isdir(self, path: Path) -> bool:
        return self._run(self._operations.is_dir(path))

    def isfile(self, path: Path) -> bool:
        return self._run(self._operations.is_file(path))

    def islink(self, path: Path) -> bool:
        return self._run(self._operations.is_link(path))

    def access(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> bool:
        """As os.access with effective_ids: may this be done (os.R_OK, W_OK, X_OK; F_OK: is it
        there)? False when it may not, or when it is not there."""
        return self._run(self._operations.access(path, mode, follow_symlinks=follow_symlinks))

    def chmod(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> None:
        self._run(self._operations.chmod(path, mode, follow_symlinks=follow_symlinks))

    def chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """-1 leaves the one or the other as it is."""
        self._run(self._operations.chown(path, uid, gid, follow_symlinks=follow_symlinks))

    def utime(
        self,
        path: Path,
        times: tuple[float, float] | None = None,
        *,
        ns: Moments | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """(atime, mtime) in seconds, or exactly in nanoseconds, where "now" is the service's clock
        and None leaves that one as it is. Neither: both now, which needs only write permission."""
        moments = moments_of(times, ns)
        self._run(self._operations.utime(path, moments, follow_symlinks=follow_symlinks))

    def chattr(
        self,
        path: Path,
        *,
        immutable: bool | None = None,
        append_only: bool | None = None,
        no_dump: bool | None = None,
        no_atime: bool | None = None,
    ) -> None:
        """The flags of chattr(1); None leaves one as it is. Only root changes the first two.
        `attributes(path).flags` tells them (fs3.meta.InodeFlag)."""
        wanted = (immutable, append_only, no_dump, no_atime)
        self._run(self._operations.chattr(path, wanted))

    def getxattr(self, path: Path, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """ENODATA when there is none, or it must not be read."""
        return self._run(self._operations.getxattr(path, name, follow_symlinks=follow_symlinks))

    def listxattr(self, path: Path, *, follow_symlinks: bool = True) -> list[str]:
        return self._run(self._operations.listxattr(path, follow_symlinks=follow_symlinks))

    def setxattr(
        self,
        path: Path,
        name: str | bytes,
        value: Buffer,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        """`flags`: os.XATTR_CREATE or os.XATTR_REPLACE. A POSIX ACL is set as
        system.posix_acl_access or system.posix_acl_default, in the kernel's layout."""
        self._run(
            self._operations.setxattr(path, name, value, flags, follow_symlinks=follow_symlinks)
        )

    def removexattr(self, path: Path, name: str | bytes, *, follow_symlinks: bool = True) -> None:
        self._run(self._operations.removexattr(path, name, follow_symlinks=follow_symlinks))

    def statvfs(self, path: Path = "/") -> os.statvfs_result:
        """Below a directory with a quota: what that leaves."""
        return self._run(self._operations.statvfs(path))

    # ---- quotas ----

    def get_quota(self, owner: Owner) -> Quota:
        """Of a user (a uid), or of the tree that a path counts for."""
        return self._run(self._operations.get_quota(owner))

    def list_quotas(self) -> list[Quota]:
        return self._run(self._operations.list_quotas())

    def set_quota(
        self,
        owner: Owner,
        *,
        bytes_max: int = 0,
        inodes_max: int = 0,
        on_counted: Callable[[int], object] = lambda inodes: None,
    ) -> Quota:
        """Limits for a user (a uid) or the tree below a directory; 0 is none. For root. A tree that
        has content is gone through once; `on_counted` hears how many inodes were. When that is
        broken off, nothing is enforced until it is asked for again."""
        return self._run(self._operations.set_quota(owner, bytes_max, inodes_max, on_counted))

    def clear_quota(
        self, owner: Owner, *, on_counted: Callable[[int], object] = lambda inodes: None
    ) -> None:
        self._run(self._operations.clear_quota(owner, on_counted))

    def path_of(self, inode: int) -> str:
        """The path of a directory by its number."""
        return self._run(self._operations.path_of(inode))

    def sync(self, path: Path) -> None:
        """As fsync of a descriptor of `path`: what was done to it is on stable storage. That of a
        directory covers the names in it."""
        self._run(self._operations.sync(path))

    def sync_all(self) -> None:
        """As syncfs(2): what this client has written, to whichever file, is on stable storage."""
        self._run(self._operations.sync_all())

    # ---- entries ----

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._run(self._operations.mkdir(path, mode))

    def mknod(self, path: Path, mode: int = 0o600, device: int = 0) -> None:
        """As os.mknod: the type (file, FIFO, socket, for root device) is part of `mode`."""
        self._run(self._operations.mknod(path, mode, device))

    def makedirs(self, path: Path, mode: int = 0o777, exist_ok: bool = False) -> None:
        self._run(self._operations.makedirs(path, mode, exist_ok=exist_ok))

    def rmdir(self, path: Path) -> None:
        self._run(self._operations.rmdir(path))

    def unlink(self, path: Path) -> None:
        self._run(self._operations.unlink(path))

    remove = unlink

    def rmtree(self, path: Path) -> None:
        """A directory and everything below it."""
        self._run(self._operations.rmtree(path))

    def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        """Atomic. replace=False refuses an existing target (FileExistsError)."""
        self._run(self._operations.rename(source, target, 0 if replace else RENAME_NOREPLACE))

    def exchange(self, source: Path, target: Path) -> None:
        """Both names exist, and each gets what the other had. Atomic."""
        self._run(self._operations.rename(source, target, RENAME_EXCHANGE))

    def replace(self, source: Path, target: Path) -> None:
        self._run(self._operations.rename(source, target))

    def symlink(self, target: Path, path: Path) -> None:
        self._run(self._operations.symlink(target, path))

    def readlink(self, path: Path) -> str:
        return self._run(self._operations.readlink(path))

    def link(self, source: Path, path: Path) -> None:
        self._run(self._operations.link(source, path))

    def listdir(self, path: Path = "/") -> list[str]:
        return self._run(self._operations.listdir(path))

    def scandir(self, path: Path = "/") -> "Scan":
        """As os.scandir, with the attributes of every entry in the same answer."""
        return Scan(self._run(self._operations.scandir(path, self.stat)))

    def walk(
        self,
        top: Path = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """As os.walk."""
        where = os.fsdecode(top)
        try:
            entries = list(self.scandir(where))
        except OSError as error:
            if onerror is not None:
                onerror(error)
            return
        directories = [entry.name for entry in entries if entry.is_dir()]
        files = [entry.name for entry in entries if not entry.is_dir()]
        links = {entry.name for entry in entries if entry.is_symlink()}
        if topdown:
            yield where, directories, files
        for name in directories:
            if followlinks or name not in links:
                below = where.rstrip("/") + "/" + name
                yield from self.walk(below, topdown, onerror, followlinks)
        if not topdown:
            yield where, directories, files

    # ---- from and to the local file system ----

    def put(
        self, source: Where, path: Path, *, on_bytes: Callable[[int], object] | None = None
    ) -> int:
        """Copies a local file in; returns its length. Durable when it returns. `on_bytes` hears the
        bytes copied since it was last called."""
        block = memoryview(bytearray(_COPY_BYTES))
        total = 0
        with open(source, "rb", buffering=0) as reader, self.open(path, "wb") as writer:
            while length := reader.readinto(block):
                writer.write(block[:length])
                total += length
                if on_bytes is not None:
                    on_bytes(length)
            writer.fsync()
        return total

    def get(
        self, path: Path, target: Where, *, on_bytes: Callable[[int], object] | None = None
    ) -> int:
        """Copies a file out, over what is at `target`; returns its length."""
        block = memoryview(bytearray(_COPY_BYTES))
        total = 0
        with self.open(path, "rb") as reader, open(target, "wb", buffering=0) as writer:
            while length := reader.readinto(block):
                left = block[:length]
                while left:
                    left = left[writer.write(left) :]
                total += length
                if on_bytes is not None:
                    on_bytes(length)
        return total

    # ---- inside ----

    def _run(self, operation: Operation[T]) -> T:
        return run(self._native, operation)

    def _batch(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        if not operations:
            return []
        return Batch(self._native, self._queues).run(operations)

    def _read(self, handle: Handle, offset: int, length: int, path: Path) -> bytes:
        with naming(path):
            return self._native.read(handle, offset, length)

    def _file(self, opened: Opened, path: Path, mode: Mode) -> File:
        file = File(self, opened, path, mode)
        with self._files_lock:
            self._files.add(file)
        return file

    def _forget(self, file: File) -> None:
        with self._files_lock:
            self._files.discard(file)


class _ActingClient(Client):
    """What acting_as gives: all of the client it was made from, but for the identity."""

    def __init__(self, owner: Client, identity: Identity) -> None:
        self._owner = owner  # which may not go away before
        self._identity = identity
        self._closed = False
        self._recipe = owner._recipe
        self._native = owner._native
        self._queues = owner._queues
        self._operations = owner._operations.acting_as(identity)
        self._files = owner._files
        self._files_lock = owner._files_lock

    def close(self) -> None:
        """Does nothing: the connection is the other client's."""

    def __reduce__(self) -> Any:
        return _rebuild_acting, (self._owner, self._identity)


class Scan:
    """What scandir returns: an iterator, and a context manager as in os."""

    def __init__(self, entries: list[DirEntry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


def _buffered(
    raw: File,
    size: int,
    text: bool,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    buffer: io.BufferedRandom | io.BufferedReader | io.BufferedWriter
    if raw.readable() and raw.writable():
        buffer = io.BufferedRandom(raw, size)
    elif raw.readable():
        buffer = io.BufferedReader(raw, size)
    else:
        buffer = io.BufferedWriter(raw, size)
    if not text:
        return buffer
    return io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline)


def _rebuild(recipe: dict[str, Any]) -> Client:
    return Client(**recipe)


def _rebuild_acting(owner: Client, identity: Identity) -> Client:
    return owner.acting_as(identity)


@atexit.register
def _close_all() -> None:
    """Buffered bytes of files that nobody closed must not be lost because the process ends."""
    for client in list(_open_clients):
        with contextlib.suppress(OSError):
            client.close()
