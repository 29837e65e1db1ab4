"""REMOVE_TREE: a directory and all below it, in one transaction whatever its size.

The name goes at once; the entries go later (tree_removal.py). What may be removed is what the
caller could remove with rm -r, entry by entry, and never more:

1. The first TREE_WALK_RECORDS_MAX records of the tree are looked at before anything happens. When
   the caller may not empty a directory among them, nothing is removed.
2. What lies beyond is judged when its turn comes, in the name of the caller. A subtree that he may
   not remove then has lost its way from the root already: it goes to /lost+found, whole, with its
   owner and mode, for an administrator to give back. 3FS draws the line at the same place, 1,024
   entries, and puts such trees under /trash/gc-orphans; it also asks that the caller owns the
   directory, which rm -r does not.

A directory that keeps what is removed keeps the whole tree (trash.py).

Files that are open stay readable to whoever holds them, as after an unlink.
"""

import errno
from collections import deque

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, trash, tree
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import APPEND_ONLY, IMMUTABLE, STICKY, Inode
from fs3.meta.permission import EXECUTE, READ, WRITE, Caller, allowed, require, require_removal


def remove_tree(
    txn: Transaction, request: meta_pb2.RemoveTreeRequest, context: Context
) -> meta_pb2.RemoveReply:
    directory = inodes.load_directory(txn, request.parent, "remove_tree")
    require(directory, context.caller, EXECUTE, "remove_tree")
    dirent.check_name(request.name, "remove_tree")
    victim = dirent.load(txn, request.parent, request.name, "remove_tree")
    inode = inodes.load(txn, victim.inode, "remove_tree")
    require_removal(directory, inode, context.caller, "remove_tree")
    if not inode.is_directory:
        detail = f"{request.name!r} is no directory: unlink it"
        raise refuse(errno.ENOTDIR, "remove_tree", detail)
    _require_emptying(txn, inode, context.caller)
    dirent.remove(txn, request.parent, request.name)
    directory.add_subdirectories(-1)
    directory.touch(context.now_ns)
    inodes.store(txn, directory)
    if trash.keep(txn, directory, request.name, inode, context):
        return meta_pb2.RemoveReply(inode=inode.number, last=False)
    if dirent.is_empty(txn, inode.number):
        garbage.drop_link(txn, inode, context.now_ns)
    else:
        tree.detach(txn, inode, context.caller, context.now_ns)
    return meta_pb2.RemoveReply(inode=inode.number, last=True)


def may_empty(directory: Inode, caller: Caller) -> bool:
    """List it, and take names out of it."""
    fixed = directory.flags & (IMMUTABLE | APPEND_ONLY)
    return not fixed and allowed(directory, caller, READ | WRITE | EXECUTE)


def may_take(directory: Inode, victim: Inode, caller: Caller) -> bool:
    """With may_empty(directory): this entry too. REQUIRES: that was asked before."""
    owns = not directory.mode & STICKY or caller.uid in (0, victim.uid, directory.uid)
    return owns and not victim.flags & (IMMUTABLE | APPEND_ONLY)


def _require_emptying(txn: Transaction, top: Inode, caller: Caller) -> None:
    """Breadth first over the near part of the tree. Snapshot reads would do: what changes meanwhile
    is judged again when its turn comes."""
    left = limits.TREE_WALK_RECORDS_MAX
    waiting = deque([top])
    while waiting and left > 0:
        directory = waiting.popleft()
        entries = dirent.listing(txn, directory.number, 0, left)[:left]
        if entries and not may_empty(directory, caller):
            detail = f"uid {caller.uid} may not empty directory {directory.number}"
            raise refuse(errno.EACCES, "remove_tree", f"{detail}; nothing was removed")
        for entry in entries:
            inode = inodes.find(txn, entry.inode)
            left -= 1
            if inode is not None and not may_take(directory, inode, caller):
                detail = f"{entry.name!r} of directory {directory.number} is not for uid"
                detail = f"{detail} {caller.uid} to remove; nothing was removed"
                raise refuse(errno.EPERM, "remove_tree", detail)
            if inode is not None and inode.is_directory:
                waiting.append(inode)
