"""The rules of access(2), unlink(2), chmod(2), chown(2) and open(2) as sentences, one if for each.

Written from the manual pages, with none of the code under test: it works on plain numbers, class
by class, bit by bit. Slow and long on purpose.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    kind: str  # "file", "dir", "link"
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class User:
    uid: int
    groups: tuple[int, ...]  # effective group first


def may(file: File, user: User, letter: str) -> bool:
    position = {"r": 2, "w": 1, "x": 0}[letter]
    if user.uid == 0:
        if letter in "rw":
            return True
        if file.kind == "dir":
            return True
        return any((file.mode >> shift) % 2 == 1 for shift in (0, 3, 6))
    if user.uid == file.uid:
        digit = (file.mode // 64) % 8
    elif file.gid in user.groups:
        digit = (file.mode // 8) % 8
    else:
        digit = file.mode % 8
    return (digit >> position) % 2 == 1


def remove_errno(directory: File, victim: File, user: User) -> str | None:
    if not may(directory, user, "w") or not may(directory, user, "x"):
        return "EACCES"
    is_sticky = (directory.mode // 512) % 2 == 1
    if not is_sticky or user.uid == 0:
        return None
    if user.uid == victim.uid:
        return None
    if user.uid == directory.uid:
        return None
    return "EPERM"


def mode_after_chmod(file: File, user: User, mode: int) -> int | None:
    """None: EPERM."""
    if user.uid != 0 and user.uid != file.uid:
        return None
    has_setgid = (mode // 1024) % 2 == 1
    if has_setgid and user.uid != 0 and file.gid not in user.groups:
        return mode - 1024
    return mode


def may_chown(file: File, user: User, uid: int | None, gid: int | None) -> bool:
    if user.uid == 0:
        return True
    if uid is None and gid is None:
        return user.uid == file.uid
    uid_ok = uid is None or (user.uid == file.uid and uid == file.uid)
    gid_ok = gid is None or (user.uid == file.uid and (gid == file.gid or gid in user.groups))
    return uid_ok and gid_ok


def mode_after_write(file: File, user: User) -> int:
    if file.kind == "dir":
        return file.mode
    mode = file.mode
    if (mode // 2048) % 2 == 1:
        mode -= 2048
    if (mode // 1024) % 2 == 1:
        group_may_execute = (mode // 8) % 2 == 1
        outsider = user.uid != 0 and file.gid not in user.groups
        if group_may_execute or outsider:
            mode -= 1024
    return mode


def child(directory: File, user: User, mode: int, kind: str) -> tuple[int, int]:
    """(mode, gid)."""
    if (directory.mode // 1024) % 2 == 0:
        return mode, user.groups[0]
    has_setgid = (mode // 1024) % 2 == 1
    if kind == "dir":
        return (mode if has_setgid else mode + 1024), directory.gid
    group_may_execute = (mode // 8) % 2 == 1
    outsider = user.uid != 0 and directory.gid not in user.groups
    if has_setgid and group_may_execute and outsider:
        return mode - 1024, directory.gid
    return mode, directory.gid


def may_link(file: File, user: User) -> bool:
    if user.uid == 0 or user.uid == file.uid:
        return True
    if file.kind != "file":
        return False
    if (file.mode // 2048) % 2 == 1:
        return False
    if (file.mode // 1024) % 2 == 1 and (file.mode // 8) % 2 == 1:
        return False
    return may(file, user, "r") and may(file, user, "w")
