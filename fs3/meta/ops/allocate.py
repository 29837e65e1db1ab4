"""ALLOCATE: fallocate(2) as far as the service is concerned: is there room, and the length.

Nothing is reserved (native/client/space.h says why). ENOSPC and EDQUOT are certain: so much is
missing at least that the free space, or what a quota leaves, does not take it at this moment. The
length only grows, as by writes, so it needs no truncate: other writers may go on.
"""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import session
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import FILE, Inode
from fs3.meta.permission import WRITE, Caller, require
from fs3.meta.privileges import drop_privileges
from fs3.meta.quota import Usage, require_room
from fs3.meta.truncate import wait_for_intent


def allocate(
    txn: Transaction, request: meta_pb2.AllocateRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "allocate")
    if inode.type != FILE:
        raise refuse(errno.EINVAL, "allocate", f"inode {inode.number} is no regular file")
    held = session.find(txn, inode.number, request.session) if request.session else None
    if held is None or held.client != context.client:
        held = None
        require(inode, context.caller, WRITE, "allocate")
    end = request.offset + request.length
    if request.length == 0:
        raise refuse(errno.EINVAL, "allocate", "length: is 0")
    if end > limits.FILE_BYTES_MAX:
        raise refuse(errno.EFBIG, "allocate", f"end: {end}, at most {limits.FILE_BYTES_MAX}")
    wait_for_intent(txn, inode)
    _require_room(txn, inode, request.length, context)
    inode.ctime_ns = context.now_ns
    writer = Caller(held.uid, held.gid) if held is not None else context.caller
    drop_privileges(txn, inode, writer, root_keeps_mode=True)
    if end > inode.size and not request.keep_size:
        inode.resize(end)
        inode.data_version += 1
        inode.mtime_ns = context.now_ns
        inode.mtime_set_ns = 0
    inodes.store(txn, inode)
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))


def _require_room(txn: Transaction, inode: Inode, length: int, context: Context) -> None:
    missing = max(0, length - inode.stored)
    require_room(txn, context.env.limited, inode.charge(), Usage(missing, 0), "allocate")
    space = context.env.space()
    if not space.capacity_bytes:
        return  # the manager has not told yet
    free = int(space.free_bytes / context.env.layouts.replication)
    if missing > free:
        raise refuse(errno.ENOSPC, "allocate", f"{missing} bytes more are needed, {free} are free")
