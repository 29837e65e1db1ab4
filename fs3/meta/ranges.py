"""Locks on the bytes of one file, as Linux keeps them: who holds what, who is in whose way.

Pure: no transaction, no clock. Two kinds that never meet each other: POSIX (fcntl: byte ranges; a
later one of the same owner replaces, splits and merges earlier ones) and FLOCK (flock: the whole
file, one lock per owner). An owner is a client and a number that the client's kernel gives: a
process for F_SETLK, an open file for F_OFD_SETLK and flock. Ends are inclusive.

Invariants: ranges of one owner and kind are disjoint and sorted, neighbours of equal type
are one range; two owners overlap only where both read. Cost: a range that writes overlaps
no range of another owner, so all of them lie in one sorted list, and a reader looks only there: a
search by halves. A writer also looks at every owner who reads.
"""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["END_MAX", "FLOCK", "POSIX", "READ", "UNLOCK", "WRITE", "FileLocks", "Owner", "Range"]

READ, WRITE, UNLOCK = 0, 1, 2  # F_RDLCK, F_WRLCK, F_UNLCK of Linux
POSIX, FLOCK = 0, 1
END_MAX = (1 << 63) - 1  # OFFSET_MAX: to the end of the file, however long it gets


class Owner(NamedTuple):
    client: bytes  # 16 bytes
    number: int


class Range(NamedTuple):
    start: int
    end: int  # inclusive
    type: int
    pid: int  # for messages to people (F_GETLK)


class FileLocks:
    """The locks of one kind on one file. Owners are kept in the order in which they came, which is
    the order in which F_GETLK of Linux looks for a conflict."""

    def __init__(self) -> None:
        self._ranges: dict[Owner, list[Range]] = {}
        self._arrival: dict[Owner, int] = {}
        self._next_arrival = 0
        self._count = 0
        self._readers: set[Owner] = set()  # who holds a range that reads
        self._writes: list[tuple[int, int, Owner]] = []  # all ranges that write, sorted

    def __len__(self) -> int:
        return self._count

    def owners(self) -> list[Owner]:
        return list(self._ranges)

    def arrival(self, owner: Owner) -> int:
        return self._arrival[owner]

    def held(self, owner: Owner) -> list[Range]:
        return list(self._ranges.get(owner, ()))

    def all(self) -> Iterator[tuple[Owner, Range]]:
        for owner, ranges in self._ranges.items():
            for held in ranges:
                yield owner, held

    def load(self, owner: Owner, held: Range, arrival: int) -> None:
        """A stored range. REQUIRES: in order of arrival, then of start."""
        self._ranges.setdefault(owner, []).append(held)
        self._arrival[owner] = arrival
        self._next_arrival = max(self._next_arrival, arrival + 1)
        self._index(owner, held)

    # -- conflicts -----------------------------------------------------------------------------

    def conflict(self, owner: Owner, start: int, end: int, type: int) -> tuple[Owner, Range] | None:
        """The first range of somebody else that a lock of this type has to wait for."""
        return min(
            self._conflicts(owner, start, end, type),
            key=lambda each: (self._arrival[each[0]], each[1].start),
            default=None,
        )

    def covers(self, owner: Owner, start: int, end: int, type: int) -> bool:
        """The owner holds all of it, with this type."""
        ranges = self._ranges.get(owner, [])
        at = max(bisect.bisect_right(ranges, (start + 1,)) - 1, 0)
        if at == len(ranges):
            return False
        held = ranges[at]  # neighbours of one type are one range
        return held.type == type and held.start <= start and end <= held.end

    def blockers(self, owner: Owner, start: int, end: int, type: int) -> set[Owner]:
        return {other for other, _ in self._conflicts(owner, start, end, type)}

    def _conflicts(
        self, owner: Owner, start: int, end: int, type: int
    ) -> Iterator[tuple[Owner, Range]]:
        if type == UNLOCK:
            return
        for at in range(max(bisect.bisect_right(self._writes, (start,)) - 1, 0), len(self._writes)):
            first, last, other = self._writes[at]
            if first > end:
                break
            if last >= start and other != owner:
                yield other, self._at(other, first)
        if type == WRITE:
            for other in self._readers:
                if other != owner:
                    for held in self._overlapping(other, start, end):
                        if held.type == READ:
                            yield other, held

    def _at(self, owner: Owner, start: int) -> Range:
        ranges = self._ranges[owner]
        return ranges[bisect.bisect_left(ranges, (start,))]

    def _overlapping(self, owner: Owner, start: int, end: int) -> Iterator[Range]:
        ranges = self._ranges.get(owner, [])
        for at in range(max(bisect.bisect_right(ranges, (start,)) - 1, 0), len(ranges)):
            if ranges[at].start > end:
                return
            if ranges[at].end >= start:
                yield ranges[at]

    # -- changes -------------------------------------------------------------------------------

    def apply(
        self, owner: Owner, start: int, end: int, type: int, pid: int
    ) -> tuple[list[Range], list[Range]]:
        """Sets or (UNLOCK) removes: what went, and what came. REQUIRES: no conflict."""
        ranges = self._ranges.get(owner, [])
        first, last, pieces = self._replace(ranges, Range(start, end, type, pid))
        gone = ranges[first:last]
        if gone == pieces:
            return [], []
        for held in gone:
            self._unindex(owner, held)
        ranges[first:last] = pieces
        if not ranges:
            self._ranges.pop(owner, None)
            self._arrival.pop(owner, None)
        elif owner not in self._ranges:
            self._ranges[owner] = ranges
            self._arrival[owner] = self._next_arrival
            self._next_arrival += 1
        for held in pieces:
            self._index(owner, held)
        if owner in self._readers and not any(held.type == READ for held in ranges):
            self._readers.discard(owner)
        kept = set(gone) & set(pieces)
        return (
            [held for held in gone if held not in kept],
            [held for held in pieces if held not in kept],
        )

    @staticmethod
    def _replace(ranges: list[Range], new: Range) -> tuple[int, int, list[Range]]:
        """ranges[first:last] give way to `pieces`: what overlaps `new` or, being of its type,
        touches it."""
        first = max(bisect.bisect_right(ranges, (new.start,)) - 1, 0)
        while first < len(ranges) and ranges[first].end < new.start - 1:
            first += 1
        last = first
        merged = False
        start, end, pid = new.start, new.end, new.pid
        left: list[Range] = []
        right: list[Range] = []
        while last < len(ranges) and ranges[last].start <= new.end + 1:
            held = ranges[last]
            if held.type == new.type:
                # The first one stays, and grows: it keeps the name of its process.
                pid = pid if merged else held.pid
                merged = True
                start, end = min(start, held.start), max(end, held.end)
            else:
                if held.start < new.start:
                    left.append(held._replace(end=min(held.end, new.start - 1)))
                if held.end > new.end:
                    right.append(held._replace(start=max(held.start, new.end + 1)))
            last += 1
        middle = [] if new.type == UNLOCK else [Range(start, end, new.type, pid)]
        return first, last, left + middle + right

    def _index(self, owner: Owner, held: Range) -> None:
        self._count += 1
        if held.type == READ:
            self._readers.add(owner)
        else:
            bisect.insort(self._writes, (held.start, held.end, owner))

    def _unindex(self, owner: Owner, held: Range) -> None:
        self._count -= 1
        if held.type == WRITE:
            del self._writes[bisect.bisect_left(self._writes, (held.start, held.end, owner))]
