"""ACCESS: what access(2) asks. The answer is for the present: an open decides anew."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request
from fs3.meta.permission import EXECUTE, READ, WRITE, require


def access(
    txn: Transaction, request: meta_pb2.AccessRequest, context: Context
) -> meta_pb2.AttrReply:
    if request.mask & ~(READ | WRITE | EXECUTE):
        raise bad_request("access", f"mask: {request.mask:#o} has bits beyond 7")
    inode = inodes.load(txn, request.inode, "access")
    require(inode, context.caller, request.mask, "access")
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))
