"""Planted bugs of the metadata service and of its clients; found by tests/sim/meta_world.py."""

from __future__ import annotations

from typing import Any

from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import session as sessions
from fs3.meta.allocator import InodeAllocator
from fs3.meta.idempotency import GENERATIONS_SEEN, Idempotency
from fs3.meta.ports import Measure
from tests.sim.bugs import Bugs

__all__ = ["META_BUGS"]


class RenameWithoutLoopCheck(Bugs):
    name = "rename-without-loop-check"
    patches = (("fs3.meta.ops.rename._refuse_loops", lambda txn, ends, exchange: None),)


class NoIdempotencyRow(Bugs):
    name = "create-without-idempotency-row"
    patches = (("fs3.meta.store.Idempotency.record", lambda *arguments: None),)


def _begin_far_on(txn: Transaction) -> None:
    real_begin(txn)
    present = int.from_bytes(txn.get(keys.GENERATION) or b"", "big")
    txn.set(keys.GENERATION, (present + GENERATIONS_SEEN).to_bytes(4, "big"))


real_begin = Idempotency.begin


class RowsForgottenAtRestart(Bugs):
    """A restart begins a generation that sees no rows of its former life."""

    name = "idempotency-forgotten-at-restart"
    patches = (("fs3.meta.store.Idempotency.begin", staticmethod(_begin_far_on)),)


class UnknownCommitIsFailure(Bugs):
    """After a commit whose outcome it does not know, the service says that it failed."""

    name = "unknown-commit-treated-as-failure"
    meta_goes_on = True


class GcWithSessionOpen(Bugs):
    """Chunks go while somebody has the file open."""

    name = "unlink-frees-chunks-with-a-session-open"
    patches = (("fs3.meta.gc.GarbageCollector._in_use", lambda self, txn, inode: False),)


class GcForgetsChunks(Bugs):
    """The inode record goes, the chunks stay, and nobody looks again."""

    name = "gc-deletes-the-inode-before-the-chunks"
    patches = (
        ("fs3.meta.gc.GarbageCollector._cut", lambda self, file: True),
        ("fs3.meta.tombstone.put", lambda txn, inode: None),
    )


class GcLooksOnce(Bugs):
    """What is written after the chunks went, with a capability that is still valid, stays."""

    name = "gc-does-not-look-for-late-writes"
    patches = (("fs3.meta.gc.GarbageCollector._cut_late", lambda self, late: True),)


class GcSweepsEarly(Bugs):
    """... it looks again, and the capability is still valid."""

    name = "gc-sweeps-before-capabilities-have-ended"
    patches = (("tests.sim.meta_server.SWEEP_S", 2.0),)


class LengthTrusted(Bugs):
    """A client's length counts also when a truncate came since it opened the file."""

    name = "length-from-client-trusted"
    patches = (("fs3.meta.context.Context.measure", lambda self, inode: Measure(1 << 50, 1 << 50)),)


class TruncateNotFinished(Bugs):
    """A truncate is answered before its chunks are cut, and nothing waits for it."""

    name = "truncate-races-append"
    patches = (
        ("fs3.meta.ops.open.wait_for_intent", lambda txn, inode: None),
        ("fs3.meta.settle.wait_for_intent", lambda txn, inode: None),
    )


class IntentsForgotten(Bugs):
    """A restart does not go on with the truncates that were under way."""

    name = "truncate-forgotten-at-restart"
    patches = (("fs3.meta.store.intent.all_intents", lambda txn: []),)


class RefusalsNotRecorded(Bugs):
    """A copy of a request that was refused does what its client believes not to have happened."""

    name = "refusals-not-recorded"
    patches = (("fs3.meta.store.MetaStore._record_refusals", lambda *arguments: None),)


class NewRequestId(Bugs):
    """A client repeats a request under a new id."""

    name = "retry-with-a-new-request-id"

    def request_id(self, first: int, attempt: int) -> int:
        return first + attempt * 1_000_000


def _take_again(self: InodeAllocator) -> Any:
    taken = real_take(self)
    return taken if int(taken) % 7 else type(taken)(int(taken) - 1)


real_take = InodeAllocator.take


class InodeUsedAgain(Bugs):
    name = "inode-id-used-again"
    patches = (("fs3.meta.allocator.InodeAllocator.take", _take_again),)


def _unlink_and_forget(txn: Transaction, inode: inodes.Inode, now_ns: int) -> bool:
    """Without the row of the gc queue."""
    inode.nlink -= 1
    inode.ctime_ns = now_ns
    inodes.store(txn, inode)
    return inode.nlink == 0


class UnlinkWithoutQueue(Bugs):
    """The last name goes, and nobody is told to collect the file."""

    name = "unlink-without-a-row-in-the-gc-queue"
    patches = (("fs3.meta.ops.unlink.garbage.drop_link", _unlink_and_forget),)


def _remove_half(txn: Transaction, session: sessions.Session) -> None:
    txn.clear(keys.client_session(session.client, session.inode, session.id))


class SessionNotRemoved(Bugs):
    """A close removes the session's index row only."""

    name = "close-leaves-the-session"
    patches = (("fs3.meta.ops.close.session.remove", _remove_half),)


class PruneTrustsOldLength(Bugs):
    """The sessions of a dead client end without asking storage where its data ends."""

    name = "prune-without-asking-storage"
    patches = (("fs3.meta.prune._settle", lambda inode, length, now_ns: None),)


META_BUGS: tuple[type[Bugs], ...] = (
    RenameWithoutLoopCheck,
    NoIdempotencyRow,
    RowsForgottenAtRestart,
    UnknownCommitIsFailure,
    GcWithSessionOpen,
    GcForgetsChunks,
    GcLooksOnce,
    GcSweepsEarly,
    LengthTrusted,
    TruncateNotFinished,
    IntentsForgotten,
    NewRequestId,
    RefusalsNotRecorded,
    InodeUsedAgain,
    UnlinkWithoutQueue,
    SessionNotRemoved,
    PruneTrustsOldLength,
)
