"""The reference engine: every version in a dictionary. For tests and the simulator; nothing is
durable."""

import threading
import weakref
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fs3.errors import RetryElsewhere, Status
from fs3.kv.api import CommitVersion, Transaction
from fs3.kv.transaction import ConflictWindow, OptimisticTransaction, SerialTransaction
from fs3.kv.writes import Overlaid, Pair, WriteSet

__all__ = ["MemoryStore"]

T = TypeVar("T")
History = list[tuple[CommitVersion, bytes | None]]  # ascending; None = cleared at that version


class MemoryStore:
    """KeyValueStore (kv.api). One lock covers all: it is a reference, not a race car.

    Invariants:
    1. `_keys` is sorted and holds exactly the keys of `_histories`.
    2. A history holds the newest value at or below the oldest open read version, and all later
       ones.
    """

    shared = False

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._keys: list[bytes] = []
        self._histories: dict[bytes, History] = {}
        self._version: CommitVersion = 0
        self._window = ConflictWindow()
        self._open: weakref.WeakSet[OptimisticTransaction] = weakref.WeakSet()
        self._closed = False

    def begin(self) -> Transaction:
        with self._lock:
            self._check_open()
            transaction = OptimisticTransaction(
                _AtVersion(self, self._version), self._version, self._commit
            )
            self._open.add(transaction)
            return transaction

    def run_batch(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        with self._lock:
            self._check_open()
            batch = WriteSet()
            view = Overlaid(batch, _AtVersion(self, self._version))
            results: list[T | BaseException] = []
            for operation in operations:
                transaction = SerialTransaction(view)
                try:
                    result = operation(transaction)
                    transaction.writes.check_limits()
                except Exception as error:
                    results.append(error)
                    continue
                batch.absorb(transaction.writes)
                results.append(result)
            self._apply(batch)
            return results

    def claim(self, cluster_id: bytes) -> None:
        pass

    def sync(self) -> None:
        with self._lock:
            self._check_open()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for transaction in self._open:
                transaction.cancel()

    def copy(self) -> "MemoryStore":
        """A store with the same committed content: what a killed process leaves, for crash
        tests."""
        with self._lock:
            other = MemoryStore()
            batch = WriteSet()
            for key, value in _AtVersion(self, self._version).scan(b"", b"\xff", False):
                batch.put(key, value)
            other._version = self._version
            other._apply(batch)
            return other

    def _check_open(self) -> None:
        if self._closed:
            raise RetryElsewhere(Status.SHUTTING_DOWN, "kv/memory", "the store is closed")

    def _commit(self, transaction: OptimisticTransaction) -> CommitVersion:
        with self._lock:
            self._check_open()
            self._window.check(transaction)
            return self._apply(transaction.writes)

    def _apply(self, writes: WriteSet) -> CommitVersion:
        if not writes and not writes.extra_conflicts:
            return self._version
        self._version += 1
        readers = [t.read_version for t in self._open if t.is_open]
        oldest = min(readers, default=self._version)
        for begin, end in writes.cleared:
            low, high = bisect_left(self._keys, begin), bisect_left(self._keys, end)
            for key in self._keys[low:high]:
                self._store(key, None, oldest)
        for key, value in writes.points.items():
            self._store(key, value, oldest)
        self._window.add(self._version, writes)
        self._window.forget_before(oldest)
        return self._version

    def _store(self, key: bytes, value: bytes | None, oldest: CommitVersion) -> None:
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = []
            insort(self._keys, key)
        if history and history[-1][0] == self._version:
            history.pop()
        history.append((self._version, value))
        while len(history) > 1 and history[1][0] <= oldest:
            del history[0]
        if history[0] == (self._version, None):
            del self._histories[key]
            del self._keys[bisect_left(self._keys, key)]


class _AtVersion:
    """A View of the store as of `version`."""

    __slots__ = ("_store", "_version")

    def __init__(self, store: MemoryStore, version: CommitVersion) -> None:
        self._store = store
        self._version = version

    def get(self, key: bytes) -> bytes | None:
        with self._store._lock:
            for version, value in reversed(self._store._histories.get(key, ())):
                if version <= self._version:
                    return value
        return None

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]:
        with self._store._lock:
            keys = self._store._keys
            found = keys[bisect_left(keys, begin) : bisect_left(keys, end)]
        for key in reversed(found) if reverse else found:
            value = self.get(key)
            if value is not None:
                yield key, value
