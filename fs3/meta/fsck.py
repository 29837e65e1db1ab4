"""Checks the name space as it lies in the KV, and lists what storage has to hold for it.

Each finding names its check; every check has a test that plants its damage
(tests/unit/test_meta_fsck.py).

| check | invariant |
|---|---|
| record | every record decodes and passes its check(); every key has a known prefix and shape |
| root | inode 1 is a directory, has no entry, and is its own parent |
| inode_id | every inode id is below the allocator's counter |
| inode_orphan | an inode without an entry is in the gc queue, or a tree in removal (or the root) |
| inode_nlink | nlink = entries of a file, 2 + subdirectories of a directory, 0 in the gc queue |
| dentry_dangling | every entry leads to an inode |
| dentry_type | the type in the entry is the inode's |
| dentry_order | the order in the key is that of the name; the name is a legal one |
| dentry_parent | the directory of an entry exists and is a directory |
| directory_entries | a directory has one entry, in the directory that its parent pointer names |
| directory_cycle | every directory reaches the root, or a tree in removal, by its parents |
| gc_inode | a row of the gc queue leads to an inode without a name, which has one row |
| tree_inode | a tree in removal is a directory without a name, and not in the gc queue yet |
| tree_entries | a directory without a name has entries only when it is a tree in removal |
| tombstone | a tombstone is of a file that is gone, not of one that is there |
| xattr_inode | an extended attribute belongs to an inode; its flags tell which kinds it has |
| acl_mode | an access ACL says more than the mode, and the same about owner, mask and others |
| quota_usage | an account has used what the inodes that count for it add up to |
| quota_limit | a limit of a tree belongs to a directory that is the top of one |
| session_inode | a session leads to a regular file; its index row exists, and the other way round |
| intent_inode | a truncate in progress leads to a regular file of the same truncate epoch |
| append_inode | what was reserved for appends is at the end of a regular file |

A finding that can be mended without a person carries the mend (repair.py); one without is for a
person to decide.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from fs3.errors import Damaged, Refused
from fs3.kv import keys
from fs3.kv.api import KEY_END, KeyValueStore, Transaction
from fs3.meta import (
    acl,
    appends,
    dirent,
    garbage,
    idempotency,
    intent,
    quota,
    session,
    tombstone,
    tree,
    xattr,
)
from fs3.meta import inode as inodes
from fs3.meta.allocator import FIRST_INODE, decode_end
from fs3.meta.inode import DIRECTORY, FILE, REMOVING, Inode, Layout
from fs3.meta.repair import Mend
from fs3.types import ROOT_INODE

__all__ = ["Finding", "LiveFile", "NameSpace", "check_rows", "fsck", "live_files"]

PAGE = 1000
_XATTR_FLAGS = xattr.flags_of(xattr.FLAGS)


class Finding(NamedTuple):
    check: str
    detail: str
    mend: Mend | None = None  # what --repair does about it


class LiveFile(NamedTuple):
    """A file whose chunks may exist: what the storage checker compares with."""

    inode: int
    layout: Layout
    size: int
    removing: bool  # it has no name any more: its chunks may be gone, in part or whole


def fsck(kv: KeyValueStore) -> list[Finding]:
    """All findings, none when the name space is sound. Reads one version; changes nothing."""
    txn = kv.begin()
    try:
        return check_rows(_rows(txn, b"")).findings
    finally:
        txn.cancel()


class NameSpace(NamedTuple):
    """What a check of all rows of one version gives."""

    findings: list[Finding]
    inodes: int
    entries: int
    files: list[LiveFile]
    ids_end: int  # no inode of this version has this id or a larger one
    open_inodes: frozenset[int]  # open for writing: their length is not settled
    tombstones: frozenset[int]  # inodes that are gone; what is still written of them is swept

    @property
    def findings_without_mend(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.mend is None]


def check_rows(rows: Iterable[tuple[bytes, bytes]]) -> NameSpace:
    """Checks the rows of one version, wherever they come from."""
    checker = _Checker(rows)
    findings = checker.run()
    return NameSpace(findings, *checker.counted())


def live_files(kv: KeyValueStore) -> Iterator[LiveFile]:
    """Every regular file, in no order. Reads one version for as long as the iterator lives."""
    txn = kv.begin()
    try:
        for key, record in _rows(txn, keys.INODE):
            inode = inodes.decode(keys.inode_of(key), record)
            if inode.type == FILE:
                yield LiveFile(inode.number, inode.layout, inode.size, inode.nlink == 0)
    finally:
        txn.cancel()


def _rows(txn: Transaction, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, end = prefix, keys.prefix_end(prefix) if prefix else KEY_END
    while True:
        page = txn.get_range(at, end, limit=PAGE, snapshot=True)
        yield from page
        if len(page) < PAGE:
            return
        at = page[-1][0] + b"\0"


class _Checker:
    """Loads all records once, then compares them."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._rows = rows
        self._ids_end = FIRST_INODE
        self._findings: list[Finding] = []
        self._inodes: dict[int, Inode] = {}
        self._entries: list[tuple[bytes, int, dirent.Dirent]] = []  # key, parent, entry
        self._keys: defaultdict[int, list[bytes]] = defaultdict(list)  # inode -> keys of entries
        self._names: defaultdict[int, list[int]] = defaultdict(list)  # inode -> parents
        self._filled: Counter[int] = Counter()  # inode -> entries in it
        self._subdirectories: Counter[int] = Counter()
        self._queued: defaultdict[int, list[bytes]] = defaultdict(list)  # inode -> rows
        self._trees: set[int] = set()  # in removal
        self._unknown_inodes = False  # some do not decode: nobody knows what they count for
        self._used: dict[quota.Account, quota.Usage] = {}
        self._limited: list[quota.Account] = []
        self._xattrs: defaultdict[int, list[bytes]] = defaultdict(list)  # inode -> names
        self._acls: dict[int, acl.Acl] = {}  # inode -> access ACL
        self._sessions: dict[tuple[int, bytes], session.Session] = {}
        self._session_index: set[tuple[bytes, int, bytes]] = set()
        self._tombstones: dict[int, bytes] = {}  # inode -> its row
        self._intents: list[intent.TruncateIntent] = []
        self._appended: list[int] = []

    def run(self) -> list[Finding]:
        self._load()
        self._check_root()
        self._check_entries()
        for inode in self._inodes.values():
            self._check_inode(inode)
            if inode.is_directory and inode.nlink:
                self._check_directory(inode)
        self._check_queue()
        self._check_trees()
        self._check_quotas()
        self._check_tombstones()
        self._check_xattrs()
        self._check_sessions()
        self._check_intents()
        self._check_appends()
        return self._findings

    def counted(
        self,
    ) -> tuple[int, int, list[LiveFile], int, frozenset[int], frozenset[int]]:
        files = [
            LiveFile(inode.number, inode.layout, inode.size, inode.nlink == 0)
            for inode in self._inodes.values()
            if inode.type == FILE
        ]
        writing = frozenset(number for number, _ in self._sessions)
        swept_later = frozenset(self._tombstones)
        return len(self._inodes), len(self._entries), files, self._ids_end, writing, swept_later

    def _find(self, check: str, detail: str, mend: Mend | None = None) -> None:
        self._findings.append(Finding(check, detail, mend))

    # -- loading -------------------------------------------------------------------------------

    def _load(self) -> None:
        loaders: dict[bytes, tuple[int, Callable[[bytes, bytes], None]]] = {
            keys.INODE: (12, self._load_inode),
            keys.DENTRY: (0, self._load_entry),
            keys.XATTR: (0, self._load_xattr),
            keys.SESSION: (28, self._load_session),
            keys.CLIENT_SESSION: (44, self._load_session_index),
            keys.IDEMPOTENCY: (32, lambda key, record: _ignore(idempotency.decode(record))),
            keys.GARBAGE: (20, self._load_garbage),
            keys.TREE: (12, self._load_tree),
            keys.QUOTA_USAGE: (14, self._load_usage),
            keys.QUOTA: (13, self._load_limit),
            keys.TOMBSTONE: (20, self._load_tombstone),
            keys.INTENT: (12, self._load_intent),
            keys.GENERATION: (4, lambda key, record: None),
            keys.GARBAGE_EPOCH: (4, lambda key, record: None),
            keys.LEADER: (4, lambda key, record: None),
            keys.APPENDS: (12, self._load_appends),
            keys.ALLOCATOR: (4, self._load_allocator),
            keys.FILE_SYSTEM: (4, lambda key, record: None),
        }
        for key, record in self._rows:
            length, load = loaders.get(key[:4], (0, None))
            if key.startswith(keys.MANAGER):
                continue
            if load is None:
                self._find("record", f"key {key.hex()} has no known prefix")
            elif (length and len(key) != length) or len(key) < 4:
                self._find("record", f"key {key.hex()} has {len(key)} bytes, not {length}")
            else:
                try:
                    load(key, record)
                except Damaged as damage:
                    self._find("record", str(damage))
                    self._unknown_inodes |= key.startswith(keys.INODE)

    def _load_allocator(self, key: bytes, record: bytes) -> None:
        self._ids_end = 1 << 64  # if it is damaged, no id can be judged by it
        self._ids_end = decode_end(record)

    def _load_inode(self, key: bytes, record: bytes) -> None:
        number = keys.inode_of(key)
        self._inodes[number] = inodes.decode(number, record)

    def _load_entry(self, key: bytes, record: bytes) -> None:
        if len(key) < 21:
            self._find("record", f"key {key.hex()} is too short for an entry")
            return
        parent, order, name = keys.dentry_fields(key)
        entry = dirent.decode(name, record, order)
        self._entries.append((key, parent, entry))
        self._keys[entry.inode].append(key)
        self._names[entry.inode].append(parent)
        self._filled[parent] += 1
        self._subdirectories[parent] += entry.type == DIRECTORY

    def _load_xattr(self, key: bytes, record: bytes) -> None:
        if len(key) < 13:
            self._find("record", f"key {key.hex()} is too short for an extended attribute")
            return
        number, name = keys.xattr_fields(key)
        self._xattrs[number].append(name)
        value = xattr.decode(number, name, record)
        if name == acl.ACCESS:
            found = acl.decode(value)
            assert found is not None, "xattr.decode() lets no empty one pass"
            self._acls[number] = found

    def _load_session(self, key: bytes, record: bytes) -> None:
        held = session.decode(*keys.session_fields(key), record)
        self._sessions[held.inode, held.id] = held

    def _load_session_index(self, key: bytes, record: bytes) -> None:
        self._session_index.add(keys.client_session_fields(key))

    def _load_garbage(self, key: bytes, record: bytes) -> None:
        garbage.decode(key, record)
        self._queued[keys.garbage_fields(key)[1]].append(key)

    def _load_tree(self, key: bytes, record: bytes) -> None:
        self._trees.add(tree.decode(keys.inode_of(key), record).inode)

    def _load_usage(self, key: bytes, record: bytes) -> None:
        account = quota.Account(*keys.account_of(key))
        used = quota.decode_usage(key, record)
        self._used[account] = self._used.get(account, quota.Usage()) + used

    def _load_limit(self, key: bytes, record: bytes) -> None:
        quota.decode_limit(key, record)
        self._limited.append(quota.Account(*keys.account_of(key)))

    def _load_tombstone(self, key: bytes, record: bytes) -> None:
        self._tombstones[tombstone.decode(key, record).inode] = key

    def _load_intent(self, key: bytes, record: bytes) -> None:
        self._intents.append(intent.decode(keys.inode_of(key), record))

    def _load_appends(self, key: bytes, record: bytes) -> None:
        appends.decode(keys.inode_of(key), record)
        self._appended.append(keys.inode_of(key))

    # -- checks --------------------------------------------------------------------------------

    def _check_root(self) -> None:
        root = self._inodes.get(ROOT_INODE)
        if root is None or not root.is_directory:
            self._find("root", "inode 1 is no directory")
        elif root.parent != ROOT_INODE or self._names[ROOT_INODE]:
            self._find("root", "the root is not its own parent, or has an entry")

    def _check_entries(self) -> None:
        for key, parent, entry in self._entries:
            where = f"entry {entry.name!r} of inode {parent}"
            inode = self._inodes.get(entry.inode)
            if inode is None:
                detail = f"{where} leads to missing inode {entry.inode}"
                mend = Mend("drop_entry", inode=entry.inode, key=key)
                self._find("dentry_dangling", detail, mend)
            elif inode.type != entry.type:
                detail = f"{where} says {entry.type}, the inode {inode.type}"
                self._find("dentry_type", detail, Mend("retype", inode=entry.inode, key=key))
            if keys.name_order(entry.name) != entry.order or not _is_name(entry.name):
                detail = f"{where} has order {entry.order:#x} or a bad name"
                self._find("dentry_order", detail, self._moving(key, "rename", inode))
            directory = self._inodes.get(parent)
            if directory is None or not directory.is_directory:
                detail = f"{where}: that is no directory"
                self._find("dentry_parent", detail, self._moving(key, "rescue", inode))

    @staticmethod
    def _moving(key: bytes, kind: str, inode: Inode | None) -> Mend | None:
        return Mend(kind, inode.number, inode.version, key) if inode is not None else None

    def _check_inode(self, inode: Inode) -> None:
        number = inode.number
        names = len(self._names[number])
        if number >= self._ids_end:
            detail = f"inode {number} was never allocated"
            self._find("inode_id", detail, Mend("reserve", inode=number))
        waits = self._queued[number] or number in self._trees
        if not names and not waits and number != ROOT_INODE and not self._is_cut_off(inode):
            detail = f"inode {number} has no entry and is not in the gc queue"
            kind = "adopt" if inode.nlink else "queue"
            self._find("inode_orphan", detail, Mend(kind, number, inode.version))
            if kind == "adopt":
                return  # gets its link count with its name
        if inode.is_directory:
            expected = 2 + self._subdirectories[number] if names or number == ROOT_INODE else 0
        else:
            expected = names
        if inode.nlink != expected:
            detail = f"inode {number} has nlink {inode.nlink}, not {expected}"
            mend = Mend("nlink", number, inode.version, number=expected)
            self._find("inode_nlink", detail, mend if not inode.flags & REMOVING else None)

    def _check_directory(self, inode: Inode) -> None:
        number = inode.number
        if number == ROOT_INODE:
            return
        if self._names[number] != [inode.parent]:
            self._find(
                "directory_entries",
                f"directory {number} has parent {inode.parent}, entries in {self._names[number]}",
                self._one_entry(inode),
            )
        seen = set()
        while number != ROOT_INODE and number not in self._trees:
            above = self._inodes.get(number)
            if number in seen or above is None or not above.is_directory:
                detail = f"directory {inode.number} does not reach the root"
                # Only who is on the cycle itself is moved; what hangs below comes along.
                on_cycle = number == inode.number and len(self._keys[number]) == 1
                mend = self._moving(self._keys[number][0], "rescue", inode) if on_cycle else None
                self._find("directory_cycle", detail, mend)
                return
            seen.add(number)
            number = above.parent

    def _one_entry(self, inode: Inode) -> Mend | None:
        """What gives a directory one entry, where its parent pointer says."""
        parents, entry_keys = self._names[inode.number], self._keys[inode.number]
        if not parents:
            return None  # an orphan, which has its own finding
        if len(parents) == 1:
            return Mend("parent", inode.number, inode.version, number=parents[0])
        kept = parents.index(inode.parent) if inode.parent in parents else 0
        spare = entry_keys[1 if kept == 0 else 0]
        return Mend("drop_spare", inode.number, inode.version, spare)

    def _check_queue(self) -> None:
        for number, rows in self._queued.items():
            inode = self._inodes.get(number)
            if rows and (inode is None or inode.nlink or len(rows) != 1):
                taken = inode is not None and inode.flags & REMOVING and inode.nlink
                named = inode is not None and inode.nlink and not self._names[number]
                mend = Mend("drop_row", number, inode.version if inode else 0, rows[-1])
                # A lost name: the count is mended first. Begun removal of a named file: a person.
                unclear = taken or named
                self._find(
                    "gc_inode",
                    f"inode {number}: {len(rows)} rows, {inode}",
                    None if unclear else mend,
                )

    def _is_cut_off(self, inode: Inode) -> bool:
        """A directory that still has entries, lost its name, and is not being removed."""
        number = inode.number
        holds = inode.is_directory and inode.nlink == 0 and self._filled[number]
        return bool(holds) and number not in self._trees and not self._names[number]

    def _check_trees(self) -> None:
        for number in self._trees:
            inode = self._inodes.get(number)
            if inode is None or inode.nlink or not inode.is_directory:
                detail = f"tree in removal {number}: {inode}"
                self._find("tree_inode", detail, Mend("drop_tree", number, key=keys.tree(number)))
            elif self._queued[number]:
                mend = Mend("drop_row", number, inode.version, self._queued[number][0])
                self._find("tree_inode", f"tree in removal {number} is in the gc queue", mend)
        for inode in self._inodes.values():
            if self._is_cut_off(inode):
                number = inode.number
                row = self._queued[number][0] if self._queued[number] else b""
                detail = f"directory {number} has no name, {self._filled[number]} entries"
                self._find("tree_entries", detail, Mend("revive", number, inode.version, row))

    def _check_tombstones(self) -> None:
        for number, row in self._tombstones.items():
            if number in self._inodes:
                mend = Mend("drop_tombstone", number, self._inodes[number].version, row)
                self._find("tombstone", f"inode {number} is there, and has a tombstone", mend)

    def _check_xattrs(self) -> None:
        for number in self._xattrs.keys() | {
            inode.number for inode in self._inodes.values() if inode.flags & _XATTR_FLAGS
        }:
            names, inode = self._xattrs[number], self._inodes.get(number)
            if inode is None:
                for name in names:
                    key = keys.xattr(number, name)
                    detail = f"attribute {name!r} of missing inode {number}"
                    self._find("xattr_inode", detail, Mend("drop_xattr", number, key=key))
                continue
            flags = xattr.flags_of(names)
            if inode.flags & _XATTR_FLAGS != flags:
                told = inode.flags & _XATTR_FLAGS
                detail = f"inode {number} has attributes {names}, its flags say {told:#x}"
                mend = Mend("xattr_flags", number, inode.version)
                self._find("xattr_inode", detail, mend)
        for number, found in self._acls.items():
            inode = self._inodes.get(number)
            if inode is not None and (inode.mode & 0o777 != found.mode() or found.is_mode):
                detail = f"inode {number} has mode {inode.mode:o}, its ACL {found.mode():o}"
                self._find("acl_mode", detail, Mend("acl_mode", number, inode.version))

    def _check_quotas(self) -> None:
        counted: dict[quota.Account, quota.Usage] = {}
        for inode in self._inodes.values():
            charge = inode.charge()
            for account in charge.accounts():
                one = quota.Usage(charge.bytes, 1)
                counted[account] = counted.get(account, quota.Usage()) + one
        for account in counted.keys() | self._used.keys():
            right = counted.get(account, quota.Usage())
            used = self._used.get(account, quota.Usage())
            if used != right:
                detail = f"{account}: {used}, its inodes add up to {right}"
                key = keys.usage(*account, 0) + quota.encode_usage(right.minus(used))
                mend = Mend("recount", key=key) if not self._unknown_inodes else None
                self._find("quota_usage", detail, mend)
        for account in self._limited:
            top = self._inodes.get(account.id)
            if account.kind == quota.TREE and (top is None or top.quota != top.number):
                detail = f"{account}: the top is {top}"
                key = keys.quota(*account)
                self._find("quota_limit", detail, Mend("drop_limit", account.id, key=key))

    def _check_sessions(self) -> None:
        for (number, session_id), held in self._sessions.items():
            inode = self._inodes.get(number)
            row = keys.session(number, session_id)
            if inode is None or inode.type != FILE:
                detail = f"session {session_id.hex()} of inode {number}"
                self._find("session_inode", detail, Mend("drop_session", number, key=row))
            elif (held.client, number, session_id) not in self._session_index:
                detail = f"session {session_id.hex()} is not in the index"
                self._find("session_inode", detail, Mend("index_session", number, key=row))
        for client, number, session_id in self._session_index:
            if (number, session_id) not in self._sessions:
                detail = f"index row of missing session {session_id.hex()}"
                row = keys.client_session(client, number, session_id)
                self._find("session_inode", detail, Mend("drop_index", number, key=row))

    def _check_intents(self) -> None:
        for wanted in self._intents:
            inode = self._inodes.get(wanted.inode)
            epoch = inode.truncate_epoch if inode is not None else None
            if inode is None or inode.type != FILE or epoch != wanted.truncate_epoch:
                gone = inode is None or inode.type != FILE
                mend = Mend("drop_intent", wanted.inode, key=keys.intent(wanted.inode))
                self._find("intent_inode", f"{wanted}, inode epoch {epoch}", mend if gone else None)

    def _check_appends(self) -> None:
        for number in self._appended:
            inode = self._inodes.get(number)
            if inode is None or inode.type != FILE:
                mend = Mend("drop_appends", number, key=keys.appends(number))
                self._find("append_inode", f"appends of inode {number}, which is no file", mend)


def _ignore(value: object) -> None:
    pass


def _is_name(name: bytes) -> bool:
    try:
        dirent.check_name(name, "fsck")
    except Refused:
        return False
    return True
