"""Trees in removal: directories without a name that still have entries. Key: TREE (fs3/kv/keys.py);
worker: tree_removal.py.

A recursive remove takes the name of one directory away and puts it here instead of the gc queue;
the worker takes its entries away, subdirectories become rows of their own, and a directory that is
empty goes on to the gc queue as any that was removed. The row names who asked: what lies in the
tree is removed as far as he could have done it himself, one entry after the other.
"""

import struct
from typing import NamedTuple

from fs3 import limits
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta.inode import Inode
from fs3.meta.permission import Caller

SCHEMA = 1
_RECORD = struct.Struct("<BIIB")
_GROUP = struct.Struct("<I")


class Row(NamedTuple):
    inode: int
    caller: Caller  # in whose name the tree is removed


def encode(caller: Caller) -> bytes:
    groups = sorted(caller.groups)
    return _RECORD.pack(SCHEMA, caller.uid, caller.gid, len(groups)) + b"".join(
        _GROUP.pack(group) for group in groups
    )


def decode(inode: int, record: bytes) -> Row:
    if len(record) >= _RECORD.size and record[0] == SCHEMA:
        _, uid, gid, count = _RECORD.unpack_from(record)
        groups = record[_RECORD.size :]
        if len(groups) == count * _GROUP.size and count <= limits.GROUPS_MAX:
            return Row(inode, Caller(uid, gid, frozenset(g for (g,) in _GROUP.iter_unpack(groups))))
    raise Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/tree in removal {inode}",
        f"record {record[:16].hex()} does not decode; run fs3 check",
    )


def detach(txn: Transaction, directory: Inode, caller: Caller, now_ns: int) -> None:
    """A directory whose name is gone becomes a tree in removal. Nothing can be created in it from
    now on."""
    directory.nlink = 0
    directory.ctime_ns = now_ns
    inodes.store(txn, directory)
    txn.set(keys.tree(directory.number), encode(caller))


def remove(txn: Transaction, inode: int) -> None:
    txn.clear(keys.tree(inode))
