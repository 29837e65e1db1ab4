"""The gc queue: inodes without a name, oldest first. Key: GARB (fs3/kv/keys.py); worker: gc.py.

The time in the key only orders the queue. It never runs backwards (GarbageOrder), so "everything
up to this key was queued before now" stays true when the wall clock jumps.
"""

import struct

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.inode import Inode

SCHEMA = 1
UNKNOWN = (1 << 64) - 1  # nobody has asked storage yet where the data ends
_RECORD = struct.Struct("<BQ")


class GarbageOrder:
    """Positions in the queue: strictly growing, near the wall clock."""

    def __init__(self, last: int = 0) -> None:
        self._last = last

    @classmethod
    def resume(cls, txn: Transaction) -> "GarbageOrder":
        begin, end = keys.GARBAGE, keys.prefix_end(keys.GARBAGE)
        newest = txn.get_range(begin, end, limit=1, reverse=True, snapshot=True)
        return cls(keys.garbage_fields(newest[0][0])[0] if newest else 0)

    def next(self, now_ns: int) -> int:
        self._last = max(self._last + 1, now_ns)
        return self._last


def encode(remaining_bytes: int) -> bytes:
    return _RECORD.pack(SCHEMA, remaining_bytes)


def decode(key: bytes, record: bytes) -> int:
    """How much of the file storage may still hold, in bytes from its start, or UNKNOWN."""
    if len(record) != _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/garbage {key.hex()}",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    remaining: int = _RECORD.unpack(record)[1]
    return remaining


def drop_link(txn: Transaction, inode: Inode, order: GarbageOrder, now_ns: int) -> bool:
    """One name of `inode` is gone, and it is stored so; True when that was the last one, which
    puts it into the queue in the same transaction. A directory has one name whatever its nlink
    says."""
    inode.nlink = 0 if inode.is_directory else inode.nlink - 1
    inode.ctime_ns = now_ns
    inodes.store(txn, inode)
    if inode.nlink:
        return False
    txn.set(keys.garbage(order.next(now_ns), inode.number), encode(UNKNOWN))
    return True
