"""Truncates in progress. Key: TRNC (fs3/kv/keys.py).

A truncate that has to cut chunks is two transactions with the cut between them:

    1. length set, truncate_epoch + 1, this row           <- the operation itself (setattr, open)
    2. chunks beyond the new length are removed           <- a job (store.py), repeated until it
       succeeds
    3. row removed; now the reply goes out

A crash after 1 leaves the row, and the start of the service resumes at 2. While the row is there,
opens, truncates and settlements of the inode wait.

Two services must never cut the same inode: a late cut would take bytes that were written after the
other one's step 3. So the row names its owner, the incarnation of the service, and another one
takes over (truncation.py) when nothing can come of the owner any more. Where the store has one
owner that is at once; where it is shared, after the manager declared the service dead and the last
capability that it can have sent has expired (proto/CAPABILITY.md).
"""

import struct
from typing import NamedTuple

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction

SCHEMA = 2
_RECORD = struct.Struct("<BBQQI16s")
_RECORD_1 = struct.Struct("<BBQQI")  # schema 1: owned by nobody
NOBODY = bytes(16)


class TruncateIntent(NamedTuple):
    inode: int
    measure: bool  # somebody had it open for writing: storage may hold more than old_size
    old_size: int
    new_size: int
    truncate_epoch: int  # of the inode, after step 1
    owner: bytes = NOBODY  # incarnation of the service that cuts

    def encode(self) -> bytes:
        return _RECORD.pack(
            SCHEMA, self.measure, self.old_size, self.new_size, self.truncate_epoch, self.owner
        )


def decode(inode: int, record: bytes) -> TruncateIntent:
    if len(record) == _RECORD_1.size and record[0] == 1:
        record = bytes([SCHEMA]) + record[1:] + NOBODY
    if len(record) != _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/intent of inode {inode}",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, measure, old_size, new_size, epoch, owner = _RECORD.unpack(record)
    return TruncateIntent(inode, bool(measure), old_size, new_size, epoch, owner)


def find(txn: Transaction, inode: int) -> TruncateIntent | None:
    record = txn.get(keys.intent(inode))
    return decode(inode, record) if record is not None else None


def store(txn: Transaction, intent: TruncateIntent) -> None:
    txn.set(keys.intent(intent.inode), intent.encode())


def remove(txn: Transaction, inode: int) -> None:
    txn.clear(keys.intent(inode))


def all_intents(txn: Transaction) -> list[TruncateIntent]:
    pairs = txn.get_range(keys.INTENT, keys.prefix_end(keys.INTENT), snapshot=True)
    return [decode(keys.inode_of(key), record) for key, record in pairs]
