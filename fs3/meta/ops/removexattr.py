"""REMOVEXATTR. An ACL that is not there is removed without a word, as by Linux."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import xattr
from fs3.meta.context import Context
from fs3.meta.namespaces import is_acl, no_attribute, require_change
from fs3.meta.ops.setxattr import set_acl


def removexattr(
    txn: Transaction, request: meta_pb2.RemoveXattrRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "removexattr")
    require_change(inode, request.name, context.caller, "removexattr")
    if is_acl(request.name):
        set_acl(txn, inode, request.name, None, context)
    elif xattr.find(txn, inode, request.name) is None:
        raise no_attribute(inode, request.name, "removexattr")
    else:
        xattr.remove(txn, inode, request.name)
    inode.ctime_ns = context.now_ns
    inodes.store(txn, inode)
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))
