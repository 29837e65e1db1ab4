"""APPEND: the place of the next bytes at the end of a file (appends.py)."""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import appends, session
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import FILE
from fs3.meta.permission import WRITE, require
from fs3.meta.truncate import wait_for_intent


def append(
    txn: Transaction, request: meta_pb2.AppendRequest, context: Context
) -> meta_pb2.AppendReply:
    inode = inodes.load(txn, request.inode, "append")
    if inode.type != FILE:
        raise refuse(errno.EINVAL, "append", f"inode {inode.number} is no regular file")
    held = session.find(txn, inode.number, request.session) if request.session else None
    if held is None or held.client != context.client:
        held = None
        require(inode, context.caller, WRITE, "append")
    wait_for_intent(txn, inode)
    offset = max(inode.size, appends.end_of(txn, inode))
    if held is not None and held.truncate_epoch == inode.truncate_epoch:
        offset = max(offset, request.at_least)
    end = offset + request.length
    if request.length == 0 or end > limits.FILE_BYTES_MAX:
        number = errno.EFBIG if request.length else errno.EINVAL
        raise refuse(number, "append", f"{request.length} bytes at {offset}")
    appends.store(txn, inode, end)
    context.env.clients.seen(context.client)
    return meta_pb2.AppendReply(offset=offset, end=end)
