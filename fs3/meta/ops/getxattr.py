"""GETXATTR."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import xattr
from fs3.meta.context import Context
from fs3.meta.namespaces import no_attribute, require_read


def getxattr(
    txn: Transaction, request: meta_pb2.GetXattrRequest, context: Context
) -> meta_pb2.GetXattrReply:
    inode = inodes.load(txn, request.inode, "getxattr")
    require_read(inode, request.name, context.caller, "getxattr")
    value = xattr.find(txn, inode, request.name)
    if value is None:
        raise no_attribute(inode, request.name, "getxattr")
    return meta_pb2.GetXattrReply(value=value)
