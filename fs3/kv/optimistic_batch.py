"""run_batch for engines that other processes write to as well: the operations of a batch run one
after another on one snapshot, what they read is kept, and the engine checks it when it commits
all their writes at once.

An operation that wrote nothing, and saw nothing of what the batch is about to write, is answered
by the snapshot alone: what it read need not be checked.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fs3.kv.api import CommitVersion, Transaction
from fs3.kv.transaction import Range, SerialTransaction, scanned, sees
from fs3.kv.writes import Overlaid, Pair, View, WriteSet

__all__ = ["Batch"]

T = TypeVar("T")


class Batch:
    """One attempt. What the engine commits: `writes`, if `read_keys` and `read_ranges` are still
    what they were at `read_version`."""

    def __init__(self, view: View, read_version: CommitVersion, writer: int) -> None:
        """`writer`: of the transactions."""
        self.read_version = read_version
        self._writer = writer
        self.writes = WriteSet()
        self.read_keys: set[bytes] = set()
        self.read_ranges: list[Range] = []
        self._view = Overlaid(self.writes, view)

    def run(self, operations: Sequence[Callable[[Transaction], T]]) -> list[T | BaseException]:
        results: list[T | BaseException] = []
        for operation in operations:
            transaction = _RecordingTransaction(self._view, self._writer)
            try:
                result: T | BaseException = operation(transaction)
                transaction.writes.check_limits()
            except Exception as error:
                result = error
                transaction.writes = WriteSet()
            self._take(transaction)
            results.append(result)
        return results

    def _take(self, transaction: "_RecordingTransaction") -> None:
        writes = transaction.writes
        if writes or writes.extra_conflicts or sees(transaction, self.writes):
            self.read_keys |= transaction.read_keys
            self.read_ranges += transaction.read_ranges
        self.writes.absorb(writes)


class _RecordingTransaction(SerialTransaction):
    """One operation of the batch; knows what it read."""

    __slots__ = ("read_keys", "read_ranges")

    def __init__(self, view: View, writer: int) -> None:
        super().__init__(view, writer)
        self.read_keys: set[bytes] = set()
        self.read_ranges: list[Range] = []

    def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        if not snapshot:
            self.read_keys.add(key)
        return super().get(key)

    def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[Pair]:
        pairs = super().get_range(begin, end, limit=limit, reverse=reverse)
        if not snapshot and begin < end:
            self.read_ranges.append(scanned(begin, end, pairs, limit, reverse))
        return pairs

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        self.read_ranges.append((begin, end))
