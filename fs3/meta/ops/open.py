"""OPEN: permission, O_TRUNC, and for writers a session. Readers leave no trace in the KV.

The reply carries a capability for the data path, minted after the commit (store.py);
`context.rights` says which.
"""

import errno
import os

from fs3._proto import meta_pb2
from fs3.auth.capability import RIGHT_READ, RIGHT_TRUNCATE, RIGHT_WRITE
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import session
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import DIRECTORY, FILE, SYMLINK, WRITABLE, Inode
from fs3.meta.permission import (
    EXECUTE,
    READ,
    WRITE,
    allowed,
    require,
    require_changeable,
    require_owner,
)
from fs3.meta.session import Session
from fs3.meta.truncate import truncate, wait_for_intent
from fs3.runtime.failpoint import failpoint

FMODE_EXEC = 0x20  # the kernel's own flag of an open by execve(2); no O_ name exists


def open_(txn: Transaction, request: meta_pb2.OpenRequest, context: Context) -> meta_pb2.OpenReply:
    inode = inodes.load(txn, request.inode, "open")
    return open_existing(txn, inode, request.flags, context)


def writes(flags: int) -> bool:
    """True when the open needs a session."""
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


def open_existing(
    txn: Transaction, inode: Inode, flags: int, context: Context
) -> meta_pb2.OpenReply:
    _check_kind(inode, flags)
    require(inode, context.caller, _wanted(flags), "open")
    if writes(flags) and (flags & os.O_TRUNC or not flags & os.O_APPEND):
        require_changeable(inode, "open")  # the end of an append-only file may be written
    if flags & os.O_NOATIME:
        require_owner(inode, context.caller, "open")
    if inode.type == FILE:
        wait_for_intent(txn, inode)
        if flags & os.O_TRUNC:
            truncate(txn, inode, 0, context, "open")
            inodes.store(txn, inode)
    return grant(txn, inode, flags, context, created=False)


def grant(
    txn: Transaction, inode: Inode, flags: int, context: Context, *, created: bool
) -> meta_pb2.OpenReply:
    """The reply of an open that is allowed."""
    rights = _rights(inode, flags, context) if inode.type == FILE else 0
    if rights & RIGHT_WRITE and not inode.flags & WRITABLE:
        inode.flags |= WRITABLE
        inodes.store(txn, inode)
    reply = meta_pb2.OpenReply(
        attr=inode.attr(), lease=context.lease(inode.number), created=created
    )
    context.rights = rights
    if rights & RIGHT_WRITE:
        context.env.clients.admit_session(
            context.client, lambda: session.count(txn, context.client)
        )
        context.session = reply.session = context.env.new_session()
        context.sessions_change = 1
        held = Session(
            inode.number,
            reply.session,
            context.client,
            context.rights,
            context.now_ns,
            inode.truncate_epoch,
            context.caller.uid,
            context.caller.gid,
        )
        session.create(txn, held)
        failpoint("session.staged")
    return reply


def _check_kind(inode: Inode, flags: int) -> None:
    number = 0
    if inode.type == SYMLINK:
        number = errno.ELOOP
    elif inode.type == DIRECTORY:
        number = errno.EISDIR if writes(flags) or flags & os.O_CREAT else 0
    elif flags & os.O_DIRECTORY:
        number = errno.ENOTDIR
    elif inode.type != FILE:
        number = errno.ENXIO  # pipes, sockets and devices are opened by the kernel, not here
    if number:
        raise refuse(number, "open", f"inode {inode.number} of type {inode.type}, flags {flags:#o}")


def _wanted(flags: int) -> int:
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY and flags & FMODE_EXEC:
        return EXECUTE
    want = {os.O_RDONLY: READ, os.O_WRONLY: WRITE}.get(access, READ | WRITE)
    return want | (WRITE if flags & os.O_TRUNC else 0)


def _rights(inode: Inode, flags: int, context: Context) -> int:
    """A writer may also read where the mode lets it: a cache in front has to fill partial pages."""
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY:
        return RIGHT_READ
    rights = RIGHT_WRITE | RIGHT_TRUNCATE
    if access != os.O_WRONLY or allowed(inode, context.caller, READ):
        rights |= RIGHT_READ
    return rights
