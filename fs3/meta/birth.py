"""What every new inode begins with: owner, group, mode, ACLs and trash by its directory, and its
times."""

import errno

from fs3.kv.api import Transaction
from fs3.meta import acl, dirent, xattr
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import DIRECTORY, SYMLINK, Inode
from fs3.meta.permission import EXECUTE, WRITE, inherited, require
from fs3.meta.quota import Charge, Usage, require_room
from fs3.runtime.failpoint import failpoint
from fs3.trash import KEEPS

__all__ = ["make_child", "make_reserved", "new_inode"]


def make_child(
    txn: Transaction,
    directory: Inode,
    name: bytes,
    kind: int,
    mode: int,
    context: Context,
    where: str,
) -> Inode:
    """A new inode under a name that is free, and the changes of its directory, stored; the inode
    itself is for the caller to complete and store. `mode` is as it was asked for: the default ACL
    of the directory bounds it, or else the umask."""
    inode = new_inode(txn, directory, kind, mode, context, where)
    dirent.store(txn, directory.number, name, inode.number, kind)
    failpoint("entry_staged", where)
    directory.add_subdirectories(inode.is_directory)
    directory.touch(context.now_ns)
    inodes.store(txn, directory)
    return inode


def new_inode(
    txn: Transaction, directory: Inode, kind: int, mode: int, context: Context, where: str
) -> Inode:
    """As make_child, before it has a name."""
    require(directory, context.caller, WRITE | EXECUTE, where)
    if directory.nlink == 0:
        raise refuse(errno.ENOENT, where, f"directory {directory.number} was removed")
    require_room(
        txn, context.env.limited, Charge(context.caller.uid, directory.quota, 0), Usage(0, 1), where
    )
    is_directory = kind == DIRECTORY
    mode, gid = inherited(directory, context.caller, mode, is_directory=is_directory)
    number = context.new_inode()
    now_ns = context.now_ns
    inode = Inode(
        number=number,
        type=kind,
        mode=mode,
        nlink=2 if is_directory else 1,
        uid=context.caller.uid,
        gid=gid,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        btime_ns=now_ns,
        parent=directory.number if is_directory else 0,
        quota=directory.quota,
    )
    _apply_default_acl(txn, directory, inode, context.umask)
    if is_directory and directory.flags & xattr.KEEPS_TRASH:
        xattr.store(txn, inode, KEEPS, xattr.find(txn, directory, KEEPS) or b"0")
    return inode


def make_reserved(
    txn: Transaction,
    parent: Inode,
    name: bytes,
    number: int,
    owner: tuple[int, int],
    mode: int,
    now_ns: int,
) -> Inode:
    """A directory that the service itself needs, stored, and its parent. It takes nothing from the
    parent. `owner`: uid, gid."""
    inode = inodes.root(now_ns)
    inode.number, inode.parent, inode.mode = number, parent.number, mode
    inode.uid, inode.gid = owner
    inodes.store(txn, inode)
    dirent.store(txn, parent.number, name, number, DIRECTORY)
    parent.add_subdirectories(1)
    parent.touch(now_ns)
    inodes.store(txn, parent)
    return inode


def _apply_default_acl(txn: Transaction, directory: Inode, inode: Inode, umask: int) -> None:
    """What a directory says about its children is instead of the umask, acl(5)."""
    if inode.type == SYMLINK:
        return
    default = xattr.load_acl(txn, directory, acl.DEFAULT)
    if default is None:
        inode.mode &= ~umask
        return
    inode.mode, access = default.inherited(inode.mode)
    xattr.store_acl(txn, inode, acl.ACCESS, None if access.is_mode else access)
    if inode.is_directory:
        xattr.store_acl(txn, inode, acl.DEFAULT, default)
