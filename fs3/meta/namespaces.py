"""Extended attributes by the first word of their name: who may read and change them, as Linux does
(xattr(7)).

| name | read | change |
|---|---|---|
| `user.*` (files, directories) | read permission | write permission; if it is sticky, the owner |
| `trusted.*` | root | root |
| `security.*` | everybody | root |
| `system.posix_acl_access`, `.._default` | everybody | the owner; not on symbolic links |
| `system.fs3.removed_from` | everybody | nobody: what is in the trash has it (trash.py) |
| anything else | EOPNOTSUPP | EOPNOTSUPP |

What must not be read does not exist (ENODATA). Nothing immutable or append-only is changed.
"""

import errno

from fs3 import limits
from fs3.meta.acl import ACCESS, DEFAULT
from fs3.meta.faults import refuse
from fs3.meta.inode import DIRECTORY, FILE, STICKY, SYMLINK, Inode
from fs3.meta.permission import (
    READ,
    WRITE,
    Caller,
    require,
    require_changeable,
    require_owner,
)
from fs3.trash import REMOVED_FROM

__all__ = ["is_acl", "may_list", "no_attribute", "require_change", "require_read"]

PREFIXES = (b"user.", b"trusted.", b"security.")


def is_acl(name: bytes) -> bool:
    return name in (ACCESS, DEFAULT)


def may_list(name: bytes, caller: Caller) -> bool:
    return caller.is_root or not name.startswith(b"trusted.")


def no_attribute(inode: Inode, name: bytes, where: str) -> Exception:
    return refuse(errno.ENODATA, where, f"inode {inode.number} has no attribute {name!r}")


def require_read(inode: Inode, name: bytes, caller: Caller, where: str) -> None:
    _check_size(name, where)
    if name.startswith(b"trusted.") and not caller.is_root:
        raise no_attribute(inode, name, where)
    if name.startswith(b"user.") and inode.type not in (FILE, DIRECTORY):
        raise no_attribute(inode, name, where)
    if _needs_permission(name):
        require(inode, caller, READ, where)
    _check_kind(inode, name, where)


def require_change(inode: Inode, name: bytes, caller: Caller, where: str) -> None:
    _check_size(name, where)
    require_changeable(inode, where)
    if name.startswith((b"trusted.", b"security.")) and not caller.is_root:
        raise refuse(errno.EPERM, where, f"name: only root changes {name!r}")
    if name.startswith(b"user."):
        if inode.type not in (FILE, DIRECTORY):
            raise refuse(errno.EPERM, where, f"name: {name!r} is for files and directories")
        if inode.is_directory and inode.mode & STICKY:
            require_owner(inode, caller, where)
    if _needs_permission(name):
        require(inode, caller, WRITE, where)
    _check_kind(inode, name, where)
    if name == REMOVED_FROM:
        raise refuse(errno.EPERM, where, f"name: {name!r} is set by removals alone")
    if name == ACCESS or (name == DEFAULT and inode.is_directory):
        require_owner(inode, caller, where)


def _needs_permission(name: bytes) -> bool:
    """Also names of no kind: they are told apart afterwards."""
    return not name.startswith((b"trusted.", b"security.", b"system."))


def _check_size(name: bytes, where: str) -> None:
    if not 0 < len(name) <= limits.XATTR_NAME_BYTES_MAX:
        raise refuse(errno.ERANGE, where, f"name: {len(name)} bytes, 1 to 255 are possible")
    if b"\0" in name:
        raise refuse(errno.EINVAL, where, f"name: {name!r} holds a NUL")


def _check_kind(inode: Inode, name: bytes, where: str) -> None:
    if name in PREFIXES:
        raise refuse(errno.EINVAL, where, f"name: {name!r} is a kind without a name")
    if is_acl(name):
        if inode.type == SYMLINK:
            raise refuse(errno.EOPNOTSUPP, where, "name: a symbolic link has no ACL")
    elif name != REMOVED_FROM and not name.startswith(PREFIXES):
        raise refuse(errno.EOPNOTSUPP, where, f"name: {name!r} is of no known kind, see xattr(7)")
