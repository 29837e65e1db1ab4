"""CREATE: open(O_CREAT) and mknod. With `open`, an existing file is opened unless O_EXCL; with
O_TMPFILE the file gets no name (tmpfile.py)."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.birth import make_child
from fs3.meta.context import Context
from fs3.meta.faults import bad_request, refuse
from fs3.meta.inode import BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FILE, SYMLINK, WRITABLE
from fs3.meta.ops.open import grant, open_existing, writes
from fs3.meta.ops.tmpfile import O_TMPFILE, tmpfile
from fs3.meta.permission import EXECUTE, require


def create(
    txn: Transaction, request: meta_pb2.CreateRequest, context: Context
) -> meta_pb2.OpenReply:
    kind = request.type or FILE
    if kind in (DIRECTORY, SYMLINK) or (request.open and kind != FILE):
        raise bad_request("create", f"type: {kind} cannot be made by this call")
    if request.open and request.flags & O_TMPFILE == O_TMPFILE:
        return tmpfile(txn, request, context)
    directory = inodes.load_directory(txn, request.parent, "create")
    require(directory, context.caller, EXECUTE, "create")
    dirent.check_name(request.name, "create")
    existing = dirent.find(txn, request.parent, request.name)
    if existing is not None:
        if request.exclusive or not request.open:
            raise refuse(errno.EEXIST, "create", f"{request.name!r} exists")
        inode = inodes.load(txn, existing.inode, "create")
        return open_existing(txn, inode, request.flags, context)
    if kind in (CHAR_DEVICE, BLOCK_DEVICE) and not context.caller.is_root:
        raise refuse(errno.EPERM, "create", "only root makes devices")
    mode = request.mode & 0o7777
    inode = make_child(txn, directory, request.name, kind, mode, context, "create")
    inode.rdev = request.rdev if kind in (CHAR_DEVICE, BLOCK_DEVICE) else 0
    if kind == FILE:
        layouts = context.env.layouts
        inode.layout = layouts.for_file(directory.layout, request.layout, inode.number)
        if request.open and writes(request.flags):
            inode.flags |= WRITABLE  # here already: the record is stored once
    inodes.store(txn, inode)
    if request.open:
        # The mode of a new file does not bind its creator: open(O_CREAT | O_RDWR, 0) succeeds.
        return grant(txn, inode, request.flags, context, created=True)
    return meta_pb2.OpenReply(attr=inode.attr(), lease=context.lease(inode.number), created=True)
