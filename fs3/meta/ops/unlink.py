"""UNLINK: a name of anything but a directory. The chunks of the last name's inode go later
(gc.py), or it is kept for a while (trash.py)."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, trash
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.permission import EXECUTE, require, require_removal
from fs3.runtime.failpoint import failpoint


def unlink(
    txn: Transaction, request: meta_pb2.UnlinkRequest, context: Context
) -> meta_pb2.RemoveReply:
    directory = inodes.load_directory(txn, request.parent, "unlink")
    require(directory, context.caller, EXECUTE, "unlink")
    dirent.check_name(request.name, "unlink")
    victim = dirent.load(txn, request.parent, request.name, "unlink")
    inode = inodes.load(txn, victim.inode, "unlink")
    require_removal(directory, inode, context.caller, "unlink")
    if inode.is_directory:
        raise refuse(errno.EISDIR, "unlink", f"{request.name!r} is a directory")
    dirent.remove(txn, request.parent, request.name)
    failpoint("unlink.entry_gone")
    directory.touch(context.now_ns)
    inodes.store(txn, directory)
    kept = trash.keep(txn, directory, request.name, inode, context)
    last = not kept and garbage.drop_link(txn, inode, context.now_ns)
    return meta_pb2.RemoveReply(inode=inode.number, last=last)
