"""SYMLINK: the target is bytes to us; it need not exist."""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.birth import make_child
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import SYMLINK
from fs3.meta.permission import EXECUTE, require


def symlink(
    txn: Transaction, request: meta_pb2.SymlinkRequest, context: Context
) -> meta_pb2.EntryReply:
    directory = inodes.load_directory(txn, request.parent, "symlink")
    require(directory, context.caller, EXECUTE, "symlink")
    dirent.check_name(request.name, "symlink")
    target = request.target
    if len(target) > limits.SYMLINK_BYTES_MAX:
        raise refuse(errno.ENAMETOOLONG, "symlink", f"target: {len(target)} bytes, at most 4095")
    if not target:
        raise refuse(errno.ENOENT, "symlink", "target: empty")
    if b"\0" in target:
        raise refuse(errno.EINVAL, "symlink", "target: holds a NUL")
    if dirent.find(txn, request.parent, request.name) is not None:
        raise refuse(errno.EEXIST, "symlink", f"{request.name!r} exists")
    inode = make_child(txn, directory, request.name, SYMLINK, 0o777, context, "symlink")
    inode.target = target
    inode.size = len(target)
    inodes.store(txn, inode)
    return meta_pb2.EntryReply(entry=context.entry(inode))
