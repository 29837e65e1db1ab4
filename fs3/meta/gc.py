"""Removes inodes without a name, and their chunks. Resumable at every point, bounded in every step.

A row of the gc queue (garbage.py) goes through

    1. due       queued longer than the delay ago, no session, no reader that its client listed, no
       truncate
    2. claimed   REMOVING is set on the inode: it cannot be opened any more          one transaction
    3. cut       chunks go, at most GC_CHUNKS_PER_STEP per call; `remaining` shrinks in the row
    4. deleted   inode and row go; a tombstone is left of a file that somebody could
                 write to                                                            one transaction
    5. swept     when the last capability to write has ended: storage is asked again, and what came
                 late goes, too (tombstone.py)

A crash leaves the row, and the next start goes on: removing chunks twice is harmless. What has no
chunks goes from 1 to 4 in one transaction. The delay counts on this process's clock, from when it
ended the epoch of the row (garbage.py), so a restart, or another leader, starts it anew: clients
have to come back with their keepalives before anything they read is removed.

Directories that still have entries are emptied first, by tree_removal.py; what comes out of the
trash goes that way, too (trash_cleaner.py).
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from fs3 import limits
from fs3.auth.capability import EXPIRY_SLACK_MS
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, session, tombstone
from fs3.meta import inode as inodes
from fs3.meta.garbage import UNKNOWN
from fs3.meta.inode import FILE, REMOVING, SPARSE, WRITABLE, Inode, Layout
from fs3.meta.ports import ChunkPort
from fs3.meta.store import MetaStore
from fs3.meta.tombstone import Tombstone
from fs3.meta.trash_cleaner import TrashCleaner
from fs3.meta.tree_removal import TreeRemover
from fs3.runtime.clock import Clock
from fs3.runtime.failpoint import failpoint

__all__ = ["GarbageCollector", "GcStatistics"]

log = logging.getLogger(__name__)

T = TypeVar("T")

DELAY_S_DEFAULT = 10.0
MARKS_PER_DELAY = 8  # an epoch is at most that part of the delay long
# A capability to write, what storage grants for clocks that differ, and the longest that a write
# which was taken in time may need from one end of its chain to the other.
SWEEP_S_DEFAULT = limits.CAPABILITY_LIFETIME_S + EXPIRY_SLACK_MS / 1000 + 60.0
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
    taken_from_trees: int
    removed: int
    failed: int
    swept: int  # files of which a late write had left something
    waiting_marks: int


class Parallel(Protocol):
    """As map()."""

    def __call__(self, work: Callable[[T], bool], rows: Iterable[T], /) -> Iterator[bool]: ...


class _Page(NamedTuple):
    """What one look at the rows found."""

    claimed: list[_Claimed]  # files whose chunks have to go
    removed: int  # inodes that had none
    cursor: bytes  # where the next page begins
    fresh: bool  # there are rows whose epoch has not ended
    tombstones: list[Tombstone]  # that are due


class _Epochs:
    """When epochs ended, on the clock of this process."""

    def __init__(self) -> None:
        self.newest = 0
        self._ended_ns: list[int] = []
        self._epochs: list[int] = []

    def __len__(self) -> int:
        return len(self._epochs)

    def end(self, epoch: int, now_ns: int) -> None:
        self.newest = epoch
        self._ended_ns.append(now_ns)
        self._epochs.append(epoch)

    def ended_before(self, time_ns: int) -> int:
        """The newest one that ended then or earlier; 0: none."""
        count = bisect_right(self._ended_ns, time_ns)
        return self._epochs[count - 1] if count else 0

    def ended_since(self, time_ns: int) -> bool:
        return bool(self._ended_ns) and self._ended_ns[-1] > time_ns

    def forget_before(self, time_ns: int) -> None:
        """But the newest of them."""
        keep = max(bisect_right(self._ended_ns, time_ns) - 1, 0)
        del self._ended_ns[:keep], self._epochs[:keep]


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
        sweep_s: float = SWEEP_S_DEFAULT,
        parallel: Parallel = map,
        guard: Callable[[Transaction], None] = lambda txn: None,
    ) -> None:
        """`guard` raises in the transactions of a worker whose turn is over."""
        self._store = store
        self._chunks = chunks
        self._clock = clock
        self._delay_ns = int(delay_s * 1e9)
        self._sweep_ns = int(max(sweep_s, delay_s) * 1e9)
        self._parallel = parallel
        self._guard = guard
        self._trash = TrashCleaner(store, clock, guard)
        self._trees = TreeRemover(store, guard)
        self._taken = 0
        self.begin_term()
        self._removed = 0
        self._failed = 0
        self._swept = 0

    def begin_term(self) -> None:
        """Forgets since when rows have been waiting."""
        self._epochs = _Epochs()
        self._cursor = keys.GARBAGE
        self._sweep_cursor = keys.TOMBSTONE
        self._fresh = False  # rows of an epoch that has not ended were seen

    def step(self) -> int:
        """A bounded part of the work; how many inodes were removed, and entries taken out of trees
        in removal. 0 means: come again later."""
        taken = self._trash.step() + self.empty_trees()
        now_ns = self._clock.monotonic_ns()
        self._epochs.forget_before(now_ns - self._sweep_ns)
        page: _Page
        (page,) = self._transact([partial(self._claim, now_ns)])
        self._cursor = page.cursor
        more = len(page.tombstones) == ROWS_PER_STEP
        self._sweep_cursor = page.tombstones[-1].key + b"\0" if more else keys.TOMBSTONE
        if page.claimed:
            failpoint("gc.claimed")
        self._fresh = self._fresh or page.fresh
        self._mark(now_ns)
        removed = page.removed + self._empty(page.claimed)
        self._removed += removed
        self._sweep(page.tombstones)
        return removed + taken

    def _empty(self, claimed: list[_Claimed]) -> int:
        """Steps 3 and 4; how many are gone."""
        emptied = [
            file
            for file, done in zip(claimed, self._parallel(self._cut, claimed), strict=True)
            if done
        ]
        if emptied:
            self._transact([partial(_delete_emptied, key=f.key, number=f.inode) for f in emptied])
            failpoint("gc.deleted")
        self._failed += len(claimed) - len(emptied)
        return len(emptied)

    def empty_trees(self) -> int:
        """The part of a step that empties trees in removal; how many entries were taken out."""
        taken = self._trees.step()
        self._taken += taken
        return taken

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
        return GcStatistics(
            self._taken, self._removed, self._failed, self._swept, len(self._epochs)
        )

    def _mark(self, now_ns: int) -> None:
        """Ends the present epoch: its rows are due in a delay from now."""
        if self._fresh and not self._epochs.ended_since(now_ns - self._delay_ns // MARKS_PER_DELAY):
            (ended,) = self._transact([garbage.next_epoch])
            failpoint("gc.epoch_ended")
            self._epochs.end(ended, now_ns)
            self._fresh = False

    def _claim(self, now_ns: int, txn: Transaction) -> _Page:
        """Looks at one page of rows."""
        due = self._epochs.ended_before(now_ns - self._delay_ns)
        sweep_due = self._epochs.ended_before(now_ns - self._sweep_ns)
        tombstones = tombstone.page(txn, self._sweep_cursor, sweep_due, ROWS_PER_STEP)
        claimed: list[_Claimed] = []
        removed = 0
        seen_due = False
        fresh = tombstone.newest_epoch(txn) > self._epochs.newest
        rows = txn.get_range(self._cursor, keys.prefix_end(keys.GARBAGE), limit=PAGE, snapshot=True)
        for key, record in rows:
            row = garbage.decode(key, record)
            if row.epoch > due:
                fresh = fresh or row.epoch > self._epochs.newest
                continue
            seen_due = True
            number = keys.garbage_fields(key)[1]
            inode = inodes.find(txn, number)
            if inode is None:
                txn.clear(key)
                continue
            if inode.nlink or self._in_use(txn, number):
                continue  # a named inode in the queue is damage: fsck reports it, nothing is lost
            if inode.is_directory and not dirent.is_empty(txn, number):
                continue  # damage as well: trees are not emptied here
            if inode.type != FILE or not inode.has_data:
                _delete(txn, key, inode)
                removed += 1
            else:
                if not inode.flags & REMOVING:
                    inode.flags |= REMOVING
                    inodes.store(txn, inode)
                sparse = bool(inode.flags & SPARSE)
                claimed.append(_Claimed(key, number, inode.layout, sparse, *row))
            if len(claimed) == ROWS_PER_STEP:
                return _Page(claimed, removed, key + b"\0", fresh, tombstones)
        # The order is only near that of the epochs, but a page without due rows is the end.
        more = len(rows) == PAGE and seen_due
        cursor = rows[-1][0] + b"\0" if more else keys.GARBAGE
        return _Page(claimed, removed, cursor, fresh, tombstones)

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
                remaining = self._length(file.inode, file.layout)
                failpoint("gc.measured")
            while remaining > step_bytes:
                # From the end, so that what is left is a prefix and one number describes it.
                shorter = remaining - step_bytes
                self._chunks.truncate_chunks(file.inode, file.layout, remaining, shorter)
                # A hole costs one question, however long it is.
                remaining = shorter
                if file.sparse:
                    remaining = min(shorter, self._length(file.inode, file.layout))
                failpoint("gc.shortened")
                self._note(file, remaining)
                failpoint("gc.noted")
            self._chunks.remove_chunks(file.inode, file.layout, remaining)
            failpoint("gc.emptied")
        except OSError as error:
            log.info("removal of inode %d goes on later: %s", file.inode, error)
            return False
        return True

    def _length(self, inode: int, layout: Layout) -> int:
        return self._chunks.measure(inode, layout).length

    def _sweep(self, tombstones: list[Tombstone]) -> None:
        """Step 5."""
        done = self._parallel(self._cut_late, tombstones)
        swept = [each for each, ended in zip(tombstones, done, strict=True) if ended]
        if swept:
            self._transact([partial(tombstone.remove, tombstone=each) for each in swept])
            failpoint("gc.sweep_ended")

    def _cut_late(self, late: Tombstone) -> bool:
        """False when storage refused and it has to be repeated."""
        try:
            (there,) = self._transact([lambda txn: inodes.find(txn, late.inode)])
            if there is not None:
                log.error("inode %d has a tombstone and is there; run fs3 check", late.inode)
                return False
            length = self._length(late.inode, late.layout)
            if length:
                self._chunks.remove_chunks(late.inode, late.layout, length)
            failpoint("gc.swept")
        except OSError as error:
            log.info("inode %d is swept later: %s", late.inode, error)
            return False
        if length:
            self._swept += 1
            log.info("inode %d had been written to after its removal; swept", late.inode)
        return True

    def _note(self, file: _Claimed, remaining: int) -> None:
        row = garbage.Row(remaining, file.epoch).encode()
        self._transact([lambda txn: txn.set(file.key, row)])


def _delete_emptied(txn: Transaction, key: bytes, number: int) -> None:
    inode = inodes.find(txn, number)
    if inode is None:
        txn.clear(key)
    else:
        _delete(txn, key, inode)


def _delete(txn: Transaction, key: bytes, inode: Inode) -> None:
    if inode.type == FILE and (inode.has_data or inode.flags & WRITABLE):
        tombstone.put(txn, inode)
    inodes.erase(txn, inode)
    txn.clear(key)
