"""Extended attributes: load, store, list, check. Key: XATT (fs3/kv/keys.py); record: schema, value.

An inode with at least one has HAS_XATTRS, one with an ACL or a time to keep what is removed a flag
for that as well, so that nobody else pays a read for them. They go with the inode.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fs3 import trash
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import acl
from fs3.meta.acl import Acl

if TYPE_CHECKING:
    from fs3.meta.inode import Inode

SCHEMA = 1
HAS_XATTRS, HAS_ACCESS_ACL, HAS_DEFAULT_ACL = 0x4, 0x100, 0x200  # flags of the inode
KEEPS_TRASH = 0x800  # as well
ACL_FLAGS = {acl.ACCESS: HAS_ACCESS_ACL, acl.DEFAULT: HAS_DEFAULT_ACL}
FLAGS = ACL_FLAGS | {trash.KEEPS: KEEPS_TRASH}
CAPABILITY = b"security.capability"  # what a program may when it runs; gone when it is changed


def encode(value: bytes) -> bytes:
    return bytes([SCHEMA]) + value


def decode(inode: int, name: bytes, record: bytes) -> bytes:
    """Raises Damaged for another schema, or an ACL that is none."""
    value = record[1:]
    if record[:1] != bytes([SCHEMA]):
        raise _damaged(inode, name, f"schema {record[:1].hex()}")
    if name in ACL_FLAGS:
        _acl(inode, name, value)
    return value


def flags_of(names: Iterable[bytes]) -> int:
    """Of an inode with these attributes and no others."""
    flags = 0
    for name in names:
        flags |= HAS_XATTRS | FLAGS.get(name, 0)
    return flags


def find(txn: Transaction, inode: "Inode", name: bytes) -> bytes | None:
    if not inode.flags & HAS_XATTRS:
        return None
    record = txn.get(keys.xattr(inode.number, name))
    return decode(inode.number, name, record) if record is not None else None


def load_acl(txn: Transaction, inode: "Inode", name: bytes) -> Acl | None:
    """`name`: acl.ACCESS or acl.DEFAULT."""
    if not inode.flags & ACL_FLAGS[name]:
        return None
    value = find(txn, inode, name)
    if value is None:
        raise _damaged(inode.number, name, "is missing")
    return _acl(inode.number, name, value)


def sizes(txn: Transaction, inode: "Inode") -> dict[bytes, int]:
    """Length of the value by name, in the order of the names."""
    if not inode.flags & HAS_XATTRS:
        return {}
    rows = txn.get_range(*keys.xattrs(inode.number))
    return {keys.xattr_fields(key)[1]: len(record) - 1 for key, record in rows}


def store(txn: Transaction, inode: "Inode", name: bytes, value: bytes) -> None:
    """Changes the flags of `inode`; the caller stores it."""
    txn.set(keys.xattr(inode.number, name), encode(value))
    inode.flags |= HAS_XATTRS | FLAGS.get(name, 0)


def store_acl(txn: Transaction, inode: "Inode", name: bytes, value: Acl | None) -> None:
    """As store; None removes it."""
    if value is not None:
        store(txn, inode, name, value.encode())
    elif inode.flags & ACL_FLAGS[name]:
        remove(txn, inode, name)
    if name == acl.ACCESS:
        inode.acl = value


def remove(txn: Transaction, inode: "Inode", name: bytes) -> None:
    """Changes the flags of `inode`; the caller stores it."""
    txn.clear(keys.xattr(inode.number, name))
    inode.flags &= ~FLAGS.get(name, 0)
    if not txn.get_range(*keys.xattrs(inode.number), limit=1):
        inode.flags &= ~HAS_XATTRS


def remove_all(txn: Transaction, inode: "Inode") -> None:
    """The inode goes."""
    if inode.flags & HAS_XATTRS:
        for key, _ in txn.get_range(*keys.xattrs(inode.number)):
            txn.clear(key)


def drop_capability(txn: Transaction, inode: "Inode") -> None:
    """The content or the owner has changed: what was granted to the program before is void."""
    if find(txn, inode, CAPABILITY) is not None:
        remove(txn, inode, CAPABILITY)


def _acl(inode: int, name: bytes, value: bytes) -> Acl:
    try:
        found = acl.decode(value)
    except acl.BadAcl as error:
        raise _damaged(inode, name, str(error)) from None
    if found is None:
        raise _damaged(inode, name, "is empty")
    return found


def _damaged(inode: int, name: bytes, field: str) -> Damaged:
    return Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/xattr {name!r} of inode {inode}",
        f"{field}; stop the service and run fsck",
    )
