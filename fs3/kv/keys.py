"""Every key of fs3: the canonical text. A key is a four-letter prefix and fixed fields, or a name
at its end.

"le" and "be" are unsigned little- and big-endian; be where the order of the keys matters, le for
inode ids in front, so that consecutive inodes spread over the key space (as in 3FS; it matters on
a distributed engine).

| prefix | fields | value | owner |
|---|---|---|---|
| `INOD` | inode le8 | the inode | meta/inode.py |
| `DENT` | parent le8, order be8, name | inode and type | meta/dirent.py |
| `XATT` | inode le8, name | an extended attribute | meta/xattr.py |
| `SESS` | inode le8, session 16 | an open for write | meta/session.py |
| `SCLI` | client 16, inode le8, session 16 | empty: SESS by client | meta/session.py |
| `IDEM` | generation be4, client 16, request be8 | a reply | meta/idempotency.py |
| `IGEN` | none | the present generation of IDEM, be4 | meta/idempotency.py |
| `GARB` | unlinked_ns be8, inode le8 | removal in progress | meta/garbage.py |
| `GEPO` | none | the present epoch of GARB, le8 | meta/garbage.py |
| `QUSE` | kind 1, id le8, writer 1 | part of what an account has used | meta/quota.py |
| `QUOT` | kind 1, id le8 | what an account may use | meta/quota.py |
| `TREE` | inode le8 | tree in removal: in whose name | meta/tree.py |
| `TOMB` | epoch be8, inode le8 | a removed file that may still be written to | meta/tombstone.py |
| `TRNC` | inode le8 | truncate in progress | meta/intent.py |
| `APND` | inode le8 | end of what was reserved for appends | meta/appends.py |
| `CTRI` | none | next inode id nobody has reserved, le8 | meta/allocator.py |
| `FSYS` | none | when the file system was made, ns le8 | meta/bootstrap.py |
| `LEAD` | none | which metadata service does the chores | kv/election.py |
| `MGMT` | text | state of the cluster manager | mgmtd |

Sentinels: inode 0 is no inode; inode 1 is the root, which has no entry; order 0 to 15 is no
entry's; session of 16 zero bytes is no session; generation 0 is before the first. Keys at or above
b"\\xff" belong to the engine.

Order of entries in a directory: `order` = BLAKE2b-64 of the name (8-byte digest, big-endian), with
the top bit cleared, and 16 added when it is below 16. It depends on nothing but the name, so it
serves as the readdir cookie: an entry that exists throughout is returned exactly once, whatever is
created and removed between the pages, and no counter or index has to be kept. The top bit is clear
because off_t is signed; 0 to 15 are left to the client for
".", ".." and the start. Names of one directory with equal order (one pair in 2^63) sort by name
and are never split over two pages.

Worked example: the entry "a" of the root, which is inode 0x0203:

    name_order(b"a")            = 0x40f89e395b66422f
    key   44454e54 0100000000000000 40f89e395b66422f 61         "DENT", parent 1, order, "a"
    inode 494e4f44 0302000000000000                             "INOD", inode 0x0203
"""

import struct
from hashlib import blake2b

INODE = b"INOD"
DENTRY = b"DENT"
XATTR = b"XATT"
SESSION = b"SESS"
CLIENT_SESSION = b"SCLI"
IDEMPOTENCY = b"IDEM"
GENERATION = b"IGEN"
GARBAGE = b"GARB"
GARBAGE_EPOCH = b"GEPO"
QUOTA_USAGE = b"QUSE"
QUOTA = b"QUOT"
TREE = b"TREE"
TOMBSTONE = b"TOMB"
INTENT = b"TRNC"
APPENDS = b"APND"
ALLOCATOR = b"CTRI"
FILE_SYSTEM = b"FSYS"
LEADER = b"LEAD"
MANAGER = b"MGMT"

NO_SESSION = bytes(16)
ORDER_FIRST = 16  # 0..15 are the client's: start, ".", ".."

_LE8 = struct.Struct("<Q")
_PREFIX_INODE = struct.Struct("<4sQ")
_IDEMPOTENCY = struct.Struct(">4sI16sQ")
_ORDER_MASK = (1 << 63) - 1

Range = tuple[bytes, bytes]


def prefix_end(prefix: bytes) -> bytes:
    """The first key after every key that begins with `prefix`.

    >>> prefix_end(b"INOD")
    b'INOE'
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\xff"


def inode(number: int) -> bytes:
    return _PREFIX_INODE.pack(INODE, number)


def inode_of(key: bytes) -> int:
    """The number in a key of INOD, XATT, TREE, TRNC, or the parent in one of DENT."""
    number: int = _LE8.unpack_from(key, 4)[0]
    return number


def name_order(name: bytes) -> int:
    order = int.from_bytes(blake2b(name, digest_size=8).digest(), "big") & _ORDER_MASK
    return order if order >= ORDER_FIRST else order + ORDER_FIRST


def dentry(parent: int, name: bytes) -> bytes:
    return _PREFIX_INODE.pack(DENTRY, parent) + name_order(name).to_bytes(8, "big") + name


def dentry_fields(key: bytes) -> tuple[int, int, bytes]:
    """(parent, order, name). REQUIRES: at least 21 bytes."""
    return inode_of(key), int.from_bytes(key[12:20], "big"), key[20:]


def dentry_range(parent: int, after_order: int = 0) -> Range:
    """Entries of a directory with an order above `after_order`."""
    stem = _PREFIX_INODE.pack(DENTRY, parent)
    return stem + (after_order + 1).to_bytes(8, "big"), stem + b"\xff" * 8


def xattr(inode_number: int, name: bytes) -> bytes:
    return _PREFIX_INODE.pack(XATTR, inode_number) + name


def xattrs(inode_number: int) -> Range:
    stem = _PREFIX_INODE.pack(XATTR, inode_number)
    return stem, prefix_end(stem)


def xattr_fields(key: bytes) -> tuple[int, bytes]:
    """(inode, name). REQUIRES: at least 12 bytes."""
    return inode_of(key), key[12:]


def session(inode_number: int, session_id: bytes) -> bytes:
    return _PREFIX_INODE.pack(SESSION, inode_number) + session_id


def sessions(inode_number: int) -> Range:
    stem = _PREFIX_INODE.pack(SESSION, inode_number)
    return stem, prefix_end(stem)


def session_fields(key: bytes) -> tuple[int, bytes]:
    """(inode, session id)."""
    return inode_of(key), key[12:]


def client_session(client: bytes, inode_number: int, session_id: bytes) -> bytes:
    return CLIENT_SESSION + client + _LE8.pack(inode_number) + session_id


def client_sessions(client: bytes) -> Range:
    stem = CLIENT_SESSION + client
    return stem, prefix_end(stem)


def client_session_fields(key: bytes) -> tuple[bytes, int, bytes]:
    """(client, inode, session id)."""
    number: int = _LE8.unpack_from(key, 20)[0]
    return key[4:20], number, key[28:]


def idempotency(generation: int, client: bytes, request: int) -> bytes:
    return _IDEMPOTENCY.pack(IDEMPOTENCY, generation, client, request)


def idempotency_generation(generation: int) -> bytes:
    """Where the rows of a generation begin."""
    return IDEMPOTENCY + generation.to_bytes(4, "big")


def garbage(unlinked_ns: int, inode_number: int) -> bytes:
    return GARBAGE + unlinked_ns.to_bytes(8, "big") + _LE8.pack(inode_number)


def garbage_fields(key: bytes) -> tuple[int, int]:
    """(unlinked_ns, inode)."""
    number: int = _LE8.unpack_from(key, 12)[0]
    return int.from_bytes(key[4:12], "big"), number


def usage(kind: int, account: int, writer: int) -> bytes:
    return QUOTA_USAGE + bytes([kind]) + _LE8.pack(account) + bytes([writer])


def usages(kind: int, account: int) -> Range:
    stem = QUOTA_USAGE + bytes([kind]) + _LE8.pack(account)
    return stem, prefix_end(stem)


def quota(kind: int, account: int) -> bytes:
    return QUOTA + bytes([kind]) + _LE8.pack(account)


def account_of(key: bytes) -> tuple[int, int]:
    """(kind, id) in a key of QUSE or QUOT."""
    number: int = _LE8.unpack_from(key, 5)[0]
    return key[4], number


def tree(inode_number: int) -> bytes:
    return _PREFIX_INODE.pack(TREE, inode_number)


def tombstone(epoch: int, inode_number: int) -> bytes:
    return TOMBSTONE + epoch.to_bytes(8, "big") + _LE8.pack(inode_number)


def tombstone_fields(key: bytes) -> tuple[int, int]:
    """(epoch, inode)."""
    number: int = _LE8.unpack_from(key, 12)[0]
    return int.from_bytes(key[4:12], "big"), number


def intent(inode_number: int) -> bytes:
    return _PREFIX_INODE.pack(INTENT, inode_number)


def appends(inode_number: int) -> bytes:
    return _PREFIX_INODE.pack(APPENDS, inode_number)
