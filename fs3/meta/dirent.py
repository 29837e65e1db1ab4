"""Directory entries: load, store, list. Key: DENT (fs3/kv/keys.py); record: schema, type, inode."""

import errno
import struct
from typing import NamedTuple

from fs3 import limits
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta.faults import refuse

SCHEMA = 1
_RECORD = struct.Struct("<BBQ")


class Dirent(NamedTuple):
    name: bytes
    inode: int
    type: int
    order: int = 0  # the readdir cookie; filled in by listing

    def encode(self) -> bytes:
        return _RECORD.pack(SCHEMA, self.type, self.inode)


def decode(name: bytes, record: bytes, order: int = 0) -> Dirent:
    if len(record) != _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/entry {name!r}",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, kind, inode = _RECORD.unpack(record)
    return Dirent(name, inode, kind, order)


def check_name(name: bytes, where: str) -> None:
    """One component: 1 to 255 bytes, no "/", no NUL, not "." or "..". Names are data, never
    paths."""
    if len(name) > limits.NAME_BYTES_MAX:
        raise refuse(errno.ENAMETOOLONG, where, f"name: {len(name)} bytes, at most 255")
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise refuse(errno.EINVAL, where, f"name: {name!r} is no file name")


def find(txn: Transaction, parent: int, name: bytes) -> Dirent | None:
    record = txn.get(keys.dentry(parent, name))
    return decode(name, record) if record is not None else None


def load(txn: Transaction, parent: int, name: bytes, where: str) -> Dirent:
    found = find(txn, parent, name)
    if found is None:
        raise refuse(errno.ENOENT, where, f"no entry {name!r} in inode {parent}")
    return found


def store(txn: Transaction, parent: int, name: bytes, inode: int, kind: int) -> None:
    txn.set(keys.dentry(parent, name), _RECORD.pack(SCHEMA, kind, inode))


def remove(txn: Transaction, parent: int, name: bytes) -> None:
    txn.clear(keys.dentry(parent, name))


def is_empty(txn: Transaction, directory: int) -> bool:
    return not txn.get_range(*keys.dentry_range(directory), limit=1)


def listing(txn: Transaction, directory: int, after_order: int, limit: int) -> list[Dirent]:
    """At least `limit` entries behind `after_order`, fewer at the end. Entries of equal order stay
    on one page: the cookie of the last one would hide its twins."""
    begin, end = keys.dentry_range(directory, after_order)
    pairs = txn.get_range(begin, end, limit=limit)
    if len(pairs) == limit:
        last_key = pairs[-1][0]
        twins_end = keys.dentry_range(directory, keys.dentry_fields(last_key)[1])[0]
        pairs += txn.get_range(last_key + b"\0", twins_end)
    entries = []
    for key, record in pairs:
        _, order, name = keys.dentry_fields(key)
        entries.append(decode(name, record, order))
    return entries
