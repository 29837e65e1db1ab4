"""The ordered transactional key-value contract. Engines: kv.memory, kv.rocksdb, kv.postgres.

Keys and values are bytes, keys ordered bytewise; a key is not empty and sorts below KEY_END (what
lies above belongs to the engine). A transaction reads one version of the store plus its own
writes, and commits all or nothing. Histories are strictly serializable: a commit fails with
`errors.Conflict` when a key or range it read (not by snapshot) was written by a transaction that
committed after its read version. A transaction that wrote nothing never conflicts: its read
version lies inside its own lifetime. The conformance suite is tests/unit/conformance_kv.py; an
engine that has not passed it is not an engine.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from fs3 import limits
from fs3.errors import Conflict

__all__ = ["KEY_END", "CommitVersion", "KeyValueStore", "Transaction", "transact"]

T = TypeVar("T")

CommitVersion = int

KEY_END = b"\xff"
"""The end of the key space, for range reads of everything."""


class Transaction(Protocol):
    """One attempt. Not thread-safe. After commit() or cancel() every call raises ValueError.

    writer: 0 to 255, another one for each process that writes the store, as far as there are so
    many: for counters that are kept in parts, so that two processes do not meet in one. In a
    transaction from begin() it is 0.
    """

    @property
    def writer(self) -> int: ...

    def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        """The value, own writes first. Adds a read conflict on `key` unless snapshot."""

    def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with begin <= key < end in order; limit 0 = all. Adds a read conflict on what was
        scanned (up to the last key returned when the limit cut it), also when it is empty."""

    def set(self, key: bytes, value: bytes) -> None: ...

    def clear(self, key: bytes) -> None: ...

    def clear_range(self, begin: bytes, end: bytes) -> None: ...

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    def commit(self) -> CommitVersion:
        """Applies the writes; returns once they survive a kill of the process. A version is larger
        than every one returned before (a transaction without writes returns its read version).
        Raises Conflict (nothing applied) or OutcomeUnknown; BadRequest when the writes exceed
        TRANSACTION_KEYS_MAX or TRANSACTION_BYTES_MAX. Ends the transaction in every case."""

    def cancel(self) -> None:
        """Forgets the writes. Idempotent, also after commit()."""


class KeyValueStore(Protocol):
    """Thread-safe."""

    @property
    def shared(self) -> bool:
        """True when other processes may have it open at the same time: what was read is only known
        within its transaction, and a call that failed says nothing about the next one."""

    def claim(self, cluster_id: bytes) -> None:
        """Denied when the store belongs to another cluster; from now on it belongs to this one. A
        store that one process owns has nothing to do: nobody takes it for another's."""

    def begin(self) -> Transaction: ...

    def run_batch(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        """Runs the operations one after another, each as a transaction of its own that sees those
        before it, and commits all their writes at once (group commit): when it returns, they all
        survive a kill of the process. An operation that raises leaves no writes; its exception
        stands in its place. Operations must not call commit(), nor the store. A shared store runs
        them again when they met other transactions: they may have no effect that matters but on
        their transaction. Raises when the batch did not commit: RetryLater when nothing of it was
        applied for sure, else OutcomeUnknown; a store that is not shared refuses every later
        call then."""

    def sync(self) -> None:
        """Everything committed so far survives power loss when this returns. Commits go on
        meanwhile."""

    def close(self) -> None:
        """Open transactions are cancelled. Idempotent."""


def transact(
    store: KeyValueStore,
    operation: Callable[[Transaction], T],
    *,
    retries: int = limits.TRANSACTION_RETRIES_MAX,
) -> T:
    """Runs `operation` in a transaction, again from the start at each Conflict."""
    for attempt in range(retries + 1):
        transaction = store.begin()
        try:
            result = operation(transaction)
            transaction.commit()
            return result
        except Conflict:
            if attempt == retries:
                raise
        finally:
            transaction.cancel()
    raise AssertionError("unreachable")
