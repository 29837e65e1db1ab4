"""Inode ids: 64-bit, never reused, reserved from the KV in ranges (key CTRI)."""

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import KeyValueStore, Transaction
from fs3.runtime.failpoint import failpoint
from fs3.types import ROOT_INODE, InodeId

RANGE = 4096  # ids per reservation: one KV write per 4,096 creates; a restart loses at most as many
FIRST_INODE = ROOT_INODE + 1


class InodeAllocator:
    """Not thread-safe: guarded by the lock of the store."""

    def __init__(self, kv: KeyValueStore) -> None:
        self._kv = kv
        self._next = 0
        self._end = 0

    def ensure(self, count: int) -> None:
        """Reserves so that `count` ids can be taken. Outside of any transaction."""
        if self._end - self._next >= count:
            return
        (reserved,) = self._kv.run_batch([lambda txn: _reserve(txn, max(RANGE, count))])
        if isinstance(reserved, BaseException):
            raise reserved
        failpoint("allocator.reserved")
        if reserved != self._end:
            self._next = reserved  # ids left over from a range that is not adjacent are given up
        self._end = reserved + max(RANGE, count)

    def take(self) -> InodeId:
        """REQUIRES: ensure() covered it. An id taken by an operation that fails is never used."""
        number = self._next
        if number >= self._end:
            raise AssertionError("inode ids were not reserved before the batch")
        self._next += 1
        return InodeId(number)

    @property
    def issued(self) -> int:
        """An upper bound of the number of inodes ever made."""
        return self._next


def _reserve(txn: Transaction, count: int) -> int:
    first = reserved_end(txn)
    txn.set(keys.ALLOCATOR, (first + count).to_bytes(8, "little"))
    return first


def reserved_end(txn: Transaction) -> int:
    """No inode has this id or a larger one."""
    record = txn.get(keys.ALLOCATOR)
    if record is None:
        return FIRST_INODE
    return decode_end(record)


def decode_end(record: bytes) -> int:
    if len(record) != 8:
        raise Damaged(
            Status.CHECKSUM_MISMATCH, "meta/allocator", f"record {record.hex()}; run fsck"
        )
    return int.from_bytes(record, "little")
