"""What a process of the tables can do: each word is a system call, its arguments are text.

    open f O_RDWR|O_CREAT 644      x=open f O_RDWR      pwrite x hello 10      rename a b

A word answers with its value as text ("" shown as ok) or with the name of its errno. Descriptors
and mappings get names (x=...) and live until reset(). How arguments are written: text.py.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
import struct
from collections.abc import Callable

from tests.posix import text
from tests.posix.libc import BAD_POINTER, call, statx

__all__ = ["OK", "Words"]

OK = "ok"
CLOSED = 9_999  # no descriptor has this number
CWD = -100
PATH_BYTES_MAX = 4_096
ACL_TAGS = {"u": (1, 2), "g": (4, 8), "m": (16, 16), "o": (32, 32)}  # of the owner, of a named one
ACL_NOBODY = 0xFFFF_FFFF
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x8008_6601, 0x4008_6602
MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2
INTERRUPT_S = 0.2
FLOCK = struct.Struct("hhxxxxqqixxxx")
LOCK_NAMES = {fcntl.F_RDLCK: "F_RDLCK", fcntl.F_WRLCK: "F_WRLCK", fcntl.F_UNLCK: "F_UNLCK"}
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
NAMES = {number: name for name, number in text.USERS.items()}


class Words:
    def __init__(self) -> None:
        self.people: dict[int, str] = {}  # who holds a lock, by process
        self._fds: dict[str, int] = {}
        self._maps: dict[str, tuple[int, int]] = {}
        self._sockets: list[socket.socket] = []
        self._children: list[int] = []
        self._mounts: list[bytes] = []

    def say(self, line: str) -> str:
        """The answer to one line."""
        word, *arguments = line.split()
        name, equals, verb = word.partition("=")
        method: Callable[..., object] = getattr(self, f"do_{verb if equals else word}")
        try:
            value = method(*arguments)
        except OSError as error:
            return _errno_name(error.errno or 0)
        if equals and isinstance(value, _Descriptor):
            self._forget(name)
            self._fds[name] = int(value)
        elif equals and isinstance(value, tuple):
            self._maps[name] = value
        elif isinstance(value, _Descriptor):
            self._fds[f"_{int(value)}"] = int(value)
        if isinstance(value, bytes):
            return text.shown(value)
        if value is None or isinstance(value, _Descriptor | tuple):
            return OK
        return str(value)

    def reset(self) -> None:
        """As it was at the start: nothing open, mapped or running."""
        for name in list(self._fds):
            self._forget(name)
        for address, length in self._maps.values():
            call("munmap", address, length)
        self._maps.clear()
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        for child in self._children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._children.clear()
        for target in reversed(self._mounts):
            call("umount2", target, MNT_DETACH)
        self._mounts.clear()
        os.umask(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def _forget(self, name: str) -> None:
        if name in self._fds:
            with contextlib.suppress(OSError):
                os.close(self._fds.pop(name))

    def _fd(self, token: str) -> int:
        """A descriptor by its name. closed: none; cwd: the working directory of the *at calls."""
        if token in ("closed", "cwd"):
            return CLOSED if token == "closed" else CWD
        if token in self._fds:
            return self._fds[token]
        if token.isidentifier():  # the call that should have opened it failed
            raise OSError(errno.EBADF, f"there is no descriptor {token}")
        return int(token)

    # ---- opening

    def do_open(self, path: str, flags: str, mode: str = "0") -> object:
        return _Descriptor(call("open", text.path(path), text.flags(flags), text.mode(mode)))

    def do_creat(self, path: str, mode: str) -> object:
        return _Descriptor(call("creat", text.path(path), text.mode(mode)))

    def do_openat(self, directory: str, path: str, flags: str, mode: str = "0") -> object:
        arguments = text.path(path), text.flags(flags), text.mode(mode)
        return _Descriptor(call("openat", self._fd(directory), *arguments))

    def do_openat2(
        self, directory: str, path: str, flags: str, mode: str, resolve: str, size: str = "24"
    ) -> object:
        how = struct.pack("<QQQ", text.flags(flags), text.mode(mode), text.flags(resolve))
        how = how.ljust(text.number(size), b"\0")
        arguments = self._fd(directory), text.path(path), how, text.number(size)
        return _Descriptor(call("openat2", *arguments))

    def do_close(self, fd: str) -> None:
        number = self._fd(fd)
        self._fds.pop(fd, None)
        call("close", number)

    def do_dup(self, fd: str) -> object:
        return _Descriptor(call("dup", self._fd(fd)))

    # ---- names

    def do_mkdir(self, path: str, mode: str) -> None:
        call("mkdir", text.path(path), text.mode(mode))

    def do_mkdirat(self, directory: str, path: str, mode: str) -> None:
        call("mkdirat", self._fd(directory), text.path(path), text.mode(mode))

    def do_rmdir(self, path: str) -> None:
        call("rmdir", text.path(path))

    def do_unlink(self, path: str) -> None:
        call("unlink", text.path(path))

    def do_unlinkat(self, directory: str, path: str, flags: str) -> None:
        call("unlinkat", self._fd(directory), text.path(path), text.flags(flags))

    def do_link(self, old: str, new: str) -> None:
        call("link", text.path(old), text.path(new))

    def do_linkat(self, olddir: str, old: str, newdir: str, new: str, flags: str) -> None:
        arguments = self._fd(newdir), text.path(new), text.flags(flags)
        call("linkat", self._fd(olddir), text.path(old), *arguments)

    def do_linkfd(self, fd: str, new: str) -> None:
        """Gives a descriptor a name, the way open(2) shows for O_TMPFILE."""
        source = b"/proc/self/fd/%d" % self._fd(fd)
        call("linkat", CWD, source, CWD, text.path(new), text.flags("AT_SYMLINK_FOLLOW"))

    def do_symlink(self, target: str, path: str) -> None:
        call("symlink", text.path(target), text.path(path))

    def do_symlinkat(self, target: str, directory: str, path: str) -> None:
        call("symlinkat", text.path(target), self._fd(directory), text.path(path))

    def do_readlink(self, path: str, size: str = str(PATH_BYTES_MAX)) -> bytes:
        buffer = ctypes.create_string_buffer(max(1, text.number(size)))
        length = call("readlink", text.path(path), buffer, text.number(size))
        return buffer.raw[:length]

    def do_readlinkat(self, directory: str, path: str) -> bytes:
        buffer = ctypes.create_string_buffer(PATH_BYTES_MAX)
        length = call("readlinkat", self._fd(directory), text.path(path), buffer, PATH_BYTES_MAX)
        return buffer.raw[:length]

    def do_rename(self, old: str, new: str) -> None:
        call("rename", text.path(old), text.path(new))

    def do_renameat(self, olddir: str, old: str, newdir: str, new: str) -> None:
        call("renameat", self._fd(olddir), text.path(old), self._fd(newdir), text.path(new))

    def do_renameat2(self, olddir: str, old: str, newdir: str, new: str, flags: str) -> None:
        arguments = self._fd(newdir), text.path(new), text.flags(flags)
        call("renameat2", self._fd(olddir), text.path(old), *arguments)

    def do_mknod(self, path: str, mode: str, kind: str, device: str = "0:0") -> None:
        call("mknod", text.path(path), text.mode(mode) | text.flags(kind), _device(device))

    def do_mknodat(self, directory: str, path: str, mode: str, kind: str) -> None:
        arguments = text.path(path), text.mode(mode) | text.flags(kind), 0
        call("mknodat", self._fd(directory), *arguments)

    def do_mkfifo(self, path: str, mode: str) -> None:
        call("mkfifo", text.path(path), text.mode(mode))

    def do_mkfifoat(self, directory: str, path: str, mode: str) -> None:
        call("mkfifoat", self._fd(directory), text.path(path), text.mode(mode))

    def do_bind(self, path: str) -> None:
        """A socket's name."""
        one = socket.socket(socket.AF_UNIX)
        self._sockets.append(one)
        one.bind(_plain(path))
        one.listen()

    def do_connect(self, path: str) -> None:
        one = socket.socket(socket.AF_UNIX)
        self._sockets.append(one)
        one.connect(_plain(path))

    # ---- directories

    def do_chdir(self, path: str) -> None:
        call("chdir", text.path(path))

    def do_fchdir(self, fd: str) -> None:
        call("fchdir", self._fd(fd))

    def do_getcwd(self) -> str:
        return os.path.basename(os.getcwd())

    def do_chroot(self, path: str) -> None:
        """In a child: a process cannot come back."""
        self._in_child(lambda: call("chroot", text.path(path)))

    def do_list(self, path: str) -> str:
        names = os.listdir(os.fsdecode(_plain(path)))
        return ",".join(sorted(names)) or "nothing"

    def do_dots(self, path: str) -> str:
        """What the entries . and .. lead to, as getdents(2) says it."""
        found = _entries(self._open_directory(path))
        up = os.path.join(_plain(path), b"..")
        same = found.get(b".") == os.stat(_plain(path)).st_ino and found.get(b"..") == (
            os.stat(up).st_ino
        )
        return OK if same else f"{found.get(b'.')} {found.get(b'..')}"

    def do_types(self, path: str) -> str:
        with os.scandir(_plain(path)) as entries:
            kinds = {
                os.fsdecode(one.name): (one.is_symlink(), one.is_dir(follow_symlinks=False))
                for one in entries
            }
        shown = {(True, False): "symlink", (False, True): "dir", (False, False): "other"}
        return ",".join(f"{name}:{shown[kind]}" for name, kind in sorted(kinds.items()))

    def do_getdents(self, fd: str) -> str:
        """Names that this descriptor shows from where it stands, without the dots."""
        return _names(_entries(self._fd(fd)))

    def do_seekdir(self, fd: str, offset: str) -> None:
        call("lseek", self._fd(fd), text.number(offset), os.SEEK_SET)

    def _open_directory(self, path: str) -> int:
        fd = os.open(_plain(path), os.O_RDONLY | os.O_DIRECTORY)
        self._fds[f"_{fd}"] = fd
        return fd

    # ---- attributes

    def do_stat(self, path: str, field: str = "") -> object:
        buffer = ctypes.create_string_buffer(512)
        call("stat", text.path(path), buffer)
        return _field(os.stat(_plain(path)), field) if field else None

    def do_lstat(self, path: str, field: str = "") -> object:
        buffer = ctypes.create_string_buffer(512)
        call("lstat", text.path(path), buffer)
        return _field(os.lstat(_plain(path)), field) if field else None

    def do_fstat(self, fd: str, field: str = "") -> object:
        buffer = ctypes.create_string_buffer(512)
        call("fstat", self._fd(fd), buffer)
        return _field(os.fstat(self._fd(fd)), field) if field else None

    def do_fstatat(self, directory: str, path: str, flags: str, field: str = "") -> object:
        buffer = ctypes.create_string_buffer(512)
        call("fstatat", self._fd(directory), text.path(path), buffer, text.flags(flags))
        if not field:
            return None
        follow = not text.flags(flags) & text.flags("AT_SYMLINK_NOFOLLOW")
        if not _plain(path):
            return _field(os.fstat(self._fd(directory)), field)
        base = None if directory == "cwd" else self._fd(directory)
        return _field(os.stat(_plain(path), dir_fd=base, follow_symlinks=follow), field)

    def do_statx(self, directory: str, path: str, flags: str, mask: str, field: str = "") -> object:
        found = statx(self._fd(directory), text.path(path), text.flags(flags), text.flags(mask))
        if not field:
            return None
        if field in ("uid", "gid"):
            return NAMES.get(found[field], found[field])
        return f"{found[field] & 0o7777:o}" if field == "mode" else found[field]

    def do_born(self, path: str, since: str) -> object:
        """Whether its birth time lies between that file's and now."""
        born = [statx(CWD, _plain(one), 0, 0xFFF) for one in (since, path)]
        if not all(one["mask"] & 0x800 for one in born):
            return "no btime"
        return OK if born[0]["btime_ns"] <= born[1]["btime_ns"] else "born before"

    def do_look(self, path: str) -> str:
        """All that file systems must agree on."""
        info = os.lstat(_plain(path))
        target = (
            f" -> {os.readlink(os.fsdecode(_plain(path)))}" if stat.S_ISLNK(info.st_mode) else ""
        )
        return _shown(info) + target

    def do_flook(self, fd: str) -> str:
        return _shown(os.fstat(self._fd(fd)))

    def do_same(self, path: str, other: str) -> object:
        """Whether both names lead to one file."""
        one, two = os.lstat(_plain(path)), os.lstat(_plain(other))
        return "yes" if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) else "no"

    def do_chmod(self, path: str, mode: str) -> None:
        call("chmod", text.path(path), text.mode(mode))

    def do_fchmod(self, fd: str, mode: str) -> None:
        call("fchmod", self._fd(fd), text.mode(mode))

    def do_fchmodat(self, directory: str, path: str, mode: str, flags: str = "0") -> None:
        arguments = text.path(path), text.mode(mode), text.flags(flags)
        call("fchmodat", self._fd(directory), *arguments)

    def do_fchmodat2(self, directory: str, path: str, mode: str, flags: str) -> None:
        arguments = text.path(path), text.mode(mode), text.flags(flags)
        call("fchmodat2", self._fd(directory), *arguments)

    def do_chown(self, path: str, uid: str, gid: str) -> None:
        call("chown", text.path(path), text.user(uid), text.user(gid))

    def do_lchown(self, path: str, uid: str, gid: str) -> None:
        call("lchown", text.path(path), text.user(uid), text.user(gid))

    def do_fchown(self, fd: str, uid: str, gid: str) -> None:
        call("fchown", self._fd(fd), text.user(uid), text.user(gid))

    def do_fchownat(self, directory: str, path: str, uid: str, gid: str, flags: str) -> None:
        arguments = text.user(uid), text.user(gid), text.flags(flags)
        call("fchownat", self._fd(directory), text.path(path), *arguments)

    def do_utimensat(
        self, directory: str, path: str, atime: str, mtime: str, flags: str = "0"
    ) -> None:
        """Times in seconds with a fraction; now; omit; bad is a nanosecond count that is none."""
        times = struct.pack("<qqqq", *_timespec(atime), *_timespec(mtime))
        call("utimensat", self._fd(directory), text.path(path), times, text.flags(flags))

    def do_futimens(self, fd: str, atime: str, mtime: str) -> None:
        times = struct.pack("<qqqq", *_timespec(atime), *_timespec(mtime))
        call("futimens", self._fd(fd), times)

    def do_touch(self, path: str) -> None:
        """utimensat with no times: both become the present."""
        call("utimensat", CWD, text.path(path), None, 0)

    def do_access(self, path: str, mode: str) -> None:
        call("access", text.path(path), text.flags(mode))

    def do_faccessat(self, directory: str, path: str, mode: str, flags: str = "0") -> None:
        arguments = text.path(path), text.flags(mode), text.flags(flags)
        call("faccessat2", self._fd(directory), *arguments)

    def do_umask(self, mode: str) -> None:
        os.umask(text.mode(mode))

    def do_truncate(self, path: str, length: str) -> None:
        call("truncate", text.path(path), text.number(length))

    def do_ftruncate(self, fd: str, length: str) -> None:
        call("ftruncate", self._fd(fd), text.number(length))

    def do_statfs(self, path: str) -> None:
        call("statfs", text.path(path), ctypes.create_string_buffer(512))

    def do_fstatfs(self, fd: str) -> None:
        call("fstatfs", self._fd(fd), ctypes.create_string_buffer(512))

    def do_statvfs(self, path: str, field: str) -> object:
        found = os.statvfs(_plain(path))
        if field == "sane":  # what must hold between the fields
            sane = 0 < found.f_bavail <= found.f_bfree <= found.f_blocks and found.f_bsize >= 512
            return OK if sane and found.f_ffree <= found.f_files else str(found)
        return getattr(found, f"f_{field}")

    def do_pathconf(self, path: str, name: str) -> int:
        return os.pathconf(os.fsdecode(_plain(path)), name)

    # ---- bytes

    def do_read(self, fd: str, length: str) -> bytes:
        buffer = ctypes.create_string_buffer(max(1, text.number(length)))
        count = call("read", self._fd(fd), buffer, text.number(length))
        return buffer.raw[:count]

    def do_readbad(self, fd: str, length: str) -> None:
        call("read", self._fd(fd), BAD_POINTER, text.number(length))

    def do_write(self, fd: str, data: str) -> int:
        content = text.data(data)
        return call("write", self._fd(fd), content, len(content))

    def do_writebad(self, fd: str, length: str) -> None:
        call("write", self._fd(fd), BAD_POINTER, text.number(length))

    def do_pread(self, fd: str, length: str, offset: str) -> bytes:
        buffer = ctypes.create_string_buffer(max(1, text.number(length)))
        arguments = buffer, text.number(length), text.number(offset)
        count = call("pread", self._fd(fd), *arguments)
        return buffer.raw[:count]

    def do_pwrite(self, fd: str, data: str, offset: str) -> int:
        content = text.data(data)
        return call("pwrite", self._fd(fd), content, len(content), text.number(offset))

    def do_readv(self, fd: str, *lengths: str) -> str:
        buffers = [bytearray(text.number(length)) for length in lengths]
        count = os.readv(self._fd(fd), buffers)
        return text.shown(b"".join(buffers)[:count])

    def do_writev(self, fd: str, *parts: str) -> int:
        return os.writev(self._fd(fd), [text.data(part) for part in parts])

    def do_iovecs(self, verb: str, fd: str, count: str) -> int:
        """readv or writev with so many empty vectors."""
        vectors = bytes(16 * max(1, text.number(count)))
        return call(verb, self._fd(fd), vectors, text.number(count))

    def do_preadv2(self, fd: str, length: str, offset: str, flags: str) -> bytes:
        buffer = bytearray(text.number(length))
        count = os.preadv(self._fd(fd), [buffer], text.number(offset), text.flags(flags))
        return bytes(buffer[:count])

    def do_pwritev2(self, fd: str, data: str, offset: str, flags: str) -> int:
        content = [text.data(data)]
        return os.pwritev(self._fd(fd), content, text.number(offset), text.flags(flags))

    def do_direct(self, verb: str, fd: str, length: str, offset: str) -> object:
        """pread or pwrite with memory that O_DIRECT takes; writes the letter d."""
        count = text.number(length)
        with mmap.mmap(-1, max(count, mmap.PAGESIZE)) as memory:
            view = memoryview(memory)[:count]
            try:
                if verb == "pwrite":
                    memory[:count] = b"d" * count
                    return os.pwritev(self._fd(fd), [view], text.number(offset))
                got = os.preadv(self._fd(fd), [view], text.number(offset))
                return bytes(memory[:got])
            finally:
                view.release()

    def do_lseek(self, fd: str, offset: str, whence: str) -> int:
        return call("lseek", self._fd(fd), text.number(offset), text.flags(whence))

    def do_content(self, path: str) -> bytes:
        fd = os.open(_plain(path), os.O_RDONLY)
        try:
            return os.read(fd, os.fstat(fd).st_size + 1)
        finally:
            os.close(fd)

    def do_fsync(self, fd: str) -> None:
        call("fsync", self._fd(fd))

    def do_fdatasync(self, fd: str) -> None:
        call("fdatasync", self._fd(fd))

    def do_syncfs(self, fd: str) -> None:
        call("syncfs", self._fd(fd))

    def do_sync_file_range(self, fd: str, offset: str, length: str, flags: str) -> None:
        arguments = text.number(offset), text.number(length), text.flags(flags)
        call("sync_file_range", self._fd(fd), *arguments)

    def do_fadvise(self, fd: str, offset: str, length: str, advice: str) -> str:
        arguments = text.number(offset), text.number(length), text.flags(advice)
        return _returned(call("posix_fadvise", self._fd(fd), *arguments))

    def do_readahead(self, fd: str, offset: str, length: str) -> None:
        call("readahead", self._fd(fd), text.number(offset), text.number(length))

    def do_fallocate(self, fd: str, mode: str, offset: str, length: str) -> None:
        arguments = text.flags(mode), text.number(offset), text.number(length)
        call("fallocate", self._fd(fd), *arguments)

    def do_posix_fallocate(self, fd: str, offset: str, length: str) -> str:
        arguments = text.number(offset), text.number(length)
        return _returned(call("posix_fallocate", self._fd(fd), *arguments))

    def do_copy_file_range(
        self, source: str, offset: str, target: str, place: str, length: str, flags: str = "0"
    ) -> int:
        """- as an offset is the descriptor's own."""
        places = [
            None if one == "-" else ctypes.byref(ctypes.c_int64(text.number(one)))
            for one in (offset, place)
        ]
        arguments = places[0], self._fd(target), places[1], text.number(length), text.flags(flags)
        return call("copy_file_range", self._fd(source), *arguments)

    def do_sendfile(self, target: str, source: str, length: str) -> int:
        return call("sendfile", self._fd(target), self._fd(source), None, text.number(length))

    def do_rlimit_fsize(self, length: str) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (text.number(length), hard))

    # ---- extended attributes

    def do_setxattr(self, path: str, name: str, value: str, flags: str = "0") -> None:
        self._setxattr("setxattr", text.path(path), name, value, flags)

    def do_lsetxattr(self, path: str, name: str, value: str, flags: str = "0") -> None:
        self._setxattr("lsetxattr", text.path(path), name, value, flags)

    def do_fsetxattr(self, fd: str, name: str, value: str, flags: str = "0") -> None:
        self._setxattr("fsetxattr", self._fd(fd), name, value, flags)

    def _setxattr(self, verb: str, where: bytes | int, name: str, value: str, flags: str) -> None:
        content = text.data(value)
        call(verb, where, text.path(name), content, len(content), text.flags(flags))

    def do_getxattr(self, path: str, name: str, size: str = "64K") -> bytes:
        return self._getxattr("getxattr", text.path(path), name, size)

    def do_lgetxattr(self, path: str, name: str, size: str = "64K") -> bytes:
        return self._getxattr("lgetxattr", text.path(path), name, size)

    def do_fgetxattr(self, fd: str, name: str, size: str = "64K") -> bytes:
        return self._getxattr("fgetxattr", self._fd(fd), name, size)

    def _getxattr(self, verb: str, where: bytes | int, name: str, size: str) -> bytes:
        buffer = ctypes.create_string_buffer(max(1, text.number(size)))
        length = call(verb, where, text.path(name), buffer, text.number(size))
        return buffer.raw[:length]

    def do_sizexattr(self, path: str, name: str) -> int:
        return call("getxattr", text.path(path), text.path(name), None, 0)

    def do_listxattr(self, path: str, size: str = "64K") -> str:
        return self._listxattr("listxattr", text.path(path), size)

    def do_llistxattr(self, path: str, size: str = "64K") -> str:
        return self._listxattr("llistxattr", text.path(path), size)

    def do_flistxattr(self, fd: str, size: str = "64K") -> str:
        return self._listxattr("flistxattr", self._fd(fd), size)

    def _listxattr(self, verb: str, where: bytes | int, size: str) -> str:
        buffer = ctypes.create_string_buffer(max(1, text.number(size)))
        length = call(verb, where, buffer, text.number(size))
        names = buffer.raw[:length].decode(errors="replace").split("\0")
        # What a security module of this machine adds is not the file system's.
        return ",".join(sorted(one for one in names if one and one[:9] != "security.")) or "nothing"

    def do_removexattr(self, path: str, name: str) -> None:
        call("removexattr", text.path(path), text.path(name))

    def do_lremovexattr(self, path: str, name: str) -> None:
        call("lremovexattr", text.path(path), text.path(name))

    def do_fremovexattr(self, fd: str, name: str) -> None:
        call("fremovexattr", self._fd(fd), text.path(name))

    def do_setacl(self, path: str, kind: str, entries: str) -> None:
        """kind: access or default. Entries: u::rw-,u:alice:r--,g::r--,m::rw-,o::---"""
        content = _encode_acl(entries)
        name = b"system.posix_acl_" + kind.encode()
        call("setxattr", text.path(path), name, content, len(content), 0)

    def do_getacl(self, path: str, kind: str) -> str:
        return _decode_acl(os.getxattr(_plain(path), f"system.posix_acl_{kind}"))

    def do_removeacl(self, path: str, kind: str) -> None:
        call("removexattr", text.path(path), b"system.posix_acl_" + kind.encode())

    # ---- inode flags

    def do_getflags(
        self, path: str, mask: str = "FS_IMMUTABLE_FL|FS_APPEND_FL|FS_NODUMP_FL"
    ) -> int:
        fd = os.open(_plain(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return self._getflags(fd) & text.flags(mask)
        finally:
            os.close(fd)

    def do_setflags(self, path: str, flags: str) -> None:
        """All that chattr(1) of these can set becomes this."""
        fd = os.open(_plain(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            kept = self._getflags(fd) & ~text.flags(
                "FS_IMMUTABLE_FL|FS_APPEND_FL|FS_NODUMP_FL|FS_NOATIME_FL|FS_SYNC_FL"
            )
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", kept | text.flags(flags)))
        finally:
            os.close(fd)

    def _getflags(self, fd: int) -> int:
        return int(struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))[0])

    # ---- locks

    def do_flock(self, fd: str, operation: str) -> None:
        call("flock", self._fd(fd), text.flags(operation))

    def do_setlk(self, fd: str, kind: str, start: str, length: str, whence: str = "0") -> None:
        self._lock(fcntl.F_SETLK, fd, kind, start, length, whence)

    def do_setlkw(self, fd: str, kind: str, start: str, length: str) -> None:
        self._lock(fcntl.F_SETLKW, fd, kind, start, length)

    def do_getlk(self, fd: str, kind: str, start: str, length: str) -> str:
        return self._lock(fcntl.F_GETLK, fd, kind, start, length)

    def do_ofd_setlk(self, fd: str, kind: str, start: str, length: str) -> None:
        self._lock(text.flags("F_OFD_SETLK"), fd, kind, start, length)

    def do_ofd_setlkw(self, fd: str, kind: str, start: str, length: str) -> None:
        self._lock(text.flags("F_OFD_SETLKW"), fd, kind, start, length)

    def do_ofd_getlk(self, fd: str, kind: str, start: str, length: str) -> str:
        return self._lock(text.flags("F_OFD_GETLK"), fd, kind, start, length)

    def _lock(
        self, command: int, fd: str, kind: str, start: str, length: str, whence: str = "0"
    ) -> str:
        numbers = text.flags(kind), text.flags(whence), text.number(start), text.number(length)
        lock = ctypes.create_string_buffer(FLOCK.pack(*numbers, 0), FLOCK.size)
        call("fcntl", self._fd(fd), command, lock)
        held, _, first, count, pid = FLOCK.unpack(lock.raw)
        if held == fcntl.F_UNLCK:
            return "F_UNLCK"
        return f"{LOCK_NAMES[held]} {first} {count} {self.people.get(pid, pid)}"

    def do_lockf(self, fd: str, command: str, length: str) -> None:
        call("lockf", self._fd(fd), text.flags(command), text.number(length))

    def do_lease(self, fd: str, kind: str) -> None:
        call("fcntl", self._fd(fd), fcntl.F_SETLEASE, text.flags(kind))

    def do_getfl(self, fd: str, flag: str) -> str:
        return "yes" if fcntl.fcntl(self._fd(fd), fcntl.F_GETFL) & text.flags(flag) else "no"

    def do_setfl(self, fd: str, flags: str) -> None:
        fcntl.fcntl(self._fd(fd), fcntl.F_SETFL, text.flags(flags))

    # ---- memory

    def do_mmap(
        self, fd: str, length: str, protection: str, flags: str, offset: str = "0"
    ) -> object:
        arguments = text.flags(protection), text.flags(flags), self._fd(fd), text.number(offset)
        address = call("mmap", None, text.number(length), *arguments)
        return address, text.number(length)

    def do_peek(self, name: str, offset: str, length: str) -> bytes:
        return ctypes.string_at(self._address(name, offset), text.number(length))

    def do_poke(self, name: str, offset: str, data: str) -> None:
        content = text.data(data)
        ctypes.memmove(self._address(name, offset), content, len(content))

    def do_touches(self, name: str, offset: str) -> str:
        """Reads a byte in a child: its end tells of SIGBUS and SIGSEGV."""
        address = self._address(name, offset)
        child = os.fork()
        if child == 0:
            ctypes.string_at(address, 1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else OK

    def _address(self, name: str, offset: str) -> int:
        if name not in self._maps:  # the call that should have mapped it failed
            raise OSError(errno.EFAULT, f"there is no mapping {name}")
        return self._maps[name][0] + text.number(offset)

    def do_msync(self, name: str, flags: str) -> None:
        call("msync", self._address(name, "0"), self._maps[name][1], text.flags(flags))

    def do_munmap(self, name: str) -> None:
        call("munmap", self._address(name, "0"), self._maps.pop(name)[1])

    def do_mprotect(self, name: str, protection: str) -> None:
        call("mprotect", self._address(name, "0"), self._maps[name][1], text.flags(protection))

    def do_interrupted(self, *line: str) -> str:
        """That line, with a signal after a moment; nothing else of it is restarted."""
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S, INTERRUPT_S)  # again, lest it came early
        try:
            return self.say(" ".join(line))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # ---- mounts

    def do_bindmount(self, source: str, target: str) -> None:
        call("mount", _plain(source), _plain(target), None, MS_BIND, None)
        self._mounts.append(os.path.realpath(_plain(target)))

    def do_romount(self, source: str, target: str) -> None:
        self.do_bindmount(source, target)
        call("mount", None, _plain(target), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)

    # ---- programs

    def do_exec(self, path: str) -> None:
        self._in_child(lambda: os.execve(_plain(path), [b"program"], {}))

    def do_spawn(self, path: str) -> None:
        """Runs it until reset()."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            try:
                os.execve(_plain(path), [b"sleep", b"1000"], {})
            except OSError as error:
                os.write(writer, b"%d" % (error.errno or 0))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:  # ends when the program runs
            failed = pipe.read()
        self._children.append(child)
        if failed:
            raise OSError(int(failed), path)

    def do_copy(self, source: str, path: str) -> None:
        """A program of this machine, made here with mode 755."""
        with open(source, "rb") as program, open(_plain(path), "wb") as file:
            file.write(program.read())
            os.fchmod(file.fileno(), 0o755)

    def _in_child(self, action: Callable[[], object]) -> None:
        """Raises the OSError that the child met."""
        child = os.fork()
        if child == 0:
            status = 0
            try:
                action()
            except OSError as error:
                status = error.errno or 255
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status > 0:
            raise OSError(status, os.strerror(status))

    # ---- several calls at once, for setups

    def do_file(
        self, path: str, mode: str = "644", owner: str = "root", content: str = '""'
    ) -> None:
        fd = os.open(_plain(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if text.data(content):
                os.write(fd, text.data(content))
            _own(fd, mode, owner)
        finally:
            os.close(fd)

    def do_dir(self, path: str, mode: str = "755", owner: str = "root") -> None:
        os.mkdir(_plain(path), 0o700)
        _own(_plain(path), mode, owner)

    def do_fifo(self, path: str, mode: str = "644", owner: str = "root") -> None:
        os.mkfifo(_plain(path), 0o600)
        _own(_plain(path), mode, owner)

    def do_socket(self, path: str, mode: str = "644", owner: str = "root") -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(_plain(path))
        _own(_plain(path), mode, owner)

    def do_char(self, path: str, mode: str = "644", owner: str = "root") -> None:
        os.mknod(_plain(path), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        _own(_plain(path), mode, owner)

    def do_block(self, path: str, mode: str = "644", owner: str = "root") -> None:
        os.mknod(_plain(path), stat.S_IFBLK | 0o600, os.makedev(7, 99))
        _own(_plain(path), mode, owner)

    def do_slink(self, target: str, path: str, owner: str = "root") -> None:
        os.symlink(text.path(target), _plain(path))
        uid, gid = _owners(owner)
        os.lchown(_plain(path), uid, gid)


class _Descriptor(int):
    """A result that stays open."""


def _errno_name(number: int) -> str:
    """Where Linux has two names for one, the one that the manual pages use."""
    names = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}
    return names.get(number) or errno.errorcode[number]


def _plain(path: str) -> bytes:
    value = text.path(path)
    assert isinstance(value, bytes)
    return value


def _owners(owner: str) -> tuple[int, int]:
    """alice is alice:alice."""
    user, _, group = owner.partition(":")
    return text.USERS[user], text.USERS[group or user]


def _own(where: bytes | int, mode: str, owner: str) -> None:
    os.chown(where, *_owners(owner))
    os.chmod(where, text.mode(mode))  # after chown, which takes setuid away


def _device(numbers: str) -> int:
    major, _, minor = numbers.partition(":")
    return os.makedev(int(major), int(minor))


def _field(info: os.stat_result, field: str) -> object:
    if field == "mode":
        return f"{stat.S_IMODE(info.st_mode):o}"
    if field == "type":
        return TYPES[stat.S_IFMT(info.st_mode)]
    if field == "rdev":
        return f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    if field in ("atime", "mtime", "ctime"):
        return seconds(getattr(info, f"st_{field}_ns"))
    value = getattr(info, f"st_{field}")
    return NAMES.get(value, value) if field in ("uid", "gid") else value


def _shown(info: os.stat_result) -> str:
    """The size of a directory is each file system's own affair, and so is a time that was not set:
    the tables set times of 1970."""
    size = "" if stat.S_ISDIR(info.st_mode) else info.st_size
    year = 365 * 86_400 * 10**9
    mtime = seconds(info.st_mtime_ns) if info.st_mtime_ns < year else "recent"
    fields = [_field(info, name) for name in ("type", "mode", "uid", "gid", "nlink")]
    return " ".join(map(str, [*fields, size, mtime]))


def seconds(time_ns: int) -> str:
    """
    >>> seconds(1_500_000_000), seconds(-1_000_000_000)
    ('1.5', '-1')
    """
    whole, rest = divmod(time_ns, 10**9)
    return f"{whole}.{rest:09}".rstrip("0").rstrip(".")


def _timespec(token: str) -> tuple[int, int]:
    special = {"now": (1 << 30) - 1, "omit": (1 << 30) - 2, "bad": 10**9}
    if token in special:
        return 0, special[token]
    whole, _, fraction = token.partition(".")
    return int(whole), int(fraction.ljust(9, "0")) if fraction else 0


def _returned(number: int) -> str:
    """posix_ functions return their error."""
    return _errno_name(number) if number else OK


def _entries(directory: int) -> dict[bytes, int]:
    """Names and inodes by getdents64(2), from where the descriptor stands to the end."""
    found: dict[bytes, int] = {}
    buffer = ctypes.create_string_buffer(1 << 15)
    while True:
        length = call("getdents64", directory, buffer, len(buffer))
        if length == 0:
            return found
        offset = 0
        while offset < length:
            inode, _, size = struct.unpack_from("<QqH", buffer.raw, offset)
            found[buffer.raw[offset + 19 : offset + size].split(b"\0")[0]] = inode
            offset += size


def _names(entries: dict[bytes, int]) -> str:
    names = sorted(os.fsdecode(name) for name in entries if name not in (b".", b".."))
    return ",".join(names) or "nothing"


def _encode_acl(entries: str) -> bytes:
    packed = struct.pack("<I", 2)
    for entry in entries.split(","):
        kind, name, rights = entry.split(":")
        tag = ACL_TAGS[kind][bool(name)]
        bits = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in rights)
        packed += struct.pack("<HHI", tag, bits, text.user(name) if name else ACL_NOBODY)
    return packed


def _decode_acl(packed: bytes) -> str:
    kinds = {
        tag: (kind, index) for kind, tags in ACL_TAGS.items() for index, tag in enumerate(tags)
    }
    entries = []
    for offset in range(4, len(packed), 8):
        tag, bits, number = struct.unpack_from("<HHI", packed, offset)
        kind, named = kinds[tag]
        rights = "".join("rwx"[place] if bits & 4 >> place else "-" for place in range(3))
        name = NAMES.get(number, str(number)) if named and kind in "ug" else ""
        entries.append(f"{kind}:{name}:{rights}")
    return ",".join(entries)
