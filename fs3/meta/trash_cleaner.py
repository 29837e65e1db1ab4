"""Ends what has been in the trash long enough (trash.py).

A bucket whose time has come becomes a tree in removal, in the name of its owner, who is the one
that removed what is in it. tree_removal.py does the rest, and puts into /lost+found what he may not
remove for good.
"""

from collections.abc import Callable
from typing import NamedTuple

from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, tree
from fs3.meta import inode as inodes
from fs3.meta.permission import Caller
from fs3.meta.store import MetaStore
from fs3.runtime.clock import Clock
from fs3.runtime.failpoint import failpoint
from fs3.trash import ROOT_NAME, Bucket
from fs3.types import ROOT_INODE

__all__ = ["TrashCleaner"]

LOOK_S = 60.0  # as fine as the buckets
BUCKETS_PER_STEP = 64
PAGE = 256


class _Expired(NamedTuple):
    own: int  # the directory of one user
    name: bytes


class TrashCleaner:
    """One worker; step() is called by one thread."""

    def __init__(
        self, store: MetaStore, clock: Clock, guard: Callable[[Transaction], None]
    ) -> None:
        """`guard` raises in the transactions of a worker whose turn is over."""
        self._store = store
        self._clock = clock
        self._guard = guard
        self._look_ns = clock.monotonic_ns() + int(LOOK_S * 1e9)

    def step(self) -> int:
        """A bounded part of the work; how many buckets went. 0: nothing has expired, or it is not
        yet time to look again."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._look_ns:
            return 0
        ended: int
        (ended,) = self._store.transact([self._end_expired])
        if ended < BUCKETS_PER_STEP:
            self._look_ns = now_ns + int(LOOK_S * 1e9)
        failpoint("trash.ended")
        return ended

    def _end_expired(self, txn: Transaction) -> int:
        self._guard(txn)
        now_ns = self._store.wall_ns()
        trash = dirent.find(txn, ROOT_INODE, ROOT_NAME)
        ended = 0
        for own in _entries(txn, trash.inode) if trash is not None else []:
            for entry in _entries(txn, own.inode):
                bucket = Bucket.parse(entry.name)
                if bucket is None or bucket.expires_s > now_ns // 10**9:
                    continue
                ended += _end(txn, _Expired(own.inode, entry.name), now_ns)
                if ended == BUCKETS_PER_STEP:
                    return ended
        return ended


def _entries(txn: Transaction, directory: int) -> list[dirent.Dirent]:
    entries: list[dirent.Dirent] = []
    while True:
        page = dirent.listing(txn, directory, entries[-1].order if entries else 0, PAGE)
        entries += page
        if len(page) < PAGE:
            return entries


def _end(txn: Transaction, expired: _Expired, now_ns: int) -> bool:
    """False when it is something else that has the name of a bucket."""
    own = inodes.find(txn, expired.own)
    entry = dirent.find(txn, expired.own, expired.name)
    bucket = inodes.find(txn, entry.inode) if entry is not None else None
    if own is None or not own.is_directory or bucket is None or not bucket.is_directory:
        return False
    dirent.remove(txn, own.number, expired.name)
    own.add_subdirectories(-1)
    own.touch(now_ns)
    inodes.store(txn, own)
    if dirent.is_empty(txn, bucket.number):
        garbage.drop_link(txn, bucket, now_ns)
    else:
        tree.detach(txn, bucket, Caller(bucket.uid, bucket.gid), now_ns)
    return True
