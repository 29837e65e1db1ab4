"""ACCESSED: when files were read through a mount. Changes nothing but atime: no ctime, no content.

Needs no record of the request: told twice, the second time finds nothing newer.
"""

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request
from fs3.meta.inode import NO_ATIME, REMOVING, Inode
from fs3.meta.permission import READ, allowed


def accessed(
    txn: Transaction, request: meta_pb2.AccessedRequest, context: Context
) -> meta_pb2.AccessedReply:
    if len(request.times) > limits.ACCESS_TIMES_MAX:
        raise bad_request(
            "accessed", f"times: {len(request.times)}, at most {limits.ACCESS_TIMES_MAX}"
        )
    for told in request.times:
        inode = inodes.find(txn, told.inode)
        if inode is None or not _counts(inode, told, context):
            continue
        inode.atime_ns = min(told.atime_ns, context.now_ns)
        inodes.store(txn, inode)
    return meta_pb2.AccessedReply()


def _counts(inode: Inode, told: meta_pb2.AccessTime, context: Context) -> bool:
    newer = told.was_ns <= inode.atime_ns < min(told.atime_ns, context.now_ns)
    kept = inode.flags & (NO_ATIME | REMOVING)
    return newer and not kept and allowed(inode, context.caller, READ)
