"""Files that are gone, while somebody may still hold a capability to write to them. Key: TOMB
(fs3/kv/keys.py); worker: gc.py.

A write that was sent before the file was removed, and arrives after its chunks went, makes a chunk
again that no inode explains. Storage takes it as long as its capability is valid; no capability is
given out once gc has claimed the file. So the row that the inode leaves behind waits until the last
one has ended, and then storage is asked once more.

The epoch is that of the gc queue (garbage.py) when the row was made: it orders the rows, and tells
when the oldest may go. Record: schema byte, the layout of the file.
"""

import struct
from typing import NamedTuple

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import garbage
from fs3.meta.inode import Inode, Layout

SCHEMA = 1
_RECORD = struct.Struct("<BIIIIQ")


class Tombstone(NamedTuple):
    epoch: int
    inode: int
    layout: Layout

    @property
    def key(self) -> bytes:
        return keys.tombstone(self.epoch, self.inode)

    def encode(self) -> bytes:
        return _RECORD.pack(SCHEMA, *self.layout)


def put(txn: Transaction, inode: Inode) -> None:
    """With the removal of the inode, in its transaction."""
    row = Tombstone(garbage.epoch(txn), inode.number, inode.layout)
    txn.set(row.key, row.encode())


def remove(txn: Transaction, tombstone: Tombstone) -> None:
    txn.clear(tombstone.key)


def decode(key: bytes, record: bytes) -> Tombstone:
    epoch, number = keys.tombstone_fields(key)
    if len(record) == _RECORD.size and record[0] == SCHEMA:
        layout = Layout._make(_RECORD.unpack(record)[1:])
        if layout.chunk_size and layout.stripe:
            return Tombstone(epoch, number, layout)
    raise Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/tombstone of inode {number}",
        f"record {record[:25].hex()} does not decode; stop the service and run fsck",
    )


def page(txn: Transaction, begin: bytes, epoch: int, limit: int) -> list[Tombstone]:
    """Up to `limit` of those of `epoch` and before, from the key `begin` on, oldest first."""
    end = keys.tombstone(epoch + 1, 0)
    if begin >= end:
        return []
    rows = txn.get_range(begin, end, limit=limit, snapshot=True)
    return [decode(*row) for row in rows]


def newest_epoch(txn: Transaction) -> int:
    """0 when there is none."""
    end = keys.prefix_end(keys.TOMBSTONE)
    rows = txn.get_range(keys.TOMBSTONE, end, limit=1, reverse=True, snapshot=True)
    return keys.tombstone_fields(rows[0][0])[0] if rows else 0
