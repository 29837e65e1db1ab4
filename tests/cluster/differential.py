"""One random sequence of file operations on several file systems, compared step by step.

Each step is a value: a method of Side and its arguments. A step's outcome is what the method
returns, or the name of its errno. Names are few, so that steps meet each other's files, links and
directories, and descriptors outlive the names they were opened by.
"""

import errno
import os
import pathlib
import random
import stat
from collections.abc import Callable
from typing import Any

SLOTS = 5
NO_SLOT = -1
NO_DESCRIPTOR = 1 << 30  # EBADF
FILE_BYTES_MAX = 300_000
TIME_NS_MAX = 2_000_000_000 * 1_000_000_000
NAMES = [b"a", b"b", b"c", b"\xff\xfe n", "ü".encode()]
DIRECTORIES = [b"", b"d/", b"e/", b"d/f/", b"e/\x80/"]
ACCESS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]
EXTRA = [0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND]
MODES = [0o777, 0o666, 0o640, 0o600, 0o444, 0o2755, 0o1777]

Step = tuple[Any, ...]


class Side:
    """One of the file systems: a directory of it, and descriptors by slot."""

    def __init__(self, root: pathlib.Path, *, stats_nameless: bool = True) -> None:
        self.root = os.fsencode(root) + b"/"
        self.stats_nameless = stats_nameless  # fstat of an open file that lost its name
        self.slots: dict[int, int] = {}

    def outcome(self, step: Step) -> Any:
        method, *arguments = step
        try:
            return getattr(self, method)(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    # ---- descriptors ----

    def open(self, slot: int, name: bytes, flags: int, mode: int) -> None:
        self.close(slot)
        self.slots[slot] = os.open(self.root + name, flags, mode)

    def close(self, slot: int) -> None:
        if slot in self.slots:
            os.close(self.slots.pop(slot))

    def _descriptor(self, slot: int) -> int:
        return self.slots.get(slot, NO_DESCRIPTOR)

    def pwrite(self, slot: int, data: bytes, offset: int) -> int:
        return os.pwrite(self._descriptor(slot), data, offset)

    def write(self, slot: int, data: bytes) -> int:
        return os.write(self._descriptor(slot), data)

    def pread(self, slot: int, length: int, offset: int) -> bytes:
        return os.pread(self._descriptor(slot), length, offset)

    def end(self, slot: int) -> int:
        return os.lseek(self._descriptor(slot), 0, os.SEEK_END)

    def ftruncate(self, slot: int, length: int) -> None:
        os.ftruncate(self._descriptor(slot), length)

    def fsync(self, slot: int) -> None:
        os.fsync(self._descriptor(slot))

    # ---- names ----

    def stat(self, name: bytes) -> Any:
        return shown(os.lstat(self.root + name))

    def access(self, name: bytes, mode: int) -> bool:
        return os.access(self.root + name, mode)

    def truncate(self, name: bytes, length: int) -> None:
        os.truncate(self.root + name, length)

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(self.root + old, self.root + new)

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self.root + old, self.root + new, follow_symlinks=False)

    def symlink(self, target: bytes, name: bytes) -> None:
        os.symlink(target, self.root + name)

    def readlink(self, name: bytes) -> bytes:
        return os.readlink(self.root + name)

    def unlink(self, name: bytes) -> None:
        os.unlink(self.root + name)

    def mkdir(self, name: bytes, mode: int) -> None:
        os.mkdir(self.root + name, mode)

    def rmdir(self, name: bytes) -> None:
        os.rmdir(self.root + name)

    def mkfifo(self, name: bytes, mode: int) -> None:
        os.mkfifo(self.root + name, mode)

    def chmod(self, name: bytes, mode: int) -> None:
        os.chmod(self.root + name, mode)

    def chown(self, name: bytes, uid: int, gid: int) -> None:
        os.chown(self.root + name, uid, gid, follow_symlinks=False)

    def utime(self, name: bytes, atime_ns: int, mtime_ns: int) -> tuple[int, int]:
        os.utime(self.root + name, ns=(atime_ns, mtime_ns))
        info = os.stat(self.root + name)
        return info.st_atime_ns, info.st_mtime_ns

    def listdir(self, name: bytes) -> list[tuple[bytes, bool, bool]]:
        with os.scandir(self.root + name) as entries:
            return sorted(
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                for entry in entries
            )

    # ---- not steps ----

    def is_directory(self, slot: int) -> bool:
        return slot in self.slots and stat.S_ISDIR(os.fstat(self.slots[slot]).st_mode)

    def same_file(self, name: bytes) -> list[int]:
        """Slots of the file under a name, when it has several names."""
        try:
            info = os.stat(self.root + name)
        except OSError:
            return []
        found = {slot: os.fstat(fd) for slot, fd in self.slots.items()}
        return [slot for slot, one in found.items() if one.st_ino == info.st_ino]


def shown(info: os.stat_result) -> tuple[int, ...]:
    """What file systems must agree on. The size of a directory is each one's own affair."""
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return info.st_mode, info.st_nlink, size, info.st_uid, info.st_gid


def tree(root: pathlib.Path) -> dict[bytes, Any]:
    """Everything below: attributes, and content or target."""
    found: dict[bytes, Any] = {}
    waiting = [os.fsencode(root)]
    while waiting:
        where = waiting.pop()
        for name in os.listdir(where):
            path = where + b"/" + name
            info = os.lstat(path)
            content: bytes | None = None
            if stat.S_ISDIR(info.st_mode):
                waiting.append(path)
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = pathlib.Path(os.fsdecode(path)).read_bytes()
            found[path[len(os.fsencode(root)) :]] = (shown(info), content)
    return found


class Generator:
    """Steps from a seed. `reference` is looked at where a step must not be taken blindly."""

    def __init__(self, seed: int, reference: Side) -> None:
        self._random = random.Random(seed)
        self._reference = reference

    def steps(self) -> list[Step]:
        """The next one, with what has to come before it."""
        make = self._random.choice(self._makers())
        step = make()
        if step[0] not in ("link", "unlink", "rename"):
            return [step]
        # The kernel keeps an inode per name for the Python mount: descriptors of a file whose
        # second name comes or goes would show each its own pages.
        names = [argument for argument in step[1:] if isinstance(argument, bytes)]
        several = step[0] == "link"
        slots = {slot for name in names for slot in self._shared(name, several)}
        return [*(("close", slot) for slot in sorted(slots)), step]

    def _shared(self, name: bytes, always: bool) -> list[int]:
        try:
            if not always and os.stat(self._reference.root + name).st_nlink < 2:
                return []
        except OSError:
            return []
        return self._reference.same_file(name)

    def _makers(self) -> list[Callable[[], Step]]:
        draw = self._random
        file_steps: list[Callable[[], Step]] = [
            lambda: ("open", self._slot(), self._name(), self._flags(), draw.choice(MODES)),
            lambda: ("pwrite", self._slot(), self._data(), self._length()),
            lambda: ("write", self._slot(), self._data()),
            lambda: ("pread", self._slot(), self._length(), self._length()),
            lambda: ("end", self._slot(of_file=True)),
            lambda: ("ftruncate", self._slot(), self._length()),
        ]
        name_steps: list[Callable[[], Step]] = [
            lambda: ("close", self._slot()),
            lambda: ("fsync", self._slot()),
            lambda: ("stat", self._name()),
            lambda: ("access", self._name(), draw.randrange(8)),
            lambda: ("truncate", self._name(), self._length()),
            lambda: ("rename", self._name(), self._name()),
            lambda: ("link", self._name(), self._name()),
            lambda: ("symlink", draw.choice([*NAMES, b"d", b"d/f/a", b"nowhere"]), self._name()),
            lambda: ("readlink", self._name()),
            lambda: ("unlink", self._name()),
            lambda: ("mkdir", self._directory(), draw.choice(MODES)),
            lambda: ("rmdir", self._directory()),
            lambda: ("mkfifo", self._name(), draw.choice(MODES)),
            lambda: ("chmod", self._name(), draw.choice(MODES)),
            lambda: ("chown", self._name(), draw.choice([-1, 0, 7]), draw.choice([-1, 0, 7])),
            lambda: ("utime", self._name(), *(draw.randrange(TIME_NS_MAX) for _ in range(2))),
            lambda: ("listdir", draw.choice(DIRECTORIES)),
        ]
        return file_steps * 3 + name_steps

    def _slot(self, *, of_file: bool = False) -> int:
        """The end of an open directory is each file system's own affair."""
        slot = self._random.randrange(SLOTS)
        return NO_SLOT if of_file and self._reference.is_directory(slot) else slot

    def _name(self) -> bytes:
        if self._random.random() < 0.1:
            return self._directory()
        return self._random.choice(DIRECTORIES) + self._random.choice(NAMES)

    def _directory(self) -> bytes:
        return self._random.choice(DIRECTORIES[1:]).rstrip(b"/")

    def _flags(self) -> int:
        # A FIFO without O_NONBLOCK would wait for the other end.
        flags = self._random.choice(ACCESS) | self._random.choice(EXTRA) | os.O_NONBLOCK
        return flags | self._random.choice(EXTRA)

    def _length(self) -> int:
        draw = self._random
        return draw.choice([0, 1, 4096, draw.randrange(10_000), draw.randrange(FILE_BYTES_MAX)])

    def _data(self) -> bytes:
        return self._random.randbytes(self._length())
