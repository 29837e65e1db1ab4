"""READLINK."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse


def readlink(
    txn: Transaction, request: meta_pb2.ReadlinkRequest, context: Context
) -> meta_pb2.ReadlinkReply:
    inode = inodes.load(txn, request.inode, "readlink")
    if inode.type != inodes.SYMLINK:
        raise refuse(errno.EINVAL, "readlink", f"inode {inode.number} is no symbolic link")
    return meta_pb2.ReadlinkReply(target=inode.target)
