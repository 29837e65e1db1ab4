"""LOCK: fcntl(2) and flock(2) locks. Whether the handle may lock (open for reading or writing) has
been checked by the kernel, or by the library, of the client that has it."""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request, refuse
from fs3.meta.inode import FILE
from fs3.meta.locks import Granted
from fs3.meta.ranges import END_MAX, FLOCK, UNLOCK, Owner, Range

Request = meta_pb2.LockRequest
Reply = meta_pb2.LockReply


def changes(request: Request) -> bool:
    return request.action != Request.TEST


def lock(txn: Transaction, request: Request, context: Context) -> Reply:
    _check(request, context)
    owner = Owner(context.client, request.owner)
    if request.action == Request.TEST:
        return _test(txn, request, owner, context)
    locks = context.env.locks
    if request.action == Request.CANCEL:
        if locks.cancel(txn, request.inode, owner, request.ticket):
            context.locks_ended.append((request.inode, owner, request.ticket, Reply.CANCELLED))
            return Reply(state=Reply.CANCELLED)
        wanted = Range(request.start, request.end, request.type, request.pid)
        held = locks.holds(txn, request.inode, owner, request.kind, wanted)
        return Reply(state=Reply.GRANTED if held else Reply.CANCELLED)
    if request.action == Request.RELEASE:
        granted = locks.release(txn, request.inode, lambda other: other == owner, (request.kind,))
        state = Reply.GRANTED
    else:
        state, granted = _set(txn, request, owner, context)
    context.locks_ended += [(*each, Reply.GRANTED) for each in granted]
    return Reply(state=state)


def _set(
    txn: Transaction, request: Request, owner: Owner, context: Context
) -> tuple[Reply.State, list[Granted]]:
    if request.type != UNLOCK:
        _require_file(txn, request.inode)
    locks = context.env.locks
    wanted = Range(request.start, request.end, request.type, request.pid)
    if not request.wait or request.type == UNLOCK:
        held, granted = locks.set(txn, request.inode, owner, request.kind, wanted)
        return Reply.GRANTED if held else Reply.REFUSED, granted
    held, granted = locks.wait(txn, request.inode, owner, request.kind, wanted, request.ticket)
    if not held:
        context.lock_wait = (request.inode, owner, request.ticket)
    return Reply.GRANTED if held else Reply.WAITING, granted


def _test(txn: Transaction, request: Request, owner: Owner, context: Context) -> Reply:
    found = context.env.locks.conflict(
        txn, request.inode, owner, request.kind, request.start, request.end, request.type
    )
    if found is None:
        return Reply(state=Reply.GRANTED)
    (client, _), held = found
    return Reply(
        state=Reply.REFUSED,
        type=held.type,  # type: ignore[arg-type]
        start=held.start,
        end=held.end,
        pid=held.pid,
        elsewhere=client != context.client,
    )


def _require_file(txn: Transaction, number: int) -> None:
    inode = inodes.load(txn, number, "lock")
    if inode.type != FILE:
        raise refuse(errno.EBADF, "lock", f"inode {number} is no regular file")


def _check(request: Request, context: Context) -> None:
    """Numbers of an enum that this version does not know stay what they are in proto3."""
    if not context.client:
        raise bad_request("lock", "header.client_id: locks belong to a client")
    if request.kind not in Request.Kind.values() or request.type not in Request.Type.values():
        raise bad_request("lock", f"kind {request.kind}, type {request.type}: not known")
    if request.action not in Request.Action.values():
        raise bad_request("lock", f"action: {request.action} is not known")
    if not request.start <= request.end <= END_MAX:
        raise bad_request("lock", f"end: {request.end}, the start is {request.start}")
    if request.kind == FLOCK and (request.start, request.end) != (0, END_MAX):
        raise bad_request("lock", "start, end: flock locks the whole file")
    if request.wait and not request.ticket:
        raise bad_request("lock", "ticket: a wait needs one")
