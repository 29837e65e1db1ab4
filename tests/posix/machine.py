"""A random history of file operations, on fs3 and on a file system of the kernel, answer by answer.

Three people at two machines: root, alice and bob work on one mount, root2, alice2 and bob2 on the
other. Each is a process, so locks and descriptors are theirs. On the reference both machines are
one directory. Every rule says one line of words.py to the same person on both sides; the answers,
values and errnos, must be equal. At the end of a history both mounts must show the reference's
tree, with contents and extended attributes.

As an ordinary user everybody is that user; what needs another one then fails alike on both sides.
"""

import os
import pathlib
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.posix import snapshot
from tests.posix.actors import ACTORS, Actors
from tests.posix.conformance import remove

__all__ = ["FileSystemMachine", "Sides"]

PEOPLE = st.sampled_from(ACTORS)
NAMES = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "g", "g/a", "g/h"]
PATHS = st.sampled_from(NAMES)
DIRECTORIES = st.sampled_from(["d", "g", "d/e", "g/h", "."])
SLOTS = st.sampled_from(["x", "y"])
MODES = st.sampled_from(["644", "600", "666", "777", "755", "444", "2755", "4711", "1777", "0"])
OWNERS = st.sampled_from(["-1", "root", "alice", "bob"])
GROUPS = st.sampled_from(["-1", "root", "alice", "bob", "team"])
OFFSETS = st.sampled_from(["0", "1", "100", "4096", "65536", "200000", "1048570"])
LENGTHS = st.sampled_from(["0", "1", "10", "4096", "20000", "70000", "1200000"])
DATA = st.sampled_from(["A", "hello", "b*100", "c*5000", "d*70000", "e*300000"])
ACCESS = st.sampled_from(["O_RDONLY", "O_WRONLY", "O_RDWR"])
EXTRA = st.sampled_from(
    [
        "0",
        "O_TRUNC",
        "O_APPEND",
        "O_CREAT",
        "O_CREAT|O_EXCL",
        "O_CREAT|O_TRUNC",
        "O_NOFOLLOW",
        "O_DIRECTORY",
    ]
)
XATTRS = st.sampled_from(["user.a", "user.bb", "trusted.c", "security.d", "none.e"])
VALUES = st.sampled_from(['""', "v", "w*100", "z*3000"])
ACLS = st.sampled_from(
    [
        "u::rw-,u:alice:rw-,g::r--,m::rw-,o::---",
        "u::rwx,u:bob:---,g::rwx,m::rwx,o::rwx",
        "u::rw-,g::---,g:team:rw-,m::rw-,o::r--",
        "u::rw-,g::r--,o::r--",
        "u::rwx,u:alice:rwx,g::r-x,m::r-x,o::r-x",
    ]
)
LOCKS = st.sampled_from(["F_RDLCK", "F_WRLCK", "F_UNLCK"])
MAPPED_BYTES = 400_000  # more than any DATA and its place
RANGES = st.sampled_from(["0 0", "0 10", "5 10", "10 0", "3 1"])


class Sides:
    """The reference and fs3's two mounts: who works where. Lives through many histories."""

    def __init__(self, reference: pathlib.Path, first: pathlib.Path, second: pathlib.Path) -> None:
        change_user = os.geteuid() == 0
        self._reference, self._mounts = reference, (first, second)
        self._here = Actors(change_user=change_user)
        self._there = Actors(change_user=change_user)
        self._number = 0
        self._used: set[str] = set()
        self.steps: list[str] = []

    def close(self) -> None:
        for actors in (self._here, self._there):
            actors.__exit__()

    def begin(self) -> None:
        self._number += 1
        self._name = f"history-{os.getpid()}-{self._number}"
        for root in (self._reference, self._mounts[0]):
            (root / self._name).mkdir()
            (root / self._name).chmod(0o777)
        self.steps.clear()

    def say(self, who: str, line: str) -> str:
        """The answer, the same on both sides."""
        if who not in self._used:
            self._used.add(who)
            self._here[who].reset(str(self._reference / self._name))
            self._there[who].reset(str(self._mounts[who.endswith("2")] / self._name))
        wanted, got = self._here[who].say(line), self._there[who].say(line)
        self.steps.append(f"{who}: {line} -> {wanted[:60]}")
        if got != wanted:
            raise AssertionError(
                f"{who}: {line}: fs3 says {got[:300]}, the reference {wanted[:300]}\n{self.story()}"
            )
        return wanted

    def ask(self, who: str, line: str) -> str:
        """Of the reference alone, to decide what to do."""
        return self._here[who].say(line) if who in self._used else ""

    def story(self) -> str:
        return "the steps:\n    " + "\n    ".join(self.steps)

    def end(self) -> None:
        """Both mounts show the reference's tree; then everything goes."""
        for who in self._used:
            for actors in (self._here, self._there):
                actors[who].reset("/")
        self._used.clear()
        try:
            wanted = _told(self._reference / self._name)
            for mount in self._mounts:
                found = _told(mount / self._name)
                different = {
                    path: (found.get(path), wanted.get(path))
                    for path in {*found, *wanted}
                    if found.get(path) != wanted.get(path)
                }
                assert not different, (
                    f"at the end, on {mount} (what it shows, what the reference): {different}\n"
                    f"{self.story()}"
                )
        finally:
            remove(self._reference / self._name)
            remove(self._mounts[0] / self._name)


def _told(root: pathlib.Path) -> dict[str, tuple[Any, ...]]:
    """A tree without what is each file system's own."""
    return {
        path: (
            *(entry.type, entry.mode, entry.uid, entry.gid, entry.nlink, entry.size),
            *(entry.target, entry.content),
            _xattrs(root / path) if entry.type in ("file", "dir") else (),
        )
        for path, entry in snapshot.take(str(root)).items()
    }


def _xattrs(path: pathlib.Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))


class FileSystemMachine(RuleBasedStateMachine):
    """`sides` is set by the test that runs it."""

    sides: ClassVar[Sides]

    @initialize()
    def begin(self) -> None:
        self.sides.begin()
        self.sides.say("root", "dir d 777")
        self.sides.say("root", "dir g 1777")

    def teardown(self) -> None:
        self.sides.end()

    def say(self, who: str, line: str) -> str:
        return self.sides.say(who, line)

    def size(self, who: str, slot: str) -> int:
        """Of an open file, 0 of anything else."""
        size = self.sides.ask(who, f"fstat {slot} size")
        return int(size) if self.is_a(who, slot, "file") and size.isdigit() else 0

    def is_a(self, who: str, slot: str, kind: str) -> bool:
        return self.sides.ask(who, f"fstat {slot} type") == kind

    # ---- opening

    @rule(who=PEOPLE, slot=SLOTS, path=PATHS, access=ACCESS, extra=EXTRA, mode=MODES)
    def open(self, who: str, slot: str, path: str, access: str, extra: str, mode: str) -> None:
        if self.sides.ask(who, f"stat {path} type") == "fifo":
            return  # its other end may be at another machine
        self.say(who, f"{slot}=open {path} {access}|{extra}|O_NONBLOCK {mode}")

    @rule(who=PEOPLE, slot=SLOTS, path=PATHS, mode=MODES)
    def create(self, who: str, slot: str, path: str, mode: str) -> None:
        if self.sides.ask(who, f"stat {path} type") == "fifo":
            return
        self.say(who, f"{slot}=open {path} O_RDWR|O_CREAT|O_NONBLOCK {mode}")

    @rule(who=PEOPLE, slot=SLOTS, path=DIRECTORIES, mode=MODES)
    def open_without_name(self, who: str, slot: str, path: str, mode: str) -> None:
        self.say(who, f"{slot}=open {path} O_RDWR|O_TMPFILE {mode}")

    @rule(who=PEOPLE, slot=SLOTS, path=PATHS)
    def name_descriptor(self, who: str, slot: str, path: str) -> None:
        self.say(who, f"linkfd {slot} {path}")

    @rule(who=PEOPLE, slot=SLOTS)
    def close(self, who: str, slot: str) -> None:
        self.say(who, f"close {slot}")

    @rule(who=PEOPLE, one=SLOTS, other=SLOTS)
    def duplicate(self, who: str, one: str, other: str) -> None:
        self.say(who, f"{one}=dup {other}")

    # ---- bytes

    @rule(who=PEOPLE, slot=SLOTS, data=DATA)
    def write(self, who: str, slot: str, data: str) -> None:
        self.say(who, f"write {slot} {data}")

    @rule(who=PEOPLE, slot=SLOTS, data=DATA, offset=OFFSETS)
    def pwrite(self, who: str, slot: str, data: str, offset: str) -> None:
        self.say(who, f"pwrite {slot} {data} {offset}")

    @rule(who=PEOPLE, slot=SLOTS, data=DATA)
    def append(self, who: str, slot: str, data: str) -> None:
        self.say(who, f"pwritev2 {slot} {data} 0 RWF_APPEND")

    @rule(who=PEOPLE, slot=SLOTS, length=LENGTHS)
    def read(self, who: str, slot: str, length: str) -> None:
        self.say(who, f"read {slot} {length}")

    @rule(who=PEOPLE, slot=SLOTS, length=LENGTHS, offset=OFFSETS)
    def pread(self, who: str, slot: str, length: str, offset: str) -> None:
        self.say(who, f"pread {slot} {length} {offset}")

    @rule(who=PEOPLE, path=PATHS)
    def read_all(self, who: str, path: str) -> None:
        if self.sides.ask(who, f"stat {path} type") == "file":
            self.say(who, f"content {path}")

    @rule(
        who=PEOPLE,
        slot=SLOTS,
        offset=OFFSETS,
        whence=st.sampled_from(["SEEK_SET", "SEEK_CUR", "SEEK_END"]),
    )
    def seek(self, who: str, slot: str, offset: str, whence: str) -> None:
        if self.is_a(who, slot, "file"):
            self.say(who, f"lseek {slot} {offset} {whence}")

    @rule(who=PEOPLE, path=PATHS, length=LENGTHS)
    def truncate(self, who: str, path: str, length: str) -> None:
        self.say(who, f"truncate {path} {length}")

    @rule(who=PEOPLE, slot=SLOTS, length=LENGTHS)
    def ftruncate(self, who: str, slot: str, length: str) -> None:
        self.say(who, f"ftruncate {slot} {length}")

    @rule(who=PEOPLE, slot=SLOTS, verb=st.sampled_from(["fsync", "fdatasync"]))
    def sync(self, who: str, slot: str, verb: str) -> None:
        self.say(who, f"{verb} {slot}")

    @rule(who=PEOPLE, slot=SLOTS, offset=OFFSETS, length=LENGTHS)
    def allocate(self, who: str, slot: str, offset: str, length: str) -> None:
        self.say(who, f"fallocate {slot} 0 {offset} {length}")

    @rule(who=PEOPLE, slot=SLOTS, offset=OFFSETS, length=LENGTHS)
    def punch_hole(self, who: str, slot: str, offset: str, length: str) -> None:
        self.say(who, f"fallocate {slot} PUNCH_HOLE|KEEP_SIZE {offset} {length}")

    @rule(who=PEOPLE, one=SLOTS, other=SLOTS, offset=OFFSETS, place=OFFSETS, length=LENGTHS)
    def copy_range(
        self, who: str, one: str, other: str, offset: str, place: str, length: str
    ) -> None:
        self.say(who, f"copy_file_range {one} {offset} {other} {place} {length}")

    @rule(who=PEOPLE, slot=SLOTS, data=DATA, place=st.sampled_from(["0", "7", "4090"]))
    def write_by_mapping(self, who: str, slot: str, data: str, place: str) -> None:
        if self.size(who, slot) < MAPPED_BYTES:
            return
        protection = "PROT_READ|PROT_WRITE MAP_SHARED"
        if self.say(who, f"m=mmap {slot} {MAPPED_BYTES} {protection}") == "ok":
            self.say(who, f"poke m {place} {data}")
            self.say(who, "msync m MS_SYNC")
            self.say(who, "munmap m")

    @rule(who=PEOPLE, slot=SLOTS)
    def read_by_mapping(self, who: str, slot: str) -> None:
        size = self.size(who, slot)
        if size and self.say(who, f"m=mmap {slot} {size} PROT_READ MAP_SHARED") == "ok":
            self.say(who, f"peek m 0 {size}")
            self.say(who, "munmap m")

    # ---- names

    @rule(who=PEOPLE, path=PATHS, mode=MODES)
    def mkdir(self, who: str, path: str, mode: str) -> None:
        self.say(who, f"mkdir {path} {mode}")

    @rule(who=PEOPLE, path=PATHS)
    def rmdir(self, who: str, path: str) -> None:
        self.say(who, f"rmdir {path}")

    @rule(who=PEOPLE, path=PATHS)
    def unlink(self, who: str, path: str) -> None:
        self.say(who, f"unlink {path}")

    @rule(who=PEOPLE, old=PATHS, new=PATHS)
    def rename(self, who: str, old: str, new: str) -> None:
        self.say(who, f"rename {old} {new}")

    @rule(who=PEOPLE, old=PATHS, new=PATHS)
    def rename_to_nothing(self, who: str, old: str, new: str) -> None:
        self.say(who, f"renameat2 cwd {old} cwd {new} RENAME_NOREPLACE")

    @rule(who=PEOPLE, old=PATHS, new=PATHS)
    def exchange(self, who: str, old: str, new: str) -> None:
        self.say(who, f"renameat2 cwd {old} cwd {new} RENAME_EXCHANGE")

    @rule(who=PEOPLE, old=PATHS, new=PATHS)
    def link(self, who: str, old: str, new: str) -> None:
        self.say(who, f"link {old} {new}")

    @rule(who=PEOPLE, to=PATHS, path=PATHS)
    def symlink(self, who: str, to: str, path: str) -> None:
        self.say(who, f"symlink {to} {path}")

    @rule(who=PEOPLE, path=PATHS)
    def readlink(self, who: str, path: str) -> None:
        self.say(who, f"readlink {path}")

    @rule(
        who=PEOPLE,
        path=PATHS,
        mode=MODES,
        kind=st.sampled_from(["S_IFIFO", "S_IFSOCK", "S_IFREG", "S_IFCHR"]),
    )
    def mknod(self, who: str, path: str, mode: str, kind: str) -> None:
        self.say(who, f"mknod {path} {mode} {kind} {'1:3' if kind == 'S_IFCHR' else '0:0'}")

    @rule(who=PEOPLE, path=DIRECTORIES)
    def list(self, who: str, path: str) -> None:
        self.say(who, f"types {path}")

    # ---- attributes

    @rule(who=PEOPLE, path=PATHS)
    def look(self, who: str, path: str) -> None:
        self.say(who, f"look {path}")

    @rule(who=PEOPLE, slot=SLOTS)
    def look_at_open(self, who: str, slot: str) -> None:
        self.say(who, f"flook {slot}")

    @rule(
        who=PEOPLE, path=PATHS, mode=st.sampled_from(["F_OK", "R_OK", "W_OK", "X_OK", "R_OK|W_OK"])
    )
    def access(self, who: str, path: str, mode: str) -> None:
        self.say(who, f"access {path} {mode}")

    @rule(who=PEOPLE, mode=st.sampled_from(["0", "022", "077", "027"]))
    def umask(self, who: str, mode: str) -> None:
        self.say(who, f"umask {mode}")

    @rule(who=PEOPLE, path=PATHS, mode=MODES)
    def chmod(self, who: str, path: str, mode: str) -> None:
        self.say(who, f"chmod {path} {mode}")

    @rule(who=PEOPLE, slot=SLOTS, mode=MODES)
    def fchmod(self, who: str, slot: str, mode: str) -> None:
        self.say(who, f"fchmod {slot} {mode}")

    @rule(who=PEOPLE, path=PATHS, uid=OWNERS, gid=GROUPS)
    def chown(self, who: str, path: str, uid: str, gid: str) -> None:
        self.say(who, f"lchown {path} {uid} {gid}")

    @rule(who=PEOPLE, slot=SLOTS, uid=OWNERS, gid=GROUPS)
    def fchown(self, who: str, slot: str, uid: str, gid: str) -> None:
        self.say(who, f"fchown {slot} {uid} {gid}")

    @rule(who=PEOPLE, path=PATHS, mtime=st.sampled_from(["now", "omit", "5", "1000.25"]))
    def utimensat(self, who: str, path: str, mtime: str) -> None:
        self.say(who, f"utimensat cwd {path} 1 {mtime}")

    @rule(who=PEOPLE, slot=SLOTS, mtime=st.sampled_from(["now", "7", "2000.5"]))
    def futimens(self, who: str, slot: str, mtime: str) -> None:
        self.say(who, f"futimens {slot} omit {mtime}")

    @rule(
        who=PEOPLE,
        path=PATHS,
        name=XATTRS,
        value=VALUES,
        flags=st.sampled_from(["0", "0", "XATTR_CREATE", "XATTR_REPLACE"]),
    )
    def setxattr(self, who: str, path: str, name: str, value: str, flags: str) -> None:
        self.say(who, f"lsetxattr {path} {name} {value} {flags}")

    @rule(who=PEOPLE, path=PATHS, name=XATTRS)
    def getxattr(self, who: str, path: str, name: str) -> None:
        self.say(who, f"lgetxattr {path} {name}")

    @rule(who=PEOPLE, slot=SLOTS, name=XATTRS)
    def fgetxattr(self, who: str, slot: str, name: str) -> None:
        self.say(who, f"fgetxattr {slot} {name}")

    @rule(who=PEOPLE, path=PATHS)
    def listxattr(self, who: str, path: str) -> None:
        self.say(who, f"llistxattr {path}")

    @rule(who=PEOPLE, path=PATHS, name=XATTRS)
    def removexattr(self, who: str, path: str, name: str) -> None:
        self.say(who, f"lremovexattr {path} {name}")

    @rule(who=PEOPLE, path=PATHS, kind=st.sampled_from(["access", "default"]), acl=ACLS)
    def setacl(self, who: str, path: str, kind: str, acl: str) -> None:
        self.say(who, f"setacl {path} {kind} {acl}")

    @rule(who=PEOPLE, path=PATHS, kind=st.sampled_from(["access", "default"]))
    def removeacl(self, who: str, path: str, kind: str) -> None:
        self.say(who, f"removeacl {path} {kind}")

    @rule(
        who=PEOPLE,
        path=PATHS,
        flags=st.sampled_from(["0", "0", "FS_IMMUTABLE_FL", "FS_APPEND_FL", "FS_NODUMP_FL"]),
    )
    def setflags(self, who: str, path: str, flags: str) -> None:
        if self.sides.ask(who, f"lstat {path} type") in ("file", "dir"):
            self.say(who, f"setflags {path} {flags}")

    @rule(who=PEOPLE, path=PATHS)
    def getflags(self, who: str, path: str) -> None:
        if self.sides.ask(who, f"lstat {path} type") in ("file", "dir"):
            self.say(who, f"getflags {path}")

    # ---- locks

    @rule(who=PEOPLE, slot=SLOTS, kind=LOCKS, where=RANGES)
    def lock(self, who: str, slot: str, kind: str, where: str) -> None:
        self.say(who, f"setlk {slot} {kind} {where}")

    @rule(who=PEOPLE, slot=SLOTS, kind=st.sampled_from(["F_RDLCK", "F_WRLCK"]), where=RANGES)
    def ask_for_lock(self, who: str, slot: str, kind: str, where: str) -> None:
        """Which of several locks in the way is told is each file system's own affair."""
        free = self.sides.ask(who, f"getlk {slot} {kind} {where}") == "F_UNLCK"
        if free:
            self.say(who, f"getlk {slot} {kind} {where}")

    @rule(who=PEOPLE, slot=SLOTS, kind=LOCKS, where=RANGES)
    def lock_open_file(self, who: str, slot: str, kind: str, where: str) -> None:
        self.say(who, f"ofd_setlk {slot} {kind} {where}")

    @rule(who=PEOPLE, slot=SLOTS, kind=st.sampled_from(["LOCK_SH", "LOCK_EX", "LOCK_UN"]))
    def flock(self, who: str, slot: str, kind: str) -> None:
        self.say(who, f"flock {slot} {kind}|LOCK_NB")
