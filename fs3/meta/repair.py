"""Mends what fsck found, one finding per transaction.

A finding comes from a check of some version; by now somebody may have changed what it is about. So
each mend looks again, inside its transaction, and does nothing when the damage is not there any
more. The version of the inode tells: every change of its names or its link count stores it.

| mend | what it does |
|---|---|
| adopt | an inode without a name gets one in /lost+found: #NUMBER |
| queue | an inode without links goes into the gc queue |
| nlink | the link count becomes the counted one |
| reserve | the allocator's counter goes above the inode |
| drop_entry | an entry of a missing inode goes |
| drop_spare | one of several entries of a directory goes |
| retype | the type in an entry becomes the inode's |
| rename | an entry moves to the key of its name; with a bad name, to /lost+found |
| rescue | an entry moves from where no path leads to /lost+found |
| parent | the parent pointer of a directory becomes the directory of its entry |
| drop_row | a row of the gc queue goes whose inode is gone, has a name, or has another row |
| drop_tombstone | the tombstone of a file that is there goes |
| drop_session, drop_index, index_session | sessions and their index agree again |
| drop_xattr | an extended attribute of a missing inode goes |
| xattr_flags | the flags of an inode become those of the attributes that are there |
| acl_mode | an access ACL takes over the mode; one that says no more goes |
| drop_intent, drop_appends | a truncate of what is no file goes; what was reserved there |
| drop_tree | a row of a tree in removal goes whose inode is gone, has a name, or is no directory |
| recount | an account gets the difference to what its inodes add up to; `key` ends with it |
| drop_limit | a limit of a tree goes whose directory is none |
| revive | a directory without a name that has entries, and nobody removed, goes to /lost+found |

Nothing here removes a record that is the only one of its kind: inodes, and with them chunks, go by
the gc queue only, and only when they had no link before.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import acl, dirent, garbage, lost_found, quota, session, xattr
from fs3.meta import inode as inodes
from fs3.meta.inode import DIRECTORY, FILE, REMOVING, Inode
from fs3.meta.lost_found import LOST_AND_FOUND, World

__all__ = ["LOST_AND_FOUND", "Mend", "NotMended", "World", "repair"]


@dataclass(frozen=True, slots=True)
class Mend:
    """What to do. `version`: of the inode when the damage was found."""

    kind: str
    inode: int = 0
    version: int = 0
    key: bytes = b""
    number: int = 0


class NotMended(Exception):
    """Nothing may be written: the damage is not there any more, not as it was, or in the way."""

    def __init__(self, why: str = "it has changed since it was found") -> None:
        super().__init__(why)


def repair(txn: Transaction, mend: Mend, world: World) -> str:
    """What was done. Raises NotMended, or Damaged when a record on the way does not decode; the
    transaction must not be committed then."""
    act = _MENDS.get(mend.kind)
    if act is None:
        raise NotMended(f"kind: {mend.kind!r} is no mend")
    return act(txn, mend, world)


# -- what is looked at again -----------------------------------------------------------------------


def _inode(txn: Transaction, mend: Mend) -> Inode:
    found = inodes.find(txn, mend.inode)
    if found is None or found.version != mend.version:
        raise NotMended
    return found


def _entry(txn: Transaction, mend: Mend) -> tuple[int, dirent.Dirent]:
    record = txn.get(mend.key)
    if record is None or not mend.key.startswith(keys.DENTRY) or len(mend.key) < 21:
        raise NotMended
    parent, order, name = keys.dentry_fields(mend.key)
    entry = dirent.decode(name, record, order)
    if entry.inode != mend.inode:
        raise NotMended
    return parent, entry


def _require(condition: object) -> None:
    if not condition:
        raise NotMended


# -- /lost+found -----------------------------------------------------------------------------------


def _put_into_lost_and_found(txn: Transaction, world: World, inode: Inode) -> bytes:
    """lost_found.put. Its name."""
    try:
        return lost_found.put(txn, world, inode)
    except lost_found.Unusable as why:
        raise NotMended(str(why)) from None


def _subdirectories(txn: Transaction, directory: int) -> int:
    pairs = txn.get_range(*keys.dentry_range(directory))
    return sum(
        dirent.decode(keys.dentry_fields(key)[2], record).type == DIRECTORY for key, record in pairs
    )


def _remove_entry(txn: Transaction, mend: Mend, world: World) -> tuple[int, dirent.Dirent]:
    """Takes an entry away, and out of the link count of its directory."""
    parent, entry = _entry(txn, mend)
    txn.clear(mend.key)
    directory = inodes.find(txn, parent)
    if directory is not None and directory.is_directory:
        if entry.type == DIRECTORY and directory.nlink > 2:
            directory.nlink -= 1
        directory.touch(world.now_ns)
        inodes.store(txn, directory)
    return parent, entry


# -- the mends -------------------------------------------------------------------------------------


def _adopt(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    _require(inode.nlink and not inode.flags & REMOVING)
    inode.nlink = 2 + _subdirectories(txn, inode.number) if inode.is_directory else 1
    name = _put_into_lost_and_found(txn, world, inode)
    inode.ctime_ns = world.now_ns
    inodes.store(txn, inode)
    return f"inode {inode.number} is now /lost+found/{name.decode()}"


def _queue(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    _require(inode.nlink == 0)
    garbage.put(txn, inode.number, world.now_ns)
    inodes.store(txn, inode)  # so that a second mend of the same finding sees it
    return f"inode {inode.number}, which had no link, is in the gc queue"


def _nlink(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    _require(not inode.flags & REMOVING)
    before, inode.nlink = inode.nlink, mend.number
    inodes.store(txn, inode)
    return f"nlink of inode {inode.number}: {before} -> {inode.nlink}"


def _reserve(txn: Transaction, mend: Mend, world: World) -> str:
    _require(inodes.find(txn, mend.inode) is not None)
    record = txn.get(keys.ALLOCATOR)
    known = int.from_bytes(record, "little") if record is not None else 0
    _require(known <= mend.inode)
    txn.set(keys.ALLOCATOR, (mend.inode + 1).to_bytes(8, "little"))
    return f"new inodes begin above {mend.inode}"


def _drop_entry(txn: Transaction, mend: Mend, world: World) -> str:
    _require(txn.get(keys.inode(mend.inode)) is None)
    parent, entry = _remove_entry(txn, mend, world)
    return f"entry {entry.name!r} of inode {parent}, which led nowhere, is removed"


def _drop_spare(txn: Transaction, mend: Mend, world: World) -> str:
    _require(_inode(txn, mend).is_directory)
    parent, entry = _remove_entry(txn, mend, world)
    inode = inodes.find(txn, mend.inode)
    assert inode is not None
    inodes.store(txn, inode)  # one spare entry per version: the last one must stay
    return f"second entry {entry.name!r} of directory {mend.inode}, in {parent}, is removed"


def _retype(txn: Transaction, mend: Mend, world: World) -> str:
    parent, entry = _entry(txn, mend)
    inode = inodes.find(txn, mend.inode)
    _require(inode is not None and inode.type != entry.type)
    assert inode is not None
    txn.set(mend.key, entry._replace(type=inode.type).encode())
    directory = inodes.find(txn, parent)
    if directory is not None and directory.is_directory:
        directory.nlink += (inode.type == DIRECTORY) - (entry.type == DIRECTORY)
        inodes.store(txn, directory)
    return f"entry {entry.name!r} of inode {parent} says type {inode.type}"


def _rename(txn: Transaction, mend: Mend, world: World) -> str:
    _inode(txn, mend)
    parent, entry = _entry(txn, mend)
    right = keys.dentry(parent, entry.name)
    legal = entry.name not in (b"", b".", b"..") and not set(entry.name) & {0, ord("/")}
    if not legal or len(entry.name) > 255 or txn.get(right) is not None:
        return _rescue(txn, mend, world)
    _require(right != mend.key)
    txn.clear(mend.key)
    txn.set(right, entry.encode())
    return f"entry {entry.name!r} of inode {parent} can be found by its name again"


def _rescue(txn: Transaction, mend: Mend, world: World) -> str:
    _inode(txn, mend)
    parent, entry = _remove_entry(txn, mend, world)
    inode = inodes.find(txn, mend.inode)
    assert inode is not None
    name = _put_into_lost_and_found(txn, world, inode)
    inodes.store(txn, inode)
    return f"entry {entry.name!r} of inode {parent} is now /lost+found/{name.decode()}"


def _parent(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    _require(inode.is_directory and inode.parent != mend.number)
    inode.parent = mend.number
    inodes.store(txn, inode)
    return f"the parent of directory {inode.number} is {inode.parent}"


def _drop_row(txn: Transaction, mend: Mend, world: World) -> str:
    _require(mend.key.startswith(keys.GARBAGE) and txn.get(mend.key) is not None)
    _require(keys.garbage_fields(mend.key)[1] == mend.inode)
    inode = inodes.find(txn, mend.inode)
    if inode is not None:
        _require(inode.version == mend.version and not (inode.nlink and inode.flags & REMOVING))
        inodes.store(txn, inode)  # one row per version: the last one must stay
    txn.clear(mend.key)
    return f"row {mend.key.hex()} of the gc queue is removed"


def _drop_tombstone(txn: Transaction, mend: Mend, world: World) -> str:
    _require(mend.key.startswith(keys.TOMBSTONE) and txn.get(mend.key) is not None)
    _require(keys.tombstone_fields(mend.key)[1] == mend.inode)
    _require(inodes.find(txn, mend.inode) is not None)
    txn.clear(mend.key)
    return f"the tombstone of inode {mend.inode}, which is there, is removed"


def _drop_session(txn: Transaction, mend: Mend, world: World) -> str:
    inode = inodes.find(txn, mend.inode)
    _require(inode is None or inode.type != FILE)
    session.remove(txn, _session(txn, mend))
    return f"session {mend.key[12:].hex()} of inode {mend.inode} is removed"


def _index_session(txn: Transaction, mend: Mend, world: World) -> str:
    session.create(txn, _session(txn, mend))
    return f"session {mend.key[12:].hex()} of inode {mend.inode} is in the index again"


def _session(txn: Transaction, mend: Mend) -> session.Session:
    _require(mend.key.startswith(keys.SESSION))
    held = session.find(txn, *keys.session_fields(mend.key))
    if held is None or held.inode != mend.inode:
        raise NotMended
    return held


def _drop_index(txn: Transaction, mend: Mend, world: World) -> str:
    _require(mend.key.startswith(keys.CLIENT_SESSION) and txn.get(mend.key) is not None)
    _, number, session_id = keys.client_session_fields(mend.key)
    _require(number == mend.inode and session.find(txn, number, session_id) is None)
    txn.clear(mend.key)
    return f"index row of the missing session {session_id.hex()} is removed"


def _drop_intent(txn: Transaction, mend: Mend, world: World) -> str:
    inode = inodes.find(txn, mend.inode)
    _require(inode is None or inode.type != FILE)
    _require(mend.key == keys.intent(mend.inode) and txn.get(mend.key) is not None)
    txn.clear(mend.key)
    return f"the truncate of inode {mend.inode}, which is no file, is removed"


def _drop_appends(txn: Transaction, mend: Mend, world: World) -> str:
    inode = inodes.find(txn, mend.inode)
    _require(inode is None or inode.type != FILE)
    _require(mend.key == keys.appends(mend.inode) and txn.get(mend.key) is not None)
    txn.clear(mend.key)
    return f"what was reserved at the end of inode {mend.inode}, which is no file, is removed"


def _drop_tree(txn: Transaction, mend: Mend, world: World) -> str:
    inode = inodes.find(txn, mend.inode)
    _require(inode is None or inode.nlink or not inode.is_directory)
    _require(mend.key == keys.tree(mend.inode) and txn.get(mend.key) is not None)
    txn.clear(mend.key)
    return f"the removal of the tree below inode {mend.inode}, which is none, is forgotten"


def _revive(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    _require(inode.is_directory and inode.nlink == 0)
    _require(txn.get(keys.tree(inode.number)) is None)
    if mend.key:
        _require(mend.key.startswith(keys.GARBAGE))
        _require(keys.garbage_fields(mend.key)[1] == inode.number)
        txn.clear(mend.key)
    inode.nlink = 2 + _subdirectories(txn, inode.number)
    name = _put_into_lost_and_found(txn, world, inode)
    inode.ctime_ns = world.now_ns
    inodes.store(txn, inode)
    return f"directory {inode.number}, which has entries, is now /lost+found/{name.decode()}"


def _drop_xattr(txn: Transaction, mend: Mend, world: World) -> str:
    _require(mend.key.startswith(keys.XATTR) and txn.get(mend.key) is not None)
    number, name = keys.xattr_fields(mend.key)
    _require(number == mend.inode and txn.get(keys.inode(number)) is None)
    txn.clear(mend.key)
    return f"attribute {name!r} of the missing inode {number} is removed"


def _xattr_flags(txn: Transaction, mend: Mend, world: World) -> str:
    # Not by find(): it would look for the ACL that the flags promise.
    record = txn.get(keys.inode(mend.inode))
    inode = inodes.decode(mend.inode, record) if record is not None else None
    if inode is None or inode.version != mend.version:
        raise NotMended
    every = xattr.flags_of(xattr.FLAGS)
    present = xattr.flags_of(
        keys.xattr_fields(key)[1] for key, _ in txn.get_range(*keys.xattrs(inode.number))
    )
    _require(inode.flags & every != present)
    inode.flags = inode.flags & ~every | present
    inodes.store(txn, inode)
    return f"the flags of inode {inode.number} tell of its attributes again"


def _acl_mode(txn: Transaction, mend: Mend, world: World) -> str:
    inode = _inode(txn, mend)
    if inode.acl is None:
        raise NotMended
    made = inode.acl.chmod(inode.mode)
    _require(made != inode.acl or made.is_mode)
    xattr.store_acl(txn, inode, acl.ACCESS, None if made.is_mode else made)
    inodes.store(txn, inode)
    return f"the access ACL of inode {inode.number} agrees with its mode {inode.mode:o}"


def _recount(txn: Transaction, mend: Mend, world: World) -> str:
    size = len(keys.usage(0, 0, 0))
    _require(mend.key.startswith(keys.QUOTA_USAGE) and len(mend.key) > size)
    account = quota.Account(*keys.account_of(mend.key))
    change = quota.decode_usage(mend.key[:size], mend.key[size:])
    quota.add(txn, account, change)
    return f"{account} has {change.bytes:+} bytes and {change.inodes:+} inodes more in use"


def _drop_limit(txn: Transaction, mend: Mend, world: World) -> str:
    _require(mend.key == keys.quota(quota.TREE, mend.inode) and txn.get(mend.key) is not None)
    top = inodes.find(txn, mend.inode)
    _require(top is None or top.quota != top.number)
    txn.clear(mend.key)
    return f"the limit of directory {mend.inode}, which is the top of no tree, is forgotten"


_MENDS: dict[str, Callable[[Transaction, Mend, World], str]] = {
    "adopt": _adopt,
    "queue": _queue,
    "nlink": _nlink,
    "reserve": _reserve,
    "drop_entry": _drop_entry,
    "drop_spare": _drop_spare,
    "retype": _retype,
    "rename": _rename,
    "rescue": _rescue,
    "parent": _parent,
    "drop_row": _drop_row,
    "drop_tombstone": _drop_tombstone,
    "drop_session": _drop_session,
    "index_session": _index_session,
    "drop_index": _drop_index,
    "drop_xattr": _drop_xattr,
    "xattr_flags": _xattr_flags,
    "acl_mode": _acl_mode,
    "drop_intent": _drop_intent,
    "drop_appends": _drop_appends,
    "drop_tree": _drop_tree,
    "recount": _recount,
    "drop_limit": _drop_limit,
    "revive": _revive,
}
