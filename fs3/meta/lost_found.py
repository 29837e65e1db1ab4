"""/lost+found: where what no path leads to is put, by fs3 check --repair (repair.py) and by the
removal of trees (tree_removal.py). Names there are #NUMBER, the number of the inode."""

from typing import Protocol

from fs3.kv.api import Transaction
from fs3.meta import birth, dirent
from fs3.meta import inode as inodes
from fs3.meta.inode import Inode
from fs3.types import ROOT_INODE

__all__ = ["LOST_AND_FOUND", "Unusable", "World", "put"]

LOST_AND_FOUND = b"lost+found"
_NAMES_TRIED = 1000


class World(Protocol):
    """What is needed besides the transaction."""

    now_ns: int

    def new_inode(self) -> int: ...


class Unusable(Exception):
    """Why nothing can be put there."""


def put(txn: Transaction, world: World, inode: Inode) -> bytes:
    """The entry, and the parent pointer of a directory; the caller stores `inode`. Its name.
    Raises Unusable."""
    directory = _directory(txn, world)
    if directory.number == inode.number:
        raise Unusable("/lost+found itself is damaged")
    stem = b"#%d" % inode.number
    names = [stem, *(stem + b"-%d" % i for i in range(2, _NAMES_TRIED))]
    name = next((n for n in names if dirent.find(txn, directory.number, n) is None), None)
    if name is None:
        raise Unusable(f"/lost+found has {_NAMES_TRIED} names of inode {inode.number}")
    dirent.store(txn, directory.number, name, inode.number, inode.type)
    if inode.is_directory:
        inode.parent = directory.number
        directory.add_subdirectories(1)
    directory.touch(world.now_ns)
    inodes.store(txn, directory)
    return name


def _directory(txn: Transaction, world: World) -> Inode:
    root = inodes.find(txn, ROOT_INODE)
    if root is None or not root.is_directory:
        raise Unusable("the root directory is damaged: restore the store from a backup")
    known = dirent.find(txn, ROOT_INODE, LOST_AND_FOUND)
    if known is not None:
        directory = inodes.find(txn, known.inode)
        if directory is None or not directory.is_directory:
            raise Unusable("/lost+found is no directory: move it away first")
        return directory
    owner = (root.uid, root.gid)
    number = world.new_inode()
    return birth.make_reserved(txn, root, LOST_AND_FOUND, number, owner, 0o700, world.now_ns)
