"""MKDIR."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.birth import make_child
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import DIRECTORY
from fs3.meta.permission import EXECUTE, require


def mkdir(
    txn: Transaction, request: meta_pb2.MkdirRequest, context: Context
) -> meta_pb2.EntryReply:
    directory = inodes.load_directory(txn, request.parent, "mkdir")
    require(directory, context.caller, EXECUTE, "mkdir")
    dirent.check_name(request.name, "mkdir")
    if dirent.find(txn, request.parent, request.name) is not None:
        raise refuse(errno.EEXIST, "mkdir", f"{request.name!r} exists")
    mode = request.mode & 0o1777  # setuid and setgid cannot be asked for
    inode = make_child(txn, directory, request.name, DIRECTORY, mode, context, "mkdir")
    inode.layout = context.env.layouts.for_directory(directory.layout, request.layout)
    inodes.store(txn, inode)
    return meta_pb2.EntryReply(entry=context.entry(inode))
