"""File locks of the whole cluster. Keys: LOCK, LWAI, LCLI, LOWN (fs3/kv/keys.py).

A lock is a row, so it outlives the service that granted it, and there is no time after a restart in
which locks have to be claimed again; several services on one store see the same rows, and two of
them cannot grant the same byte. Locks end when their owner lets go (close included), and with the
client that holds them (prune.py).

Who has to wait stands in a row as well, in order of arrival. Whoever makes room grants what has
become possible in the same transaction, first come first served, and takes the row away; so a
waiter that asks again finds that it holds the lock. Newcomers that find room need not queue, as on
Linux: a queue in front of free locks would make deadlocks of its own.

A deadlock is looked for when an owner is about to wait: the rows of who waits for what are a graph
over all files, clients and services, read in the transaction that would close the circle. As on
Linux only for fcntl locks. Those of an open file (F_OFD_SETLK) cannot be told from those of a
process here, so a circle of them is refused as well.

Reading all rows of a file for each operation would make 10,000 locks on one file 10,000 times as
slow, so the present state of files is kept in memory under a tag, which every change writes to the
file's LOCK row and which is random: equal tags mean equal rows, whatever was rolled back or done
by another service.
"""

import errno
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from fs3 import limits
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta.faults import refuse
from fs3.meta.ranges import FLOCK, POSIX, READ, UNLOCK, WRITE, FileLocks, Owner, Range

__all__ = ["Granted", "LockTable", "Waiter"]

SCHEMA = 1
_HEADER = struct.Struct("<B16sQ")  # schema, tag, number of the next waiter
_RANGE = struct.Struct("<BQBIQ")  # schema, end, type, pid, arrival of the owner
_WAITER = struct.Struct("<B16sQQBBQQI")
TAG_BYTES = 16


class Waiter(NamedTuple):
    number: int
    owner: Owner
    ticket: int  # the owner's name of this wait, so that asking again does not queue again
    kind: int
    start: int
    end: int
    type: int
    pid: int

    def encode(self) -> bytes:
        return _WAITER.pack(
            SCHEMA, *self.owner, self.ticket, self.kind, self.type, self.start, self.end, self.pid
        )


class Granted(NamedTuple):
    """A wait that ended; whoever holds its call answers it."""

    inode: int
    owner: Owner
    ticket: int


@dataclass(slots=True)
class _File:
    """All rows of one inode."""

    inode: int
    tag: bytes = b""
    next_number: int = 1
    kinds: tuple[FileLocks, FileLocks] = field(default_factory=lambda: (FileLocks(), FileLocks()))
    waiters: dict[int, Waiter] = field(default_factory=dict)  # by number: order of arrival
    clients: Counter[bytes] = field(default_factory=Counter)  # ranges and waiters
    weight: int = 0  # rows, when it was last kept in memory

    def rows(self) -> int:
        return len(self.kinds[0]) + len(self.kinds[1]) + len(self.waiters)

    def waiting(self, owner: Owner, ticket: int) -> Waiter | None:
        for waiter in self.waiters.values():
            if waiter.owner == owner and waiter.ticket == ticket:
                return waiter
        return None


class LockTable:
    """Operations on the rows, within transactions. Not thread-safe: guarded by the lock of the
    store. What it keeps in memory is right or recognised as wrong, so it may be run again."""

    def __init__(self, new_tag: Callable[[], bytes]) -> None:
        """`new_tag`: 16 bytes that were never used."""
        self._new_tag = new_tag
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._kept = 0  # weight of _files

    # -- operations ----------------------------------------------------------------------------

    def conflict(
        self, txn: Transaction, inode: int, owner: Owner, kind: int, start: int, end: int, type: int
    ) -> tuple[Owner, Range] | None:
        return self._load(txn, inode).kinds[kind].conflict(owner, start, end, type)

    def set(
        self, txn: Transaction, inode: int, owner: Owner, kind: int, wanted: Range
    ) -> tuple[bool, list[Granted]]:
        """Without waiting: whether it is held now, and who else has got a lock by it."""
        file = self._load(txn, inode)
        granted: list[Granted] = []
        if self._convert_flock(txn, file, owner, kind, wanted.type):
            granted = self._grant(txn, file)
        if file.kinds[kind].conflict(owner, wanted.start, wanted.end, wanted.type):
            self._save(txn, file, changed=bool(granted))
            return False, granted
        self._admit(file, wanted.type)
        if self._apply(txn, file, owner, kind, wanted):
            granted += self._grant(txn, file)
        self._save(txn, file)
        return True, granted

    def wait(
        self, txn: Transaction, inode: int, owner: Owner, kind: int, wanted: Range, ticket: int
    ) -> tuple[bool, list[Granted]]:
        """As set(); when somebody is in the way it waits under `ticket`. EDEADLK."""
        file = self._load(txn, inode)
        if file.waiting(owner, ticket) is not None:
            return False, []
        held, granted = self.set(txn, inode, owner, kind, wanted)
        if held:
            return True, granted
        file = self._load(txn, inode)
        if kind == POSIX and self._closes_circle(txn, file, owner, wanted):
            detail = f"inode {inode}: {owner.client.hex()}/{owner.number:x} waits for itself"
            raise refuse(errno.EDEADLK, "lock", detail)
        self._admit(file, wanted.type)
        start, end, type, pid = wanted
        waiter = Waiter(file.next_number, owner, ticket, kind, start, end, type, pid)
        file.next_number += 1
        file.waiters[waiter.number] = waiter
        self._count(txn, file, owner.client, 1)
        txn.set(keys.lock_waiter(inode, waiter.number), waiter.encode())
        txn.set(keys.owner_wait(*owner, inode, waiter.number), b"")
        self._save(txn, file)
        return False, granted

    def holds(self, txn: Transaction, inode: int, owner: Owner, kind: int, wanted: Range) -> bool:
        locks = self._load(txn, inode).kinds[kind]
        return locks.covers(owner, wanted.start, wanted.end, wanted.type)

    def cancel(self, txn: Transaction, inode: int, owner: Owner, ticket: int) -> bool:
        """True when the wait was there. It is not when its lock has been granted."""
        file = self._load(txn, inode)
        waiter = file.waiting(owner, ticket)
        if waiter is None:
            return False
        self._drop_waiter(txn, file, waiter)
        self._save(txn, file)
        return True

    def release(
        self, txn: Transaction, inode: int, owners: Callable[[Owner], bool], kinds: tuple[int, ...]
    ) -> list[Granted]:
        """Every lock and wait of these owners is over: those who got a lock by it."""
        file = self._load(txn, inode)
        everything = Range(0, _END, UNLOCK, 0)
        for kind in kinds:
            for owner in filter(owners, file.kinds[kind].owners()):
                self._apply(txn, file, owner, kind, everything)
        for waiter in list(file.waiters.values()):
            if waiter.kind in kinds and owners(waiter.owner):
                self._drop_waiter(txn, file, waiter)
        granted = self._grant(txn, file)
        self._save(txn, file)
        return granted

    # -- parts ---------------------------------------------------------------------------------

    def _convert_flock(
        self, txn: Transaction, file: _File, owner: Owner, kind: int, type: int
    ) -> bool:
        """flock(2) lets go of the lock it converts before it takes the other one."""
        held = file.kinds[kind].held(owner) if kind == FLOCK else []
        if not held or held[0].type == type:
            return False
        self._apply(txn, file, owner, kind, Range(0, _END, UNLOCK, 0))
        return True

    def _grant(self, txn: Transaction, file: _File) -> list[Granted]:
        """Everybody who needs to wait no longer, oldest first. A grant may make room for others:
        its owner may give up a stronger lock by it."""
        granted: list[Granted] = []
        found = True
        while found:
            found = False
            for waiter in list(file.waiters.values()):
                locks = file.kinds[waiter.kind]
                if locks.conflict(waiter.owner, waiter.start, waiter.end, waiter.type):
                    continue
                self._drop_waiter(txn, file, waiter)
                wanted = Range(waiter.start, waiter.end, waiter.type, waiter.pid)
                self._apply(txn, file, waiter.owner, waiter.kind, wanted)
                granted.append(Granted(file.inode, waiter.owner, waiter.ticket))
                found = True
        return granted

    def _apply(self, txn: Transaction, file: _File, owner: Owner, kind: int, wanted: Range) -> bool:
        """True when somebody who waits may have got room."""
        locks = file.kinds[kind]
        gone, come = locks.apply(owner, wanted.start, wanted.end, wanted.type, wanted.pid)
        for held in gone:
            txn.clear(keys.lock_range(file.inode, kind, *owner, held.start))
        for held in come:
            record = _RANGE.pack(SCHEMA, held.end, held.type, held.pid, locks.arrival(owner))
            txn.set(keys.lock_range(file.inode, kind, *owner, held.start), record)
        self._count(txn, file, owner.client, len(come) - len(gone))
        return bool(gone)

    def _drop_waiter(self, txn: Transaction, file: _File, waiter: Waiter) -> None:
        del file.waiters[waiter.number]
        txn.clear(keys.lock_waiter(file.inode, waiter.number))
        txn.clear(keys.owner_wait(*waiter.owner, file.inode, waiter.number))
        self._count(txn, file, waiter.owner.client, -1)

    def _count(self, txn: Transaction, file: _File, client: bytes, change: int) -> None:
        """Keeps the index by client."""
        before = file.clients[client]
        file.clients[client] = before + change
        if before == 0 and change > 0:
            txn.set(keys.client_lock(client, file.inode), b"")
        elif before + change == 0:
            del file.clients[client]
            txn.clear(keys.client_lock(client, file.inode))

    def _admit(self, file: _File, type: int) -> None:
        """Two more rows at most come of one request: a range that is split."""
        if type != UNLOCK and file.rows() + 2 > limits.LOCKS_PER_FILE_MAX:
            detail = f"inode {file.inode} has {file.rows()} locks and waiters"
            raise refuse(errno.ENOLCK, "lock", detail)

    def _closes_circle(self, txn: Transaction, file: _File, owner: Owner, wanted: Range) -> bool:
        locks = file.kinds[POSIX]
        to_visit = list(locks.blockers(owner, wanted.start, wanted.end, wanted.type))
        seen: set[Owner] = set()
        while to_visit and len(seen) < limits.LOCK_CIRCLE_OWNERS_MAX:
            other = to_visit.pop()
            if other == owner:
                return True
            if other in seen:
                continue
            seen.add(other)
            for row, _ in txn.get_range(*keys.owner_waits(*other)):
                inode, number = keys.owner_wait_fields(row)
                waited = self._load(txn, inode)
                waiter = waited.waiters.get(number)
                if waiter is not None and waiter.kind == POSIX:
                    blockers = waited.kinds[POSIX].blockers
                    to_visit += blockers(waiter.owner, waiter.start, waiter.end, waiter.type)
        return False

    # -- rows ----------------------------------------------------------------------------------

    def _load(self, txn: Transaction, inode: int) -> _File:
        record = txn.get(keys.lock(inode))
        if record is None:
            self._forget(inode)
            return _File(inode)
        tag, next_number = decode_header(inode, record)
        kept = self._files.get(inode)
        if kept is not None and kept.tag == tag:
            self._files.move_to_end(inode)
            return kept
        file = _File(inode, tag, next_number)
        ranges = [decode_range(key, row) for key, row in txn.get_range(*keys.lock_ranges(inode))]
        for kind, owner, held, arrival in sorted(ranges, key=lambda row: (row[0], row[3], row[2])):
            file.kinds[kind].load(owner, held, arrival)
            file.clients[owner.client] += 1
        for key, row in txn.get_range(*keys.lock_waiters(inode)):
            waiter = decode_waiter(key, row)
            file.waiters[waiter.number] = waiter
            file.clients[waiter.owner.client] += 1
        self._keep(file)
        return file

    def _save(self, txn: Transaction, file: _File, *, changed: bool = True) -> None:
        if not changed:
            return
        if not file.rows():
            txn.clear(keys.lock(file.inode))
            self._forget(file.inode)
            return
        file.tag = self._new_tag()
        txn.set(keys.lock(file.inode), _HEADER.pack(SCHEMA, file.tag, file.next_number))
        self._keep(file)

    def _keep(self, file: _File) -> None:
        self._forget(file.inode)
        self._files[file.inode] = file
        file.weight = file.rows()
        self._kept += file.weight
        while self._kept > limits.LOCKS_IN_MEMORY_MAX and len(self._files) > 1:
            self._forget(next(iter(self._files)))

    def _forget(self, inode: int) -> None:
        file = self._files.pop(inode, None)
        if file is not None:
            self._kept -= file.weight


_END = (1 << 63) - 1


def decode_header(inode: int, record: bytes) -> tuple[bytes, int]:
    if len(record) != _HEADER.size or record[0] != SCHEMA:
        raise _damaged(f"of inode {inode}", record)
    _, tag, next_number = _HEADER.unpack(record)
    return tag, next_number


def decode_range(key: bytes, record: bytes) -> tuple[int, Owner, Range, int]:
    """(kind, owner, range, arrival of the owner)."""
    inode, kind, client, number, start = keys.lock_range_fields(key)
    where = f"of inode {inode} at {start}"
    if len(record) != _RANGE.size or record[0] != SCHEMA or kind not in (POSIX, FLOCK):
        raise _damaged(where, record)
    _, end, type, pid, arrival = _RANGE.unpack(record)
    if not start <= end <= _END or type not in (READ, WRITE):
        raise _damaged(where, record)
    return kind, Owner(client, number), Range(start, end, type, pid), arrival


def decode_waiter(key: bytes, record: bytes) -> Waiter:
    inode, waiter_number = keys.lock_waiter_fields(key)
    where = f"of inode {inode}, waiter {waiter_number}"
    if len(record) != _WAITER.size or record[0] != SCHEMA:
        raise _damaged(where, record)
    _, client, number, ticket, kind, type, start, end, pid = _WAITER.unpack(record)
    if not start <= end <= _END or type not in (READ, WRITE) or kind not in (POSIX, FLOCK):
        raise _damaged(where, record)
    owner = Owner(client, number)
    return Waiter(waiter_number, owner, ticket, kind, start, end, type, pid)


def inodes_of(txn: Transaction, client: bytes, limit: int) -> list[int]:
    """Where the client has locks or waits for them."""
    pairs = txn.get_range(*keys.client_locks(client), limit=limit)
    return [keys.client_lock_fields(key)[1] for key, _ in pairs]


def _damaged(what: str, record: bytes) -> Damaged:
    return Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/lock {what}",
        f"record {record[:16].hex()} does not decode; stop the service and run fsck",
    )
