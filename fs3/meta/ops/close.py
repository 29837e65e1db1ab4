"""CLOSE: sync's work, and the end of the session."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import appends, session
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.inode import FILE
from fs3.meta.ops.sync import changes, settle_request


def close(txn: Transaction, request: meta_pb2.CloseRequest, context: Context) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "close")
    if changes(request) and inode.type == FILE:
        held = settle_request(txn, inode, request, context, "close")
        inodes.store(txn, inode)
    else:
        held = session.find(txn, inode.number, request.session)
    if held is not None and held.client == context.client:
        session.remove(txn, held)
        if not session.is_open_for_write(txn, inode.number):
            appends.forget_settled(txn, inode)
        context.sessions_change = -1
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))
