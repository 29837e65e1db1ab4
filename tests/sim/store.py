"""A key-value store that meets conflicts and loses the outcome of commits: what a distributed
engine may do. Over the reference engine, so what it holds is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from fs3.errors import Conflict, OutcomeUnknown, RetryElsewhere, Status
from fs3.kv.api import CommitVersion, Transaction
from fs3.kv.memory import MemoryStore

__all__ = ["FaultyStore", "StoreFaults"]

T = TypeVar("T")
Observer = Callable[[Sequence[Callable[[Transaction], object]], Sequence[object]], None]


@dataclass(frozen=True, slots=True)
class StoreFaults:
    conflict: float = 0.0  # share of commits that meet another one
    unknown: float = 0.0  # share of commits whose outcome is not told; half of them happened


class FaultyStore:
    """KeyValueStore (fs3/kv/api.py). `faults` may be changed at any time; `down`: unavailable.

    `serial` stores (the embedded engine) run batches and have no conflicts.
    """

    def __init__(self, random: Random, landed: Counter[str]) -> None:
        self.inner = MemoryStore()
        self.faults = StoreFaults()
        self.down = False
        self.observer: Observer | None = None  # told of every batch that was applied, in order
        self._random = random
        self._landed = landed

    shared = True

    def claim(self, cluster_id: bytes) -> None:
        self._check_up()

    def begin(self) -> Transaction:
        self._check_up()
        return _Doubtful(self, self.inner.begin())

    def run_batch(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        self._check_up()
        for operation in operations:
            if self.meet_conflict():
                self._run_in_vain(operation)
        lost = self.lose_outcome()
        if lost and not self.happened():
            raise OutcomeUnknown(Status.TIMED_OUT, "sim/store", "the outcome is unknown")
        results = self.inner.run_batch(operations)
        if self.observer is not None:
            self.observer(operations, results)
        if lost:
            raise OutcomeUnknown(Status.TIMED_OUT, "sim/store", "the outcome is unknown")
        return results

    def _run_in_vain(self, operation: Callable[[Transaction], object]) -> None:
        """An attempt that meets another transaction at its commit: it left nothing behind."""
        transaction = self.inner.begin()
        try:
            operation(transaction)
        except Exception:  # its outcome does not count, whatever it is
            return
        finally:
            transaction.cancel()

    def sync(self) -> None:
        self._check_up()
        self.inner.sync()

    def close(self) -> None:
        """The store outlives its users."""

    def lose_outcome(self) -> bool:
        if not self.faults.unknown or self._random.random() >= self.faults.unknown:
            return False
        self._landed["commit unknown"] += 1
        return True

    def meet_conflict(self) -> bool:
        if not self.faults.conflict or self._random.random() >= self.faults.conflict:
            return False
        self._landed["kv conflict"] += 1
        return True

    def happened(self) -> bool:
        return self._random.random() < 0.5

    def _check_up(self) -> None:
        if self.down:
            raise RetryElsewhere(Status.TIMED_OUT, "sim/store", "the store is not available")


class _Doubtful:
    """A transaction whose commit may go wrong; all else is the engine's."""

    def __init__(self, store: FaultyStore, inner: Transaction) -> None:
        self._store = store
        self._inner = inner
        self._wrote = False
        self.get = inner.get
        self.get_range = inner.get_range
        self.add_read_conflict_range = inner.add_read_conflict_range
        self.add_write_conflict_range = inner.add_write_conflict_range
        self.cancel = inner.cancel

    def set(self, key: bytes, value: bytes) -> None:
        self._wrote = True
        self._inner.set(key, value)

    def clear(self, key: bytes) -> None:
        self._wrote = True
        self._inner.clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self._wrote = True
        self._inner.clear_range(begin, end)

    def commit(self) -> CommitVersion:
        if not self._wrote:
            return self._inner.commit()
        if self._store.meet_conflict():
            self._inner.cancel()
            raise Conflict(Status.BUSY, "sim/store", "another transaction was faster")
        if not self._store.lose_outcome():
            return self._inner.commit()
        if self._store.happened():
            self._inner.commit()
        else:
            self._inner.cancel()
        raise OutcomeUnknown(Status.TIMED_OUT, "sim/store", "the outcome of the commit is unknown")
