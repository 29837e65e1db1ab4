"""STATFS: space of the targets divided by the number of copies."""

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta.context import Context

BLOCK_BYTES = 4096
INODES_MAX = 1 << 40  # what df shows; ids end at 2^64


def statfs(
    txn: Transaction, request: meta_pb2.StatfsRequest, context: Context
) -> meta_pb2.StatfsReply:
    space = context.env.space()
    replication = context.env.layouts.replication
    used = context.env.allocator.issued  # removed ones included: counting them would be a hot key
    return meta_pb2.StatfsReply(
        capacity_bytes=int(space.capacity_bytes / replication),
        free_bytes=int(space.free_bytes / replication),
        inodes=INODES_MAX,
        inodes_free=max(INODES_MAX - used, 0),
        block_size=BLOCK_BYTES,
        name_max=limits.NAME_BYTES_MAX,
    )
