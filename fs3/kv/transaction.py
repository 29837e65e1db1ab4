"""The two transactions that engines of one process need, over a View.

SerialTransaction       inside run_batch: nothing runs beside it, so reads are not recorded
OptimisticTransaction   from begin(): reads a fixed version, records what it read, and is checked
                        at commit
ConflictWindow          what was committed lately, for that check
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from fs3.errors import Conflict, Status
from fs3.kv.api import CommitVersion
from fs3.kv.writes import Overlaid, Pair, View, WriteSet, check_key

__all__ = [
    "ConflictWindow",
    "OptimisticTransaction",
    "Range",
    "Reads",
    "SerialTransaction",
    "scanned",
    "sees",
]

Range = tuple[bytes, bytes]


class SerialTransaction:
    """One operation of a batch. The engine takes `writes` when the operation returned."""

    __slots__ = ("_view", "writer", "writes")

    def __init__(self, view: View, writer: int = 0) -> None:
        self.writer = writer
        self.writes = WriteSet()
        self._view = Overlaid(self.writes, view)

    def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        return self._view.get(key)

    def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[Pair]:
        if begin >= end:
            return []
        found = self._view.scan(begin, end, reverse)
        return list(islice(found, limit)) if limit else list(found)

    def set(self, key: bytes, value: bytes) -> None:
        check_key(key)
        self.writes.put(key, value)

    def clear(self, key: bytes) -> None:
        check_key(key)
        self.writes.put(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.writes.clear_range(begin, end)

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        pass  # nothing runs beside a serial operation

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        self.writes.extra_conflicts.append((begin, end))

    def commit(self) -> CommitVersion:
        raise ValueError("the batch commits, not the operation")

    def cancel(self) -> None:
        raise ValueError("an operation leaves a batch by raising")


class OptimisticTransaction:
    """Reads `view`, which is the store at `read_version` for ever; `apply` is the engine's
    commit."""

    writer = 0

    __slots__ = (
        "__weakref__",
        "_apply",
        "_view",
        "read_keys",
        "read_ranges",
        "read_version",
        "writes",
    )

    def __init__(
        self,
        view: View,
        read_version: CommitVersion,
        apply: Callable[["OptimisticTransaction"], CommitVersion],
    ) -> None:
        self.read_version = read_version
        self.writes = WriteSet()
        self.read_keys: set[bytes] = set()
        self.read_ranges: list[Range] = []
        self._view: Overlaid | None = Overlaid(self.writes, view)
        self._apply = apply

    def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        view = self._opened()
        if not snapshot:
            self.read_keys.add(key)
        return view.get(key)

    def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[Pair]:
        view = self._opened()
        if begin >= end:
            return []
        found = view.scan(begin, end, reverse)
        pairs = list(islice(found, limit)) if limit else list(found)
        if not snapshot:
            self.read_ranges.append(scanned(begin, end, pairs, limit, reverse))
        return pairs

    def set(self, key: bytes, value: bytes) -> None:
        self._opened()
        check_key(key)
        self.writes.put(key, value)

    def clear(self, key: bytes) -> None:
        self._opened()
        check_key(key)
        self.writes.put(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self._opened()
        self.writes.clear_range(begin, end)

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        self._opened()
        self.read_ranges.append((begin, end))

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        self._opened()
        self.writes.extra_conflicts.append((begin, end))

    def commit(self) -> CommitVersion:
        self._opened()
        self.cancel()  # before the engine looks who still reads old versions
        if not self.writes and not self.writes.extra_conflicts:
            return self.read_version
        self.writes.check_limits()
        return self._apply(self)

    def cancel(self) -> None:
        self._view = None  # lets the engine's snapshot go

    @property
    def is_open(self) -> bool:
        return self._view is not None

    def _opened(self) -> Overlaid:
        if self._view is None:
            raise ValueError("the transaction has ended")
        return self._view


def scanned(begin: bytes, end: bytes, pairs: list[Pair], limit: int, reverse: bool) -> Range:
    """The part of [begin, end) whose content the caller now knows."""
    if not limit or len(pairs) < limit:
        return begin, end
    last = pairs[-1][0]
    return (last, end) if reverse else (begin, last + b"\0")


class ConflictWindow:
    """Write sets of recent commits. Not thread-safe: the engine's commit lock guards it.

    Bounded by `commits_max`: a transaction older than what is left conflicts, which is always safe.
    """

    def __init__(self, commits_max: int = 10_000) -> None:
        self._commits: deque[tuple[CommitVersion, WriteSet]] = deque()
        self._commits_max = commits_max
        self._forgotten: CommitVersion = 0  # newest version that is no longer in the window

    def __len__(self) -> int:
        return len(self._commits)

    def add(self, version: CommitVersion, writes: WriteSet) -> None:
        self._commits.append((version, writes))
        if len(self._commits) > self._commits_max:
            self._forgotten = self._commits.popleft()[0]

    def forget_before(self, version: CommitVersion) -> None:
        """No open transaction reads below `version`."""
        while self._commits and self._commits[0][0] <= version:
            self._forgotten = self._commits.popleft()[0]

    def check(self, transaction: OptimisticTransaction) -> None:
        """Raises Conflict when something it read was written after its read version."""
        if transaction.read_version < self._forgotten:
            raise Conflict(Status.BUSY, "kv/commit", "the transaction is too old; run it again")
        for version, writes in self._commits:
            if version > transaction.read_version and sees(transaction, writes):
                raise Conflict(
                    Status.BUSY, "kv/commit", f"version {version} wrote what was read; run it again"
                )


class Reads(Protocol):
    """What a transaction read."""

    read_keys: set[bytes]
    read_ranges: list[Range]


def sees(reader: Reads, writes: WriteSet) -> bool:
    """True when something that was read is written by `writes`."""
    written_ranges = writes.cleared + writes.extra_conflicts
    if not reader.read_keys.isdisjoint(writes.points):
        return True
    for begin, end in reader.read_ranges:
        if writes.keys_between(begin, end):
            return True
        if any(low < end and begin < high for low, high in written_ranges):
            return True
    return any(low <= key < high for low, high in written_ranges for key in reader.read_keys)
