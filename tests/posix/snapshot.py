"""What a directory looks like, and whether a call changed exactly what it should have.

Effects of a row, separated by semicolons; what is not named must not change:

    -f                           f is gone
    +f file 644 alice            f is new: type, mode, owner[:group]; its times are the present
    +f file 644 alice size=5     ... and what is not as in a new empty file; mtime=? may be any
    +g was f                     g is what f was before (the same inode), all attributes kept
    +g was f nlink=2 ctime       ... but for these
    f mode=600 ctime             attributes that changed; a time without value became the present
    . touched                    short for mtime ctime
    f size=5 written             written is short for content mtime ctime
    f mtime=1000.5 ctime         seconds
    f mode=2745|745 ctime?       alternatives; a change that is allowed and not demanded

A change of ctime by a rename is allowed and not demanded: POSIX leaves it open.
"""

import dataclasses
import os
import stat
import zlib

from tests.posix import text
from tests.posix.words import TYPES, seconds

__all__ = ["Entry", "Tree", "check_effects", "take"]

CONTENT_BYTES_MAX = 1 << 16
SHORT = {"touched": ("mtime", "ctime"), "written": ("content", "mtime", "ctime")}
TIMES = ("atime", "mtime", "ctime")
NOW = "now"
ANY = "?"
_NAMES = {number: name for name, number in text.USERS.items()}


@dataclasses.dataclass(frozen=True)
class Entry:
    inode: int
    type: str
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int  # 0 for directories: each file system's own affair
    mtime: int
    ctime: int
    atime: int  # compared in new entries and where a row names it: reading may change it
    target: bytes
    content: int


Tree = dict[str, Entry]
COMPARED = ("mode", "uid", "gid", "nlink", "size", "mtime", "ctime", "target", "content")


def take(root: str) -> Tree:
    tree: Tree = {}
    waiting = [(root, ".")]
    while waiting:
        path, name = waiting.pop()
        entry = _entry(path)
        tree[name] = entry
        if entry.type == "dir":
            for child in os.listdir(path):
                below = child if name == "." else f"{name}/{child}"
                waiting.append((f"{path}/{child}", below))
    return tree


def _entry(path: str) -> Entry:
    info = os.lstat(path)
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    content = 0
    if kind == "file" and 0 < info.st_size <= CONTENT_BYTES_MAX:
        with open(path, "rb") as file:
            content = zlib.crc32(file.read())
    return Entry(
        inode=info.st_ino,
        type=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        nlink=info.st_nlink,
        size=0 if kind == "dir" else info.st_size,
        mtime=info.st_mtime_ns,
        ctime=info.st_ctime_ns,
        atime=info.st_atime_ns,
        target=os.readlink(os.fsencode(path)) if kind == "symlink" else b"",
        content=content,
    )


class _Checker:
    def __init__(self, before: Tree, after: Tree, begin_ns: int, end_ns: int) -> None:
        self.before, self.after = before, after
        self._begin_ns, self._end_ns = begin_ns, end_ns
        self.named: set[str] = set()

    def check(self, effect: str) -> str:
        """What is wrong with it; empty when it is as written."""
        first, *rest = effect.split()
        path = first.lstrip("+-") if first[0] in "+-" else first
        self.named.add(path)
        if first[0] == "-":
            return f"{path} is still there" if path in self.after else ""
        if path not in self.after:
            return f"{path} is not there"
        entry = self.after[path]
        if first[0] != "+":
            if path not in self.before:
                return f"{path} is new"
            return self._compare(path, self.before[path], entry, rest)
        if rest[0] == "was":
            old = self.before[rest[1]]
            if old.inode != entry.inode:
                return f"{path} is not what {rest[1]} was"
            return self._compare(path, old, entry, rest[2:], moved=True)
        return self._check_new(path, entry, rest)

    def unnamed(self) -> list[str]:
        """Changes that no effect has named."""
        found = []
        for path in sorted({*self.before, *self.after} - self.named):
            if path not in self.after:
                found.append(f"-{path}")
            elif path not in self.before:
                found.append(f"+{path}")
            else:
                changes = self._changes(self.before[path], self.after[path])
                if self.before[path].inode != self.after[path].inode:
                    changes["inode"] = "another"
                if changes:
                    found.append(f"{path} {_told(changes)}")
        return found

    def _compare(
        self, path: str, old: Entry, new: Entry, wanted: list[str], *, moved: bool = False
    ) -> str:
        if old.inode != new.inode:
            return f"{path} is another inode"
        expected = _expected(wanted)
        changes = self._changes(old, new)
        if "atime" in expected:
            changes["atime"] = self._value("atime", new)
        optional = {name[:-1] for name in expected if name[-1] == "?"}
        if moved and "ctime" not in expected:
            optional.add("ctime")
        must = {name for name in expected if name[-1] != "?"}
        if must <= changes.keys() <= must | optional and all(
            changes[name] in expected[name].split("|") for name in must
        ):
            return ""
        return f"{path}: changed {_told(changes)}, expected {_told(expected)}"

    def _changes(self, old: Entry, new: Entry) -> dict[str, str]:
        changed = {
            name: self._value(name, new)
            for name in COMPARED
            if getattr(old, name) != getattr(new, name)
        }
        if changed.get("size") and "content" in changed and not old.content and not new.content:
            del changed["content"]
        return changed

    def _value(self, name: str, entry: Entry) -> str:
        value = getattr(entry, name)
        if name in TIMES:
            return NOW if self._begin_ns <= value <= self._end_ns else seconds(value)
        if name == "mode":
            return f"{value:o}"
        if name in ("uid", "gid"):
            return str(_NAMES.get(value, value))
        if name == "content":
            return ""
        return os.fsdecode(value) if name == "target" else str(value)

    def _check_new(self, path: str, entry: Entry, wanted: list[str]) -> str:
        kind, mode, owner, *rest = wanted
        user, _, group = owner.partition(":")
        expected = {
            "type": kind,
            "mode": mode,
            "uid": user,
            "gid": group or user,
            "nlink": "2" if kind == "dir" else "1",
            "size": "0",
            **dict.fromkeys(TIMES, NOW),
            **_expected(rest),
        }
        if kind == "symlink" and "target" in expected:
            expected["size"] = str(len(expected["target"]))
        found = {
            name: entry.type if name == "type" else self._value(name, entry)
            for name in expected
            if expected[name] != ANY
        }
        expected = {name: expected[name] for name in found}
        if found == expected:
            return ""
        wrong = {name: value for name, value in found.items() if value != expected[name]}
        return f"{path}: has {_told(wrong)}, expected {_told({n: expected[n] for n in wrong})}"


def _expected(words: list[str]) -> dict[str, str]:
    expected: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        for one in SHORT.get(name, (name,)):
            expected[one] = value if equals else NOW if one in TIMES else ""
    return expected


def _told(changes: dict[str, str]) -> str:
    told = " ".join(f"{name}={value}" if value else name for name, value in changes.items())
    return told or "nothing"


def check_effects(
    effects: list[str], before: Tree, after: Tree, begin_ns: int, end_ns: int
) -> list[str]:
    """One entry per effect, empty when it holds, and one last for all that must be unchanged."""
    checker = _Checker(before, after, begin_ns, end_ns)
    found = [checker.check(effect) for effect in effects]
    unnamed = checker.unnamed()
    return [*found, f"also changed: {'; '.join(unnamed)}" if unnamed else ""]
