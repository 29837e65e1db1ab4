"""The second and third step of a truncate (intent.py), on job threads.

look()     somebody waits for the truncate of an inode       one job per inode
job        own intent: cut, then clear it
           another service's: look again soon; when that one is gone, take it over
           none: those who waited go on
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import intent, session
from fs3.meta.inode import HAS_DATA, SPARSE, Inode
from fs3.meta.intent import TruncateIntent
from fs3.meta.pending import Pending
from fs3.meta.ports import ChunkPort, Jobs
from fs3.runtime.failpoint import failpoint

if TYPE_CHECKING:
    from fs3.meta.store import MetaStore

__all__ = ["Truncations"]

log = logging.getLogger(__name__)

RETRY_S_MIN, RETRY_S_MAX = 0.05, 5.0  # pauses between attempts that storage or the store refused
OTHERS_S_MAX = 0.5  # between two looks at what another service cuts


class Truncations:
    def __init__(
        self,
        store: "MetaStore",
        chunks: ChunkPort,
        jobs: Jobs,
        pending: Pending,
        *,
        service: bytes,
        is_gone: Callable[[bytes], bool],
        finished: Callable[[int], None],
    ) -> None:
        """`is_gone(owner)`: nothing can come of that service any more. `finished(inode)`: nothing
        is in its way any more; called with the lock of the store."""
        self._store = store
        self._chunks = chunks
        self._jobs = jobs
        self._pending = pending
        self._service = service
        self._is_gone = is_gone
        self._finished = finished

    def look(self, inode: int) -> None:
        """REQUIRES: the lock of the store."""
        if self._pending.begin_cut(inode):
            self._jobs.spawn(partial(self._look, inode, RETRY_S_MIN))

    def _look(self, inode: int, pause_s: float) -> None:
        try:
            ((wanted, mine),) = self._store.transact([partial(self._adopt, inode)])
            failpoint("truncation.taken")
        except OSError as error:
            self._later(inode, pause_s, self._look, inode, error)
            return
        if wanted is None:
            self._end(inode)
        elif mine:
            self._cut(wanted, RETRY_S_MIN)
        else:
            again = min(pause_s * 2, OTHERS_S_MAX)
            self._jobs.later(pause_s, partial(self._look, inode, again))

    def _adopt(self, inode: int, txn: Transaction) -> tuple[TruncateIntent | None, bool]:
        """The intent, and whether it is for this service to carry out."""
        wanted = intent.find(txn, inode)
        if wanted is None or wanted.owner == self._service:
            return wanted, True
        if not self._is_gone(wanted.owner):
            return wanted, False
        log.info("taking over the truncate of inode %d", inode)
        wanted = wanted._replace(owner=self._service)
        intent.store(txn, wanted)
        return wanted, True

    def _cut(self, wanted: TruncateIntent, pause_s: float) -> None:
        """Step 2."""
        try:
            (inode,) = self._store.transact([partial(_inode_to_cut, wanted)])
            stored = self._cut_chunks(wanted, inode) if inode is not None else None
            failpoint("truncation.cut")
        except OSError as error:
            self._later(wanted.inode, pause_s, self._cut, wanted, error)
            return
        self._clear((wanted, stored), RETRY_S_MIN)

    def _cut_chunks(self, wanted: TruncateIntent, inode: Inode) -> int | None:
        """What storage holds afterwards, where that is not known without asking: None where it
        is."""
        end = wanted.old_size
        if wanted.measure:
            end = max(end, self._chunks.measure(wanted.inode, inode.layout).length)
            failpoint("truncation.measured")
        if wanted.new_size == 0:
            self._chunks.remove_chunks(wanted.inode, inode.layout, end)
        elif end > wanted.new_size:
            self._chunks.truncate_chunks(wanted.inode, inode.layout, end, wanted.new_size)
        if not inode.flags & SPARSE:
            return None
        return self._chunks.measure(wanted.inode, inode.layout).stored

    def _clear(self, cut: tuple[TruncateIntent, int | None], pause_s: float) -> None:
        """Step 3. Repeated by itself: after it has happened, unknown to us, a cut would take what
        was written since."""
        wanted, stored = cut
        try:
            self._store.transact([partial(_clear_intent, wanted, stored)])
            failpoint("truncation.cleared")
        except OSError as error:
            self._later(wanted.inode, pause_s, self._clear, cut, error)
            return
        self._end(wanted.inode)

    def _end(self, inode: int) -> None:
        with self._store.lock:
            self._pending.end_cut(inode)
            self._finished(inode)

    def _later(
        self,
        inode: int,
        pause_s: float,
        step: Callable[[Any, float], None],
        subject: Any,
        error: OSError,
    ) -> None:
        log.info("truncate of inode %d goes on later: %s", inode, error)
        self._jobs.later(pause_s, partial(step, subject, min(pause_s * 2, RETRY_S_MAX)))


def _inode_to_cut(wanted: TruncateIntent, txn: Transaction) -> Inode | None:
    """None when there is nothing to cut: no inode, or the intent is not this one any more."""
    inode = inodes.find(txn, wanted.inode)
    if inode is None or intent.find(txn, wanted.inode) != wanted:
        return None
    return inode


def _clear_intent(wanted: TruncateIntent, stored: int | None, txn: Transaction) -> None:
    if intent.find(txn, wanted.inode) != wanted:
        return
    intent.remove(txn, wanted.inode)
    inode = inodes.find(txn, wanted.inode)
    if inode is None:
        return
    if stored is not None and stored != inode.stored:
        inode.note_stored(stored)
        inodes.store(txn, inode)
    if wanted.new_size > 0 or not inode.flags & HAS_DATA:
        return
    if not session.is_open_for_write(txn, wanted.inode):
        inode.flags &= ~HAS_DATA  # storage holds nothing of it any more
        inodes.store(txn, inode)
