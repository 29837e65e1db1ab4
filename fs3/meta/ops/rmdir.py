"""RMDIR. The inode stays in the gc queue for a while: holders of the directory can still stat
it."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, trash
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.permission import EXECUTE, require, require_removal


def rmdir(
    txn: Transaction, request: meta_pb2.RmdirRequest, context: Context
) -> meta_pb2.RemoveReply:
    directory = inodes.load_directory(txn, request.parent, "rmdir")
    require(directory, context.caller, EXECUTE, "rmdir")
    dirent.check_name(request.name, "rmdir")
    victim = dirent.load(txn, request.parent, request.name, "rmdir")
    inode = inodes.load(txn, victim.inode, "rmdir")
    require_removal(directory, inode, context.caller, "rmdir")
    if not inode.is_directory:
        raise refuse(errno.ENOTDIR, "rmdir", f"{request.name!r} is not a directory")
    if not dirent.is_empty(txn, inode.number):
        raise refuse(errno.ENOTEMPTY, "rmdir", f"{request.name!r} has entries")
    dirent.remove(txn, request.parent, request.name)
    directory.add_subdirectories(-1)
    directory.touch(context.now_ns)
    inodes.store(txn, directory)
    kept = trash.keep(txn, directory, request.name, inode, context)
    last = not kept and garbage.drop_link(txn, inode, context.now_ns)
    return meta_pb2.RemoveReply(inode=inode.number, last=last)
