"""LINK: one more name for an inode that is no directory; the first one for what O_TMPFILE made."""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, session
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import no_inode, refuse
from fs3.meta.inode import LINKABLE, Inode
from fs3.meta.permission import EXECUTE, WRITE, may_link, require, require_changeable


def link(txn: Transaction, request: meta_pb2.LinkRequest, context: Context) -> meta_pb2.EntryReply:
    inode = inodes.load(txn, request.inode, "link")
    directory = inodes.load_directory(txn, request.parent, "link")
    require(directory, context.caller, EXECUTE, "link")
    dirent.check_name(request.name, "link")
    if dirent.find(txn, request.parent, request.name) is not None:
        raise refuse(errno.EEXIST, "link", f"{request.name!r} exists")
    if inode.is_directory or not may_link(inode, context.caller):
        raise refuse(errno.EPERM, "link", f"no hard link to inode {inode.number} for this caller")
    require_changeable(inode, "link")
    if directory.nlink == 0:
        raise refuse(errno.ENOENT, "link", f"directory {directory.number} was removed")
    require(directory, context.caller, WRITE | EXECUTE, "link")
    if inode.nlink == 0:
        _begin_names(txn, inode, context)
    if inode.nlink >= limits.LINKS_MAX:
        raise refuse(errno.EMLINK, "link", f"inode {inode.number} has {inode.nlink} names")
    dirent.store(txn, directory.number, request.name, inode.number, inode.type)
    directory.touch(context.now_ns)
    inodes.store(txn, directory)
    inode.nlink += 1
    inode.ctime_ns = context.now_ns
    inodes.store(txn, inode)
    return meta_pb2.EntryReply(entry=context.entry(inode))


def _begin_names(txn: Transaction, inode: Inode, context: Context) -> None:
    """Of a file that lost its last name the removal has begun; one that never had a name may get
    one from the client that has it open."""
    held = inode.flags & LINKABLE and session.is_held_by(txn, inode.number, context.client)
    if not held or not garbage.take_back(txn, inode):
        raise no_inode("link", inode.number)
    inode.flags &= ~LINKABLE
