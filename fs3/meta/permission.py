"""Who may do what: POSIX and Linux rules as pure functions. The oracle is
tests/unit/permission_oracle.py.

Access ACLs (acl.py) refine the group class; the flags immutable and append-only bind root as well.
Root (uid 0) may read and write everything, search every directory, and execute what anybody may
execute.
"""

import errno
from typing import NamedTuple

from fs3.errors import Refused
from fs3.meta.faults import refuse
from fs3.meta.inode import APPEND_ONLY, IMMUTABLE, SETGID, SETUID, STICKY, Inode

READ, WRITE, EXECUTE = 4, 2, 1
GROUP_EXECUTE, GROUP_BITS = 0o010, 0o070


class Caller(NamedTuple):
    """Who asks, as the service believes it (identity.py)."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    def in_group(self, gid: int) -> bool:
        return gid == self.gid or gid in self.groups

    @property
    def all_groups(self) -> frozenset[int]:
        return self.groups | {self.gid}


def allowed(inode: Inode, caller: Caller, want: int) -> bool:
    """True when all bits of `want` are granted. Exactly one class counts: owner, else the access
    ACL, else group, else others. An ACL whose mask grants nothing is not looked at, as in Linux:
    whom it names is then one of the others, unless he is in the group."""
    mode = inode.mode
    if caller.uid == 0:
        return not want & EXECUTE or inode.is_directory or bool(mode & 0o111)
    if caller.uid == inode.uid:
        granted = mode >> 6
    elif inode.acl is not None and mode & GROUP_BITS:
        return inode.acl.allows(caller.uid, caller.all_groups, inode.gid, want)
    elif caller.in_group(inode.gid):
        granted = mode >> 3
    else:
        granted = mode
    return granted & want == want


def require(inode: Inode, caller: Caller, want: int, where: str) -> None:
    if want & WRITE and inode.flags & IMMUTABLE:
        raise _unchangeable(inode, where)
    if not allowed(inode, caller, want):
        bits = "".join(c for c, bit in (("r", 4), ("w", 2), ("x", 1)) if want & bit)
        raise refuse(errno.EACCES, where, f"uid {caller.uid} has no {bits} on inode {inode.number}")


def require_changeable(inode: Inode, where: str) -> None:
    """Attributes, names and what is left of the content: neither immutable nor append-only."""
    if inode.flags & (IMMUTABLE | APPEND_ONLY):
        raise _unchangeable(inode, where)


def _unchangeable(inode: Inode, where: str) -> Refused:
    kind = "immutable" if inode.flags & IMMUTABLE else "append-only"
    return refuse(errno.EPERM, where, f"inode {inode.number} is {kind}; see chattr(1)")


def require_owner(inode: Inode, caller: Caller, where: str) -> None:
    if caller.uid not in (0, inode.uid):
        raise refuse(errno.EPERM, where, f"uid {caller.uid} does not own inode {inode.number}")


def require_removal(directory: Inode, victim: Inode, caller: Caller, where: str) -> None:
    """To take a name out of a directory: write and search, and in a sticky one to own either."""
    require(directory, caller, WRITE | EXECUTE, where)
    if directory.flags & APPEND_ONLY:
        raise _unchangeable(directory, where)
    require_changeable(victim, where)
    if directory.mode & STICKY and caller.uid not in (0, victim.uid, directory.uid):
        raise refuse(errno.EPERM, where, f"inode {directory.number} is sticky")


def mode_after_chmod(inode: Inode, caller: Caller, mode: int) -> int:
    """Setgid stays only when the caller is in the group of the file."""
    if not caller.is_root and not caller.in_group(inode.gid):
        mode &= ~SETGID
    return mode


def may_chown(inode: Inode, caller: Caller, uid: int | None, gid: int | None) -> bool:
    """Only root gives a file away; the owner may pass it to a group of his."""
    if caller.is_root:
        return True
    if caller.uid != inode.uid:
        return False
    if uid is not None and uid != inode.uid:
        return False
    return gid is None or gid == inode.gid or caller.in_group(gid)


def mode_without_privileges(inode: Inode, caller: Caller) -> int:
    """After a write, truncate or chown: setuid goes; setgid goes where it means execution, or where
    the caller is not in the group. Directories keep both: there they mean inheritance."""
    mode = inode.mode
    if inode.is_directory:
        return mode
    mode &= ~SETUID
    in_group = caller.is_root or caller.in_group(inode.gid)
    if mode & SETGID and (mode & GROUP_EXECUTE or not in_group):
        mode &= ~SETGID
    return mode


def inherited(
    directory: Inode, caller: Caller, mode: int, *, is_directory: bool
) -> tuple[int, int]:
    """(mode, gid) of a new child; the umask, or a default ACL, takes bits away afterwards."""
    if not directory.mode & SETGID:
        return mode, caller.gid
    if is_directory:
        return mode | SETGID, directory.gid
    in_group = caller.is_root or caller.in_group(directory.gid)
    if mode & SETGID and mode & GROUP_EXECUTE and not in_group:
        mode &= ~SETGID
    return mode, directory.gid


def may_link(inode: Inode, caller: Caller) -> bool:
    """Hard links to files of others: as Linux with fs.protected_hardlinks = 1, the default of every
    distribution. Without it anybody can pin another user's setuid program or fill his quota."""
    if caller.uid in (0, inode.uid):
        return True
    if inode.type != 1 or inode.mode & SETUID:
        return False
    if inode.mode & SETGID and inode.mode & GROUP_EXECUTE:
        return False
    return allowed(inode, caller, READ | WRITE)
