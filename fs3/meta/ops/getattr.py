"""GETATTR: by inode, so it works for files without a name as well. Needs no permission, as
fstat(2)."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context


def getattr_(
    txn: Transaction, request: meta_pb2.GetAttrRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "getattr")
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))
