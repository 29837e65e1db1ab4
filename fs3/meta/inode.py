"""The inode record: load, store, check. Key: INOD (fs3/kv/keys.py).

Record, little-endian, schema 3: the fields of _RECORD in the order of the class, then the target
of a symbolic link. Schema 2 has no `allocated`, schema 1 no `quota` either.

- nlink: entries of a file; 2 + subdirectories of a directory; 0 = no name any more, waiting in the
gc queue.
- size: settled length of a file; length of the target of a symbolic link; 0 otherwise.
- parent: of a directory (".."); 0 for everything else. The root is its own parent.
- layout: of a file, where its chunks are, fixed at creation; of a directory, what children inherit
(0 = default).
- mtime_set_ns: when mtime was last set explicitly, 0 when a write was later (see sync.py).
- truncate_epoch: grows with each truncate; a session that is older has to measure (see session.py).
- flags: HAS_DATA, REMOVING, LINKABLE below; and those of meta.InodeFlag, which everybody may see.
- quota: the directory whose tree account it counts for (quota.py); its own number for that
directory itself; 0 = none.
- allocated: bytes that storage held of a file with holes (flag SPARSE) when it was last asked; 0 of
one without, where it is `size`.

`acl` is no part of the record: load() and find() fill it in from the access ACL (xattr.py).
`charged` neither: what the stored record counts for, so that a change of it moves accounts.
"""

import errno
import struct
from dataclasses import dataclass
from typing import NamedTuple

from fs3 import limits
from fs3._proto import common_pb2, meta_pb2
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import acl as acls
from fs3.meta import appends, xattr
from fs3.meta import quota as quotas
from fs3.meta.acl import Acl
from fs3.meta.faults import no_inode, refuse
from fs3.meta.quota import Charge
from fs3.types import ROOT_INODE

SCHEMA = 3
FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHAR_DEVICE, BLOCK_DEVICE = range(1, 8)  # meta.FileType

HAS_DATA = 1  # flag: chunks may exist on storage
REMOVING = 2  # flag: gc has begun to remove the chunks; the inode cannot be opened any more
WRITABLE = 8  # flag: a capability to write to it was given out, once
SPARSE = 1 << 16  # flag: less than `size` is stored, as far as is known
LINKABLE = 0x400  # flag: made by O_TMPFILE without O_EXCL, and has had no name yet

# The flags of chattr(1), with its numbers.
IMMUTABLE, APPEND_ONLY, NO_DUMP, NO_ATIME = 0x10, 0x20, 0x40, 0x80
CHATTR_FLAGS = IMMUTABLE | APPEND_ONLY | NO_DUMP | NO_ATIME
VISIBLE_FLAGS = CHATTR_FLAGS | xattr.HAS_XATTRS | xattr.HAS_ACCESS_ACL | xattr.HAS_DEFAULT_ACL

SETUID, SETGID, STICKY = 0o4000, 0o2000, 0o1000

_RECORD = struct.Struct("<BBHIIIIQqqqqqQQIIQIIIIQQQ")
_FIXED_BYTES = {  # of the records of older schemas
    1: struct.calcsize("<BBHIIIIQqqqqqQQIIQIIIIQ"),
    2: struct.calcsize("<BBHIIIIQqqqqqQQIIQIIIIQQ"),
}


class Layout(NamedTuple):
    """fs3.Layout (proto/LAYOUT.md)."""

    chain_table: int = 0
    chain_table_version: int = 0
    chunk_size: int = 0
    stripe: int = 0
    seed: int = 0

    def message(self) -> common_pb2.Layout:
        return common_pb2.Layout(
            chain_table=self.chain_table,
            chain_table_version=self.chain_table_version,
            chunk_size=self.chunk_size,
            stripe=self.stripe,
            seed=self.seed,
        )


NO_LAYOUT = Layout()


@dataclass(slots=True)
class Inode:
    number: int
    type: int
    mode: int  # 07777
    nlink: int
    uid: int
    gid: int
    rdev: int = 0
    size: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    btime_ns: int = 0
    mtime_set_ns: int = 0
    version: int = 0
    data_version: int = 0
    truncate_epoch: int = 0
    flags: int = 0
    parent: int = 0
    layout: Layout = NO_LAYOUT
    quota: int = 0
    allocated: int = 0
    target: bytes = b""
    acl: Acl | None = None
    charged: Charge | None = None

    def check(self) -> None:
        """Before a record is written and after it is read. Raises Damaged naming the field."""
        if not FILE <= self.type <= BLOCK_DEVICE:
            raise self._damaged(f"type {self.type}")
        if self.mode > 0o7777:
            raise self._damaged(f"mode {self.mode:o}")
        if (self.type == DIRECTORY) != (self.parent != 0):
            raise self._damaged(f"parent {self.parent} of type {self.type}")
        if self.size > limits.FILE_BYTES_MAX:
            raise self._damaged(f"size {self.size}")
        if self.allocated and not self.flags & SPARSE:
            raise self._damaged(f"allocated {self.allocated} of a file without holes")
        if len(self.target) != (self.size if self.type == SYMLINK else 0):
            raise self._damaged(f"target of {len(self.target)} bytes, size {self.size}")
        if self.type == FILE and (self.layout.chunk_size == 0 or self.layout.stripe == 0):
            raise self._damaged(f"layout {self.layout}")

    def _damaged(self, field: str) -> Damaged:
        return Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/inode {self.number}",
            f"{field} is impossible; stop the service and run fsck",
        )

    @property
    def is_directory(self) -> bool:
        return self.type == DIRECTORY

    @property
    def has_data(self) -> bool:
        return bool(self.flags & HAS_DATA)

    def encode(self) -> bytes:
        self.check()
        return (
            _RECORD.pack(
                SCHEMA,
                self.type,
                self.mode,
                self.nlink,
                self.uid,
                self.gid,
                self.rdev,
                self.size,
                self.atime_ns,
                self.mtime_ns,
                self.ctime_ns,
                self.btime_ns,
                self.mtime_set_ns,
                self.version,
                self.data_version,
                self.truncate_epoch,
                self.flags,
                self.parent,
                *self.layout,
                self.quota,
                self.allocated,
            )
            + self.target
        )

    def attr(self) -> meta_pb2.Attr:
        return meta_pb2.Attr(
            inode=self.number,
            type=self.type,  # type: ignore[arg-type]
            mode=self.mode,
            nlink=self.nlink,
            uid=self.uid,
            gid=self.gid,
            size=self.size,
            atime_ns=self.atime_ns,
            mtime_ns=self.mtime_ns,
            ctime_ns=self.ctime_ns,
            btime_ns=self.btime_ns,
            rdev=self.rdev,
            version=self.version,
            layout=self.layout.message() if self.type <= DIRECTORY else None,
            blocks=(self.stored + 511) >> 9,
            data_version=self.data_version,
            flags=self.flags & VISIBLE_FLAGS,
        )

    def charge(self) -> Charge:
        """What it counts for, as it is now."""
        return Charge(self.uid, self.quota, self.stored if self.type == FILE else 0)

    @property
    def stored(self) -> int:
        """Bytes that lie on storage, copies not counted."""
        return self.allocated if self.flags & SPARSE else self.size

    def resize(self, size: int) -> None:
        """Without a byte of new data: what is added is a hole. Where the end of a file with holes
        goes, it is not known how much of them goes with it: that is asked after the cut."""
        stored = min(self.stored, size)
        had_holes = self.flags & SPARSE and size
        self.size = size
        self.note_stored(stored)
        if had_holes:
            self.flags |= SPARSE
            self.allocated = stored

    def note_stored(self, stored: int) -> None:
        """What storage holds of a file of this size. Bytes beyond it are somebody's who has not
        settled yet, so more than `size` says nothing about holes."""
        if stored < self.size:
            self.flags |= SPARSE
            self.allocated = stored
        else:
            self.flags &= ~SPARSE
            self.allocated = 0

    def add_subdirectories(self, change: int) -> None:
        """A directory without a name has nlink 0 whatever is in it: a tree in removal (tree.py)."""
        if self.nlink:
            self.nlink += change

    def touch(self, now_ns: int) -> None:
        """Content of a directory changed."""
        self.mtime_ns = self.ctime_ns = now_ns


def _of_this_schema(record: bytes) -> bytes:
    """Of an older one: the fields that it lacks are 0."""
    fixed = _FIXED_BYTES.get(record[0]) if record else None
    if fixed is None or len(record) < fixed:
        return record
    return bytes([SCHEMA]) + record[1:fixed] + bytes(_RECORD.size - fixed) + record[fixed:]


def decode(number: int, record: bytes) -> Inode:
    """Raises Damaged when the record is too short, of another schema, or fails check()."""
    record = _of_this_schema(record)
    if len(record) < _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/inode {number}",
            f"record of {len(record)} bytes, schema {record[:1].hex()}; run fsck",
        )
    fields = _RECORD.unpack_from(record)
    inode = Inode(number, *fields[1:18])
    inode.layout = Layout._make(fields[18:23])
    inode.quota = fields[23]
    inode.allocated = fields[24]
    inode.target = record[_RECORD.size :]
    inode.check()
    inode.charged = inode.charge()
    return inode


def find(txn: Transaction, number: int) -> Inode | None:
    record = txn.get(keys.inode(number))
    return _with_acl(txn, decode(number, record)) if record is not None else None


def load(txn: Transaction, number: int, where: str) -> Inode:
    """ENOENT when there is none, or gc has taken it."""
    record = txn.get(keys.inode(number))
    if record is None:
        raise no_inode(where, number)
    inode = decode(number, record)
    if inode.flags & REMOVING:
        raise no_inode(where, number)
    return _with_acl(txn, inode)


def _with_acl(txn: Transaction, inode: Inode) -> Inode:
    if inode.flags & xattr.HAS_ACCESS_ACL:
        inode.acl = xattr.load_acl(txn, inode, acls.ACCESS)
    return inode


def load_directory(txn: Transaction, number: int, where: str) -> Inode:
    """ENOTDIR when it is something else. May be one without a name (nlink 0)."""
    inode = load(txn, number, where)
    if inode.type != DIRECTORY:
        raise refuse(errno.ENOTDIR, where, f"inode {number} is not a directory")
    return inode


def store(txn: Transaction, inode: Inode) -> None:
    """Every change of a record goes through here: the version grows, and the accounts follow."""
    inode.version += 1
    txn.set(keys.inode(inode.number), inode.encode())
    charge = inode.charge()
    quotas.move(txn, inode.charged, charge)
    inode.charged = charge


def erase(txn: Transaction, inode: Inode) -> None:
    """The record goes, with everything that belongs to it alone; it counts no more."""
    xattr.remove_all(txn, inode)
    appends.remove(txn, inode.number)
    txn.clear(keys.inode(inode.number))
    quotas.move(txn, inode.charged, None)
    if inode.quota == inode.number:
        quotas.store_limit(txn, quotas.Account(quotas.TREE, inode.number), None)


def root(now_ns: int) -> Inode:
    return Inode(
        number=ROOT_INODE,
        type=DIRECTORY,
        mode=0o755,
        nlink=2,
        uid=0,
        gid=0,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        btime_ns=now_ns,
        parent=ROOT_INODE,
    )
