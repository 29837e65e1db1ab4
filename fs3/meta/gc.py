"""Removes inodes without a name, and their chunks. Resumable at every point, bounded in every step.

A row of the gc queue (garbage.py) goes through

    1. due       queued longer than the delay ago, no session, no reader that its client listed, no
       truncate
    2. claimed   REMOVING is set on the inode: it cannot be opened any more          one transaction
    3. cut       chunks go, at most GC_CHUNKS_PER_STEP per call; `remaining` shrinks in the row
    4. deleted   inode and row go                                                    one transaction

A crash leaves the row, and the next start goes on: removing chunks twice is harmless. What has no
chunks goes from 1 to 4 in one transaction. The delay counts from when this process saw the row
first, so a restart starts it anew: clients have to come back with their keepalives before anything
they read is removed.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fs3 import limits
from fs3.errors import Fs3Error
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import garbage, session
from fs3.meta import inode as inodes
from fs3.meta.garbage import UNKNOWN
from fs3.meta.inode import FILE, REMOVING, Layout
from fs3.meta.ports import ChunkPort
from fs3.meta.store import MetaStore
from fs3.runtime.clock import Clock

__all__ = ["GarbageCollector", "GcStatistics"]

log = logging.getLogger(__name__)

DELAY_S_DEFAULT = 10.0
ROWS_PER_STEP = 128
PAGE = 256  # rows looked at in one transaction: requests wait for it, about 3 ms


class _Claimed(NamedTuple):
    key: bytes
    inode: int
    layout: Layout
    remaining: int


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
    ) -> None:
        self._store = store
        self._chunks = chunks
        self._clock = clock
        self._delay_ns = int(delay_s * 1e9)
        self._parallel = parallel
        self._marks: deque[tuple[int, bytes]] = deque()  # (monotonic, last key of the queue then)
        self._horizon = keys.GARBAGE  # rows below were queued longer than the delay ago
        self._cursor = keys.GARBAGE
        self._removed = 0
        self._failed = 0

    def step(self) -> int:
        """A bounded part of the work; how many inodes were removed. 0 means: come again later."""
        self._advance_horizon()
        if self._cursor >= self._horizon:
            self._cursor = keys.GARBAGE
        if self._cursor >= self._horizon:
            return 0
        claimed: list[_Claimed]
        removed: int
        ((claimed, removed, self._cursor),) = self._store.transact([self._claim])
        emptied = [
            file
            for file, done in zip(claimed, self._parallel(self._cut, claimed), strict=True)
            if done
        ]
        if emptied:
            self._store.transact([partial(_delete, key=f.key, number=f.inode) for f in emptied])
        removed += len(emptied)
        self._failed += len(claimed) - len(emptied)
        self._removed += removed
        return removed

    @property
    def at_end(self) -> bool:
        """All rows that are due have been looked at; the next step begins at the oldest again."""
        return self._cursor >= self._horizon

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

    def _advance_horizon(self) -> None:
        """What is the last row now will be due, with all before it, after the delay."""
        now_ns = self._clock.monotonic_ns()
        (last,) = self._store.transact([_last_row])
        if last is not None and (not self._marks or self._marks[-1][1] != last):
            self._marks.append((now_ns, last))
        while self._marks and now_ns - self._marks[0][0] >= self._delay_ns:
            self._horizon = self._marks.popleft()[1] + b"\0"

    def _claim(self, txn: Transaction) -> tuple[list[_Claimed], int, bytes]:
        """Looks at one page of due rows; (files whose chunks have to go, inodes removed, next
        row)."""
        claimed: list[_Claimed] = []
        removed = 0
        rows = txn.get_range(self._cursor, self._horizon, limit=PAGE)
        for key, record in rows:
            number = keys.garbage_fields(key)[1]
            inode = inodes.find(txn, number)
            if inode is None:
                txn.clear(key)
                continue
            if inode.nlink or self._in_use(txn, number):
                continue  # a named inode in the queue is damage: fsck reports it, nothing is lost
            if inode.type != FILE or not inode.has_data:
                _delete(txn, key, number)
                removed += 1
            else:
                if not inode.flags & REMOVING:
                    inode.flags |= REMOVING
                    inodes.store(txn, inode)
                claimed.append(_Claimed(key, number, inode.layout, garbage.decode(key, record)))
            if len(claimed) == ROWS_PER_STEP:
                return claimed, removed, key + b"\0"
        return claimed, removed, rows[-1][0] + b"\0" if len(rows) == PAGE else self._horizon

    def _in_use(self, txn: Transaction, inode: int) -> bool:
        return (
            self._store.env.clients.is_read(inode)
            or session.is_open_for_write(txn, inode)
            or txn.get(keys.intent(inode)) is not None
        )

    def _cut(self, file: _Claimed) -> bool:
        """Step 3 of one file; False when storage refused and it has to be repeated."""
        step_bytes = limits.GC_CHUNKS_PER_STEP * file.layout.chunk_size
        remaining = file.remaining
        try:
            if remaining == UNKNOWN:
                remaining = self._chunks.query_length(file.inode, file.layout)
            while remaining > step_bytes:
                # From the end, so that what is left is a prefix and one number describes it.
                shorter = remaining - step_bytes
                self._chunks.truncate_chunks(file.inode, file.layout, remaining, shorter)
                remaining = shorter
                self._note(file, remaining)
            self._chunks.remove_chunks(file.inode, file.layout, remaining)
        except Fs3Error as error:
            log.info("removal of inode %d goes on later: %s", file.inode, error)
            return False
        return True

    def _note(self, file: _Claimed, remaining: int) -> None:
        self._store.transact([lambda txn: txn.set(file.key, garbage.encode(remaining))])


def _last_row(txn: Transaction) -> bytes | None:
    begin, end = keys.GARBAGE, keys.prefix_end(keys.GARBAGE)
    newest = txn.get_range(begin, end, limit=1, reverse=True, snapshot=True)
    return newest[0][0] if newest else None


def _delete(txn: Transaction, key: bytes, number: int) -> None:
    txn.clear(keys.inode(number))
    txn.clear(key)
