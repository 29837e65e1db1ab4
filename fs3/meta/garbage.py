"""The gc queue: inodes without a name. Keys: GARB, GEPO (fs3/kv/keys.py); worker: gc.py.

The time in the key orders the queue for those who look at it, and decides nothing: clocks jump,
and several services have several. What decides is the epoch in the row, a counter in the KV that
every transaction reads when it adds a row: once the counter was moved from e to e + 1, every row
of epoch e is there, for whoever would add another one conflicts and runs again.
"""

import struct
from typing import NamedTuple

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.inode import Inode

SCHEMA = 2
UNKNOWN = (1 << 64) - 1  # nobody has asked storage yet where the data ends
_RECORD = struct.Struct("<BQQ")
_RECORD_1 = struct.Struct("<BQ")  # schema 1 had no epoch: older than every one


class Row(NamedTuple):
    remaining: int  # bytes from its start that storage may still hold of the file, or UNKNOWN
    epoch: int

    def encode(self) -> bytes:
        return _RECORD.pack(SCHEMA, *self)


def decode(key: bytes, record: bytes) -> Row:
    if len(record) == _RECORD.size and record[0] == SCHEMA:
        return Row(*_RECORD.unpack(record)[1:])
    if len(record) == _RECORD_1.size and record[0] == 1:
        return Row(_RECORD_1.unpack(record)[1], 0)
    raise Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/garbage {key.hex()}",
        f"record {record[:17].hex()} does not decode; stop the service and run fsck",
    )


def epoch(txn: Transaction) -> int:
    """The present one; the first is 1."""
    return int.from_bytes(txn.get(keys.GARBAGE_EPOCH) or b"\1", "little")


def next_epoch(txn: Transaction) -> int:
    """Moves the counter on. Returns the epoch that has ended."""
    ended = epoch(txn)
    txn.set(keys.GARBAGE_EPOCH, (ended + 1).to_bytes(8, "little"))
    return ended


def put(txn: Transaction, inode: int, now_ns: int) -> None:
    """Into the queue."""
    txn.set(keys.garbage(now_ns, inode), Row(UNKNOWN, epoch(txn)).encode())


def take_back(txn: Transaction, inode: Inode) -> bool:
    """Out of the queue again, when it was put there at its birth; False when it is not there."""
    key = keys.garbage(inode.btime_ns, inode.number)
    if txn.get(key) is None:
        return False
    txn.clear(key)
    return True


def drop_link(txn: Transaction, inode: Inode, now_ns: int) -> bool:
    """One name of `inode` is gone, and it is stored so; True when that was the last one, which
    puts it into the queue in the same transaction. A directory has one name whatever its nlink
    says."""
    inode.nlink = 0 if inode.is_directory else inode.nlink - 1
    inode.ctime_ns = now_ns
    inodes.store(txn, inode)
    if inode.nlink:
        return False
    put(txn, inode.number, now_ns)
    return True
