"""SYNC: settle length and times of an open handle, and renew its capability.

`durable` makes the store flush its log before the reply.
"""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import quota, session
from fs3.meta.context import Context
from fs3.meta.inode import FILE
from fs3.meta.permission import WRITE, require
from fs3.meta.settle import settle


def changes(request: meta_pb2.SyncRequest | meta_pb2.CloseRequest) -> bool:
    """True when the handle says that it wrote."""
    return request.wrote or request.written_end > 0


def sync(txn: Transaction, request: meta_pb2.SyncRequest, context: Context) -> meta_pb2.OpenReply:
    inode = inodes.load(txn, request.inode, "sync")
    if changes(request) and inode.type == FILE:
        held = settle_request(txn, inode, request, context, "sync")
        inodes.store(txn, inode)
    else:
        held = session.find(txn, inode.number, request.session)
    reply = meta_pb2.OpenReply(attr=inode.attr(), lease=context.lease(inode.number))
    if held is not None and held.client == context.client:
        context.rights = held.rights
        context.session = reply.session = held.id
        reply.quota = quota.state(txn, context.env.limited, inode.charge())  # type: ignore[assignment]
    return reply


def settle_request(
    txn: Transaction,
    inode: inodes.Inode,
    request: meta_pb2.SyncRequest | meta_pb2.CloseRequest,
    context: Context,
    where: str,
) -> session.Session | None:
    """For SYNC and CLOSE. A session that is gone (its client was silent and pruned) does not lose
    the bytes that storage has: they are measured, and the caller must be allowed to write."""
    held = session.find(txn, inode.number, request.session)
    if held is not None and held.client != context.client:
        held = None
    if held is None:
        require(inode, context.caller, WRITE, where)
    mtime_ns = request.mtime_ns if request.HasField("mtime_ns") else None
    settle(
        txn,
        inode,
        held,
        context,
        written_end=request.written_end,
        mtime_ns=mtime_ns,
        measure=request.measure,
        where=where,
    )
    context.env.clients.seen(context.client)
    return held
