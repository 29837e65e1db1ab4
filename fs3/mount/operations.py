"""The file operations of the Python front end: each is one call of the public client, made in the
name of the process that asks.

libfuse 2 names files by path, which draws the limits of this front end:

- a file that is open stays readable, writable and truncatable through its descriptor after its
  last name is gone, but fstat, fchmod and futimens of it are ENOENT: they come by path;
- a process needs search permission on the whole path, not only below its working directory;
- the kernel holds one inode per name, so the pages of a file with several names are not cached.

fusepy gives and takes text; the encoding is Latin-1, which maps each byte to itself, so names are
any bytes.
"""

import errno
import itertools
import logging
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fs3.client import Client, File, Identity
from fs3.client.moments import Moments

__all__ = ["ENCODING", "Operations"]

log = logging.getLogger(__name__)

ENCODING = "latin-1"

T = TypeVar("T")
FileInfo = Any  # fuse.fuse_file_info: flags, fh, direct_io
Attributes = dict[str, int]
Asker = tuple[int, int, int]  # uid, gid, pid


class Operations:
    """What fusepy calls, from many threads at once; methods have its names and its arguments.

    An operation that is missing here (locks, ioctl) is answered by libfuse
    with ENOSYS: the kernel keeps locks of its own then, and tells programs ENOTSUP.
    """

    use_ns = True  # times are nanoseconds
    flag_nullpath_ok = 1  # the path of an open file without a name is None
    flag_utime_omit_ok = 1  # utimens may set one of two times

    def __init__(
        self, client: Client, asker: Callable[[], Asker], on_mounted: Callable[[], None]
    ) -> None:
        """`asker` tells whose request this thread serves. `on_mounted` is called when the kernel
        has accepted the mount."""
        self._client = client
        self._asker = asker
        self._on_mounted = on_mounted
        self._files: _Handles[File] = _Handles()
        self._listings: _Handles[Client] = _Handles()  # who opened a directory

    def __call__(self, operation: str, *arguments: Any) -> Any:
        """How fusepy enters. What leaves is an OSError with an errno, whatever happened."""
        try:
            return getattr(self, operation)(*arguments)
        except OSError as error:
            if error.errno:
                raise
            log.exception("%s failed without an errno", operation)
        except Exception:
            log.exception("%s failed", operation)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open_files(self) -> int:
        return len(self._files)

    def init(self, path: str) -> None:
        self._on_mounted()

    # ---- attributes ----

    def getattr(self, path: str | None, info: FileInfo | None = None) -> Attributes:
        if info is not None:
            return _attributes(self._files[info.fh].stat())
        return _attributes(self._acting().lstat(_bytes(path)))

    def access(self, path: str, mode: int) -> None:
        client = self._acting()
        if not client.access(_bytes(path), mode, follow_symlinks=False):
            client.lstat(_bytes(path))  # raises what is wrong when it is not there
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def chmod(self, path: str, mode: int) -> None:
        self._acting().chmod(_bytes(path), mode, follow_symlinks=False)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._acting().chown(_bytes(path), uid, gid, follow_symlinks=False)

    def utimens(self, path: str, moments: Moments) -> None:
        self._acting().utime(_bytes(path), ns=moments, follow_symlinks=False)

    def truncate(self, path: str | None, length: int, info: FileInfo | None = None) -> None:
        if info is not None:
            self._files[info.fh].truncate(length)
        else:
            self._acting().truncate(_bytes(path), length)

    def statfs(self, path: str) -> dict[str, int]:
        info = self._acting().statvfs(_bytes(path))
        return {name: getattr(info, name) for name in dir(info) if name.startswith("f_")}

    # ---- extended attributes ----

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        return self._acting().getxattr(_bytes(path), _bytes(name), follow_symlinks=False)

    def listxattr(self, path: str) -> list[str]:
        return [
            _text(name) for name in self._acting().listxattr(_bytes(path), follow_symlinks=False)
        ]

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> None:
        self._acting().setxattr(_bytes(path), _bytes(name), value, options, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> None:
        self._acting().removexattr(_bytes(path), _bytes(name), follow_symlinks=False)

    # ---- names ----

    def mknod(self, path: str, mode: int, device: int) -> None:
        self._acting().mknod(_bytes(path), mode, device)

    def mkdir(self, path: str, mode: int) -> None:
        self._acting().mkdir(_bytes(path), mode)

    def unlink(self, path: str) -> None:
        self._acting().unlink(_bytes(path))

    def rmdir(self, path: str) -> None:
        self._acting().rmdir(_bytes(path))

    def rename(self, old: str, new: str) -> None:
        self._acting().rename(_bytes(old), _bytes(new))

    def link(self, path: str, existing: str) -> None:
        self._acting().link(_bytes(existing), _bytes(path))

    def symlink(self, path: str, target: str) -> None:
        self._acting().symlink(_bytes(target), _bytes(path))

    def readlink(self, path: str) -> str:
        return _text(self._acting().readlink(_bytes(path)))

    # ---- directories ----

    def opendir(self, path: str) -> int:
        self.access(path, os.R_OK)
        return self._listings.add(self._acting())

    def readdir(self, path: str | None, handle: int) -> list[tuple[str, Attributes, int]]:
        """All of it, anew each time the program rewinds. The right to read was checked by opendir,
        so this asks in the name of who opened. Of a directory that was removed nothing is left."""
        if path is None:
            return []
        client = self._listings[handle]
        here = _bytes(path)
        found = [(".", client.lstat(here)), ("..", client.lstat(os.path.dirname(here)))]
        found += [
            (_text(entry.name), entry.stat(follow_symlinks=False))
            for entry in client.scandir(_bytes(path))
        ]
        return [(name, _attributes(info), 0) for name, info in found]

    def releasedir(self, path: str | None, handle: int) -> None:
        self._listings.pop(handle)

    def fsyncdir(self, path: str | None, datasync: int, handle: int) -> None:
        if path is not None:
            self._acting().sync(_bytes(path))

    # ---- open files ----

    def open(self, path: str, info: FileInfo) -> int:
        return self._opened(
            self._acting().open_flags(_bytes(path), info.flags | os.O_NOFOLLOW), info
        )

    def create(self, path: str, mode: int, info: FileInfo) -> int:
        flags = info.flags | os.O_CREAT | os.O_NOFOLLOW
        return self._opened(self._acting().open_flags(_bytes(path), flags, mode), info)

    def read(self, path: str | None, size: int, offset: int, info: FileInfo) -> bytes:
        return self._files[info.fh].pread(size, offset)

    def write(self, path: str | None, data: bytes, offset: int, info: FileInfo) -> int:
        return self._files[info.fh].pwrite(data, offset)

    def flush(self, path: str | None, info: FileInfo) -> None:
        """close(2) waits for this: errors of buffered writes are told here, and afterwards an open
        on any mount sees the bytes and the length."""
        file = self._files[info.fh]
        if file.writable():
            file.fsync(durable=False)

    def fsync(self, path: str | None, datasync: int, info: FileInfo) -> None:
        self._files[info.fh].fsync()

    def release(self, path: str | None, info: FileInfo) -> None:
        """Nobody waits for this; what could go wrong was told by flush."""
        self._files.pop(info.fh).close()

    # ---- inside ----

    def _acting(self) -> Client:
        return self._client.acting_as(Identity.of_peer(*self._asker()))

    def _opened(self, file: File, info: FileInfo) -> int:
        try:
            # Where the kernel's pages could be wrong there are none: it appends at the end that it
            # knows of, and it keeps an inode, with its pages, for each name.
            appends = info.flags & os.O_APPEND
            info.direct_io = bool(appends or info.flags & os.O_DIRECT or file.stat().st_nlink > 1)
        except OSError:
            file.close()
            raise
        info.fh = self._files.add(file)
        return 0


class _Handles(Generic[T]):
    """What the numbers that the kernel keeps for open files stand for. Thread-safe: each method is
    one operation of a dictionary."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._objects: dict[int, T] = {}

    def add(self, item: T) -> int:
        number = next(self._numbers)
        self._objects[number] = item
        return number

    def __getitem__(self, number: int) -> T:
        try:
            return self._objects[number]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def pop(self, number: int) -> T:
        item = self[number]
        del self._objects[number]
        return item

    def __len__(self) -> int:
        return len(self._objects)


def _attributes(info: os.stat_result) -> Attributes:
    """As fusepy fills a struct stat from."""
    times = {name: getattr(info, name + "_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
    others = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "blksize", "rdev")
    return times | {f"st_{name}": getattr(info, f"st_{name}") for name in others}


def _bytes(path: str | None) -> bytes:
    """A name from the kernel."""
    if path is None:  # libfuse has it only for calls that come with a handle
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return path.encode(ENCODING)


def _text(name: str) -> str:
    """A name for the kernel."""
    return os.fsencode(name).decode(ENCODING)
