"""O_TMPFILE: a file without a name, in the directory that is opened; a kind of CREATE.

It lives as long as its session, which keeps it in the gc queue untouched: when it is closed, or its
client is gone, it goes as any file without a name. Without O_EXCL the client that has it open may
give it a name (LINK), which takes it out of the queue.
"""

import errno
import os

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import garbage
from fs3.meta import inode as inodes
from fs3.meta.birth import new_inode
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import FILE, LINKABLE, WRITABLE
from fs3.meta.ops.open import grant

O_TMPFILE = os.O_TMPFILE


def tmpfile(
    txn: Transaction, request: meta_pb2.CreateRequest, context: Context
) -> meta_pb2.OpenReply:
    directory = inodes.load_directory(txn, request.parent, "tmpfile")
    if request.flags & os.O_ACCMODE not in (os.O_WRONLY, os.O_RDWR):
        raise refuse(errno.EINVAL, "tmpfile", "flags: a file without a name is opened for writing")
    inode = new_inode(txn, directory, FILE, request.mode & 0o7777, context, "tmpfile")
    inode.nlink = 0
    inode.flags |= WRITABLE if request.flags & os.O_EXCL else WRITABLE | LINKABLE
    layouts = context.env.layouts
    inode.layout = layouts.for_file(directory.layout, request.layout, inode.number)
    inodes.store(txn, inode)
    garbage.put(txn, inode.number, inode.btime_ns)
    return grant(txn, inode, request.flags, context, created=True)
