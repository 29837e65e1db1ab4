"""Removes inodes without a name, and their chunks. Resumable at every point, bounded in every step.

A row of the gc queue (garbage.py) goes through

    1. due       queued longer than the delay ago, no session, no reader that its client listed, no
       truncate
    2. claimed   REMOVING is set on the inode: it cannot be opened any more          one transaction
    3. cut       chunks go, at most GC_CHUNKS_PER_STEP per call; `remaining` shrinks in the row
    4. deleted   inode and row go                                                    one transaction

A crash leaves the row, and the next start goes on: removing chunks twice is harmless. What has no
chunks goes from 1 to 4 in one transaction. The delay counts on this process's clock, from when it
ended the epoch of the row (garbage.py), so a restart, or another leader, starts it anew: clients
have to come back with their keepalives before anything they read is removed.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from fs3 import limits
from fs3.errors import Fs3Error
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import appends, garbage, session, xattr
from fs3.meta import inode as inodes
from fs3.meta.garbage import UNKNOWN
from fs3.meta.inode import FILE, REMOVING, SPARSE, Layout
from fs3.meta.ports import ChunkPort
from fs3.meta.store import MetaStore
from fs3.runtime.clock import Clock

__all__ = ["GarbageCollector", "GcStatistics"]

log = logging.getLogger(__name__)

DELAY_S_DEFAULT = 10.0
MARKS_PER_DELAY = 8  # an epoch is at most that part of the delay long
ROWS_PER_STEP = 128
PAGE = 256  # rows looked at in one transaction: requests wait for it, about 3 ms


class _Claimed(NamedTuple):
    key: bytes
    inode: int
    layout: Layout
    sparse: bool
    remaining: int
    epoch: int


@dataclass(frozen=True)
class GcStatistics:
    removed: int
    failed: int
    waiting_marks: int


class GarbageCollector:
    """One worker; step() is called by one thread. `parallel` maps over files with chunks, in
    order."""

    def __init__(
        self,
        store: MetaStore,
        chunks: ChunkPort,
        clock: Clock,
        *,
        delay_s: float = DELAY_S_DEFAULT,
        parallel: Callable[[Callable[[_Claimed], bool], Iterable[_Claimed]], Iterator[bool]] = map,
        guard: Callable[[Transaction], None] = lambda txn: None,
    ) -> None:
        """`guard` raises in the transactions of a worker whose turn is over."""
        self._store = store
        self._chunks = chunks
        self._clock = clock
        self._delay_ns = int(delay_s * 1e9)
        self._parallel = parallel
        self._guard = guard
        self.begin_term()
        self._removed = 0
        self._failed = 0

    def begin_term(self) -> None:
        """Forgets since when rows have been waiting."""
        self._marks: deque[tuple[int, int]] = deque()  # (monotonic, epoch that ended then)
        self._marked = 0  # newest epoch that has ended
        self._due = 0  # newest epoch that ended longer than the delay ago
        self._cursor = keys.GARBAGE
        self._fresh = False  # rows of a newer epoch than _marked were seen

    def step(self) -> int:
        """A bounded part of the work; how many inodes were removed. 0 means: come again later."""
        now_ns = self._clock.monotonic_ns()
        while self._marks and now_ns - self._marks[0][0] >= self._delay_ns:
            self._due = self._marks.popleft()[1]
        claimed: list[_Claimed]
        removed: int
        ((claimed, removed, self._cursor, fresh),) = self._transact([self._claim])
        self._fresh = self._fresh or fresh
        self._mark(now_ns)
        emptied = [
            file
            for file, done in zip(claimed, self._parallel(self._cut, claimed), strict=True)
            if done
        ]
        if emptied:
            self._transact([partial(_delete, key=f.key, number=f.inode) for f in emptied])
        removed += len(emptied)
        self._failed += len(claimed) - len(emptied)
        self._removed += removed
        return removed

    @property
    def at_end(self) -> bool:
        """All rows that are due have been looked at; the next step begins at the oldest again."""
        return self._cursor == keys.GARBAGE

    def run_until_idle(self, steps_max: int = 10_000) -> int:
        """For tests and shutdown: steps until one removes nothing."""
        total = 0
        for _ in range(steps_max):
            removed = self.step()
            total += removed
            if not removed:
                break
        return total

    def statistics(self) -> GcStatistics:
        return GcStatistics(self._removed, self._failed, len(self._marks))

    def _mark(self, now_ns: int) -> None:
        """Ends the present epoch: its rows are due in a delay from now."""
        waited = not self._marks or now_ns - self._marks[-1][0] >= self._delay_ns / MARKS_PER_DELAY
        if self._fresh and waited:
            (self._marked,) = self._transact([garbage.next_epoch])
            self._marks.append((now_ns, self._marked))
            self._fresh = False

    def _claim(self, txn: Transaction) -> tuple[list[_Claimed], int, bytes, bool]:
        """Looks at one page of rows; (files whose chunks have to go, inodes removed, where the next
        page begins, whether there are rows whose epoch has not ended)."""
        claimed: list[_Claimed] = []
        removed = 0
        seen_due = fresh = False
        rows = txn.get_range(self._cursor, keys.prefix_end(keys.GARBAGE), limit=PAGE, snapshot=True)
        for key, record in rows:
            row = garbage.decode(key, record)
            if row.epoch > self._due:
                fresh = fresh or row.epoch > self._marked
                continue
            seen_due = True
            number = keys.garbage_fields(key)[1]
            inode = inodes.find(txn, number)
            if inode is None:
                txn.clear(key)
                continue
            if inode.nlink or self._in_use(txn, number):
                continue  # a named inode in the queue is damage: fsck reports it, nothing is lost
            if inode.type != FILE or not inode.has_data:
                _delete(txn, key=key, number=number)
                removed += 1
            else:
                if not inode.flags & REMOVING:
                    inode.flags |= REMOVING
                    inodes.store(txn, inode)
                sparse = bool(inode.flags & SPARSE)
                claimed.append(_Claimed(key, number, inode.layout, sparse, *row))
            if len(claimed) == ROWS_PER_STEP:
                return claimed, removed, key + b"\0", fresh
        # The order is only near that of the epochs, but a page without due rows is the end.
        more = len(rows) == PAGE and seen_due
        return claimed, removed, rows[-1][0] + b"\0" if more else keys.GARBAGE, fresh

    def _in_use(self, txn: Transaction, inode: int) -> bool:
        return (
            self._store.env.clients.is_read(inode)
            or session.is_open_for_write(txn, inode)
            or txn.get(keys.intent(inode)) is not None
        )

    def _transact(self, operations: Sequence[Callable[[Transaction], Any]]) -> list[Any]:
        return self._store.transact([partial(self._guarded, each) for each in operations])

    def _guarded(self, operation: Callable[[Transaction], Any], txn: Transaction) -> Any:
        self._guard(txn)
        return operation(txn)

    def _cut(self, file: _Claimed) -> bool:
        """Step 3 of one file; False when storage refused and it has to be repeated."""
        step_bytes = limits.GC_CHUNKS_PER_STEP * file.layout.chunk_size
        remaining = file.remaining
        try:
            if remaining == UNKNOWN:
                remaining = self._length(file)
            while remaining > step_bytes:
                # From the end, so that what is left is a prefix and one number describes it.
                shorter = remaining - step_bytes
                self._chunks.truncate_chunks(file.inode, file.layout, remaining, shorter)
                # A hole costs one question, however long it is.
                remaining = min(shorter, self._length(file)) if file.sparse else shorter
                self._note(file, remaining)
            self._chunks.remove_chunks(file.inode, file.layout, remaining)
        except Fs3Error as error:
            log.info("removal of inode %d goes on later: %s", file.inode, error)
            return False
        return True

    def _length(self, file: _Claimed) -> int:
        return self._chunks.measure(file.inode, file.layout).length

    def _note(self, file: _Claimed, remaining: int) -> None:
        row = garbage.Row(remaining, file.epoch).encode()
        self._transact([lambda txn: txn.set(file.key, row)])


def _delete(txn: Transaction, *, key: bytes, number: int) -> None:
    inode = inodes.find(txn, number)
    if inode is not None:
        xattr.remove_all(txn, inode)
    txn.clear(keys.inode(number))
    appends.remove(txn, number)
    txn.clear(key)
