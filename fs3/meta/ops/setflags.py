"""SETFLAGS: chattr(1). The owner's business; immutable and append-only are root's."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import APPEND_ONLY, CHATTR_FLAGS, DIRECTORY, FILE, IMMUTABLE
from fs3.meta.permission import require_owner


def setflags(
    txn: Transaction, request: meta_pb2.SetFlagsRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "setflags")
    if request.flags & ~CHATTR_FLAGS:
        detail = f"flags: {request.flags:#x} has bits beyond {CHATTR_FLAGS:#x} (chattr +iadA)"
        raise refuse(errno.EOPNOTSUPP, "setflags", detail)
    if inode.type not in (FILE, DIRECTORY):
        raise refuse(errno.ENOTTY, "setflags", f"inode {inode.number} is no file and no directory")
    require_owner(inode, context.caller, "setflags")
    changed = (inode.flags ^ request.flags) & CHATTR_FLAGS
    if changed & (IMMUTABLE | APPEND_ONLY) and not context.caller.is_root:
        raise refuse(errno.EPERM, "setflags", "flags: only root changes immutable and append-only")
    inode.flags ^= changed
    inode.ctime_ns = context.now_ns
    inodes.store(txn, inode)
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))
