"""What a transaction wants to write, and how reads see through it.

WriteSet     point writes over range clears, in the order that makes replay simple: clears first,
             then points
View         something that can be read: the store at a version, or a WriteSet laid over another
             View
overlaid     one range read through both
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

from fs3 import limits
from fs3.errors import BadRequest, Status
from fs3.kv.api import KEY_END

__all__ = ["Overlaid", "Pair", "View", "WriteSet", "check_key"]

Pair = tuple[bytes, bytes]


class View(Protocol):
    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]: ...


def check_key(key: bytes) -> None:
    """Raises ValueError: a key outside the space is a bug of the caller, never input."""
    if not b"" < key < KEY_END:
        raise ValueError(f"key {key[:40]!r} is empty or not below {KEY_END!r}")


class WriteSet:
    """Ordered effects. Invariant: a key cleared by a range and set afterwards is in `points`;
    replay is "clear all ranges, then apply all points", so no other order has to be kept."""

    __slots__ = ("_ordered", "_unordered", "cleared", "extra_conflicts", "points", "size_bytes")

    def __init__(self) -> None:
        self.points: dict[bytes, bytes | None] = {}  # None = cleared
        self.cleared: list[tuple[bytes, bytes]] = []
        self.extra_conflicts: list[tuple[bytes, bytes]] = []
        self.size_bytes = 0
        self._ordered: list[bytes] = []  # keys of points, sorted when a range read asks
        self._unordered: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.points or self.cleared)

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.points:
            self._unordered.append(key)
        self.points[key] = value
        self.size_bytes += len(key) + (len(value) if value is not None else 0)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        if begin >= end:
            return
        for key in self.keys_between(begin, end):
            self.points[key] = None
        self.cleared.append((begin, end))
        self.size_bytes += len(begin) + len(end)

    def absorb(self, later: "WriteSet") -> None:
        """Applies `later` on top of this one."""
        for begin, end in later.cleared:
            self.clear_range(begin, end)
        for key, value in later.points.items():
            self.put(key, value)
        self.extra_conflicts += later.extra_conflicts

    def hides(self, key: bytes) -> bool:
        """True when a range clear removed `key` (points are looked at before)."""
        return any(begin <= key < end for begin, end in self.cleared)

    def keys_between(self, begin: bytes, end: bytes) -> list[bytes]:
        if self._unordered:
            self._ordered += self._unordered
            self._ordered.sort()  # two sorted runs and a few: close to linear
            self._unordered = []
        return self._ordered[bisect_left(self._ordered, begin) : bisect_left(self._ordered, end)]

    def check_limits(self) -> None:
        if len(self.points) + len(self.cleared) > limits.TRANSACTION_KEYS_MAX:
            self._refuse(f"{len(self.points)} keys, at most {limits.TRANSACTION_KEYS_MAX}")
        if self.size_bytes > limits.TRANSACTION_BYTES_MAX:
            self._refuse(f"{self.size_bytes} bytes, at most {limits.TRANSACTION_BYTES_MAX}")

    def _refuse(self, detail: str) -> None:
        raise BadRequest(
            Status.BAD_REQUEST, "kv/commit", f"transaction: {detail}; split the operation"
        )


class Overlaid:
    """A View: `writes` over `below`."""

    __slots__ = ("_below", "_writes")

    def __init__(self, writes: WriteSet, below: View) -> None:
        self._writes = writes
        self._below = below

    def get(self, key: bytes) -> bytes | None:
        writes = self._writes
        if key in writes.points:
            return writes.points[key]
        if writes.cleared and writes.hides(key):
            return None
        return self._below.get(key)

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]:
        own = self._writes.keys_between(begin, end)
        below = self._below.scan(begin, end, reverse)
        if not own and not self._writes.cleared:
            return below
        return self._merge(own[::-1] if reverse else own, below, reverse)

    def _merge(self, own: list[bytes], below: Iterator[Pair], reverse: bool) -> Iterator[Pair]:
        """Both sides are in scan order. A key on both sides is taken from `own`; None drops it."""
        points, hides = self._writes.points, self._writes.hides
        at = 0
        for key, value in below:
            while at < len(own) and (own[at] > key if reverse else own[at] < key):
                mine = points[own[at]]
                if mine is not None:
                    yield own[at], mine
                at += 1
            if key not in points and not hides(key):
                yield key, value
        for key in own[at:]:
            mine = points[key]
            if mine is not None:
                yield key, mine
