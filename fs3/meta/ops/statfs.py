"""STATFS: space of the targets divided by the number of copies; below a directory with a quota,
what that leaves of it."""

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import quota
from fs3.meta.context import Context

BLOCK_BYTES = 4096
INODES_MAX = 1 << 40  # what df shows; ids end at 2^64


def statfs(
    txn: Transaction, request: meta_pb2.StatfsRequest, context: Context
) -> meta_pb2.StatfsReply:
    space = context.env.space()
    replication = context.env.layouts.replication
    used = context.env.allocator.issued  # removed ones included: counting them would be a hot key
    reply = meta_pb2.StatfsReply(
        capacity_bytes=int(space.capacity_bytes / replication),
        free_bytes=int(space.free_bytes / replication),
        inodes=INODES_MAX,
        inodes_free=max(INODES_MAX - used, 0),
        block_size=BLOCK_BYTES,
        name_max=limits.NAME_BYTES_MAX,
    )
    if request.inode:
        _bound(txn, request.inode, reply)
    return reply


def _bound(txn: Transaction, number: int, reply: meta_pb2.StatfsReply) -> None:
    inode = inodes.find(txn, number)
    account = quota.Account(quota.TREE, inode.quota if inode is not None else 0)
    limit = quota.find_limit(txn, account) if account.id else None
    if limit is None or limit.counting:
        return
    used = quota.usage(txn, account)
    if limit.bytes:
        reply.capacity_bytes = min(reply.capacity_bytes, limit.bytes)
        reply.free_bytes = min(reply.free_bytes, max(limit.bytes - used.bytes, 0))
    if limit.inodes:
        reply.inodes = min(reply.inodes, limit.inodes)
        reply.inodes_free = min(reply.inodes_free, max(limit.inodes - used.inodes, 0))
