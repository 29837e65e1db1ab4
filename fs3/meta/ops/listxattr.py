"""LISTXATTR: all names at once; their bytes are bounded. Needs no permission, as listxattr(2)."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import xattr
from fs3.meta.context import Context
from fs3.meta.namespaces import may_list


def listxattr(
    txn: Transaction, request: meta_pb2.ListXattrRequest, context: Context
) -> meta_pb2.ListXattrReply:
    inode = inodes.load(txn, request.inode, "listxattr")
    names = [name for name in xattr.sizes(txn, inode) if may_list(name, context.caller)]
    return meta_pb2.ListXattrReply(names=names)
