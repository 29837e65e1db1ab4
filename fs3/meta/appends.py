"""What has been given out at the end of a file: places of appends. Key: APND (fs3/kv/keys.py).

An append gets the bytes behind the length and behind everything that was given out before
(native/client/append.h), so two clients never write to the same place. The row outlives the
sessions whose places are not all below the length: their client may come back from a long pause
and write what it was promised. A truncate ends all promises: the row of an older truncate_epoch
says nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction

if TYPE_CHECKING:
    from fs3.meta.inode import Inode

SCHEMA = 1
_RECORD = struct.Struct("<BIQ")  # schema, truncate_epoch of the inode, end


def decode(inode: int, record: bytes) -> tuple[int, int]:
    """(truncate_epoch, end)."""
    if len(record) != _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/appends of inode {inode}",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, epoch, end = _RECORD.unpack(record)
    return epoch, end


def end_of(txn: Transaction, inode: Inode) -> int:
    """Of what was given out and may still be written; 0 when there is nothing."""
    record = txn.get(keys.appends(inode.number))
    if record is None:
        return 0
    epoch, end = decode(inode.number, record)
    return end if epoch == inode.truncate_epoch else 0


def store(txn: Transaction, inode: Inode, end: int) -> None:
    txn.set(keys.appends(inode.number), _RECORD.pack(SCHEMA, inode.truncate_epoch, end))


def forget_settled(txn: Transaction, inode: Inode) -> None:
    """When nobody writes any more and all that was given out is below the length."""
    if txn.get(keys.appends(inode.number)) is not None and end_of(txn, inode) <= inode.size:
        remove(txn, inode.number)


def remove(txn: Transaction, inode: int) -> None:
    txn.clear(keys.appends(inode))
