"""Takes the entries out of trees in removal (tree.py), a bounded part in each transaction.

Every step leaves a sound name space: what was taken out is in the gc queue, a tree in removal
itself, or in /lost+found; the rest still hangs where it hung. A crash costs nothing: the row is
there until its directory is empty. No delay: the names are gone, and files wait in the gc queue for
those who have them open.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fs3 import limits
from fs3.errors import Damaged
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, lost_found, tree
from fs3.meta import inode as inodes
from fs3.meta.inode import Inode
from fs3.meta.ops.remove_tree import may_empty, may_take
from fs3.meta.permission import Caller
from fs3.meta.store import MetaStore

__all__ = ["TreeRemover"]

log = logging.getLogger(__name__)

TREES_PER_STEP = 8


@dataclass
class _Step:
    """One transaction on one tree: lost_found.World, and what to tell when it is committed."""

    now_ns: int
    new_inode: Callable[[], int]
    taken: int = 0
    kept: list[str] = field(default_factory=list)


class TreeRemover:
    """One worker; step() is called by one thread."""

    def __init__(self, store: MetaStore, guard: Callable[[Transaction], None]) -> None:
        """`guard` raises in the transactions of a worker whose turn is over."""
        self._store = store
        self._guard = guard
        self._cursor = keys.TREE

    def step(self) -> int:
        """A bounded part of the work; how many entries were taken out. 0: nothing is to be done,
        or nothing can be."""
        taken = 0
        for inode in self._next():
            step = _Step(self._store.wall_ns(), self._store.env.allocator.take)
            try:
                self._store.mend(partial(self._empty, inode, step))
            except (Damaged, lost_found.Unusable) as error:
                log.error("the tree below inode %d waits: %s", inode, error)
                continue
            taken += step.taken
            for line in step.kept:
                log.warning("removal of a tree: %s", line)
        return taken

    def _next(self) -> list[int]:
        """The next trees, from the first again after the last."""
        (rows,) = self._store.transact([self._page])
        if not rows and self._cursor != keys.TREE:
            self._cursor = keys.TREE
            (rows,) = self._store.transact([self._page])
        self._cursor = rows[-1] + b"\0" if rows else keys.TREE
        return [keys.inode_of(key) for key in rows if len(key) == len(keys.tree(0))]

    def _page(self, txn: Transaction) -> list[bytes]:
        end = keys.prefix_end(keys.TREE)
        pairs = txn.get_range(self._cursor, end, limit=TREES_PER_STEP, snapshot=True)
        return [key for key, _ in pairs]

    def _empty(self, number: int, step: _Step, txn: Transaction) -> None:
        self._guard(txn)
        step.taken, step.kept = 0, []  # it may run again
        record = txn.get(keys.tree(number))
        directory = inodes.find(txn, number)
        if record is None or directory is None or directory.nlink or not directory.is_directory:
            return  # damage, if it is there: fsck reports it
        caller = tree.decode(number, record).caller
        entries = dirent.listing(txn, number, 0, limits.TREE_ENTRIES_PER_STEP)
        for entry in entries:
            _take(txn, directory, entry, caller, step)
        step.taken = len(entries) or 1
        if len(entries) < limits.TREE_ENTRIES_PER_STEP:
            tree.remove(txn, number)
            garbage.put(txn, number, step.now_ns)


def _take(
    txn: Transaction, directory: Inode, entry: dirent.Dirent, caller: Caller, step: _Step
) -> None:
    """One entry, as rm -r in the name of `caller` would."""
    dirent.remove(txn, directory.number, entry.name)
    inode = inodes.find(txn, entry.inode)
    if inode is None:
        return
    full = inode.is_directory and not dirent.is_empty(txn, inode.number)
    if not may_take(directory, inode, caller) or (full and not may_empty(inode, caller)):
        name = lost_found.put(txn, step, inode)
        inode.ctime_ns = step.now_ns
        inodes.store(txn, inode)
        step.kept.append(
            f"uid {caller.uid} may not remove {entry.name!r} of directory {directory.number}; "
            f"it is now /lost+found/{name.decode()}"
        )
    elif full:
        tree.detach(txn, inode, caller, step.now_ns)
    else:
        garbage.drop_link(txn, inode, step.now_ns)
