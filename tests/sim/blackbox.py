"""Linearizability of one chunk, judged from outside: no version, no position, nothing of the
servers.

Model: a chunk is a row of cells. A write fills a range with a value of its own, a truncate cuts or
pads with zeros, a remove empties, a read sees all cells. A history is linearizable when each
operation can be given an instant between its call and its return so that the row explains every
read. The search is Wing and Gong's with Lowe's memory of visited configurations.

Outcomes that the client never learnt are settled first, exactly:
  - A write whose value nobody saw is left out. It would be invisible wherever it was put, and
    without it every cell that was read is what it was.
  - A write whose value was seen happened, at the latest when the first read that saw it returned.
  - A truncate or remove has no value to be recognised by. It may happen at any later time, or
    never.

Bar: at most 4 clients (7 operations at a time, with settled ones that hang over), 400 operations
in all, and 5 that stay unknown (`fits`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

__all__ = ["FOREVER", "Call", "Verdict", "fits", "judge", "settled"]

FOREVER = math.inf
STEPS_MAX = 2_000_000
CONCURRENT_MAX = 7
CALLS_MAX = 400
UNKNOWN_MAX = 5

Cells = tuple[int, ...]


class Verdict(enum.Enum):
    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Call:
    """One operation as its client saw it. `ended` FOREVER: it never learnt the outcome.

    write: `count` cells from `first` get `value`, which is not 0 and no other write's.
    truncate: to `count` cells. read: saw `seen`.
    """

    kind: str
    began: float
    ended: float
    first: int = 0
    count: int = 0
    value: int = 0
    seen: Cells = ()


def settled(calls: Iterable[Call]) -> list[Call]:
    """The calls that matter, in the order in which they began."""
    known = [call for call in calls if call.kind != "read" or call.ended < FOREVER]
    seen_at: dict[int, float] = {}
    for call in known:
        if call.kind == "read":
            for value in call.seen:
                seen_at[value] = min(seen_at.get(value, FOREVER), call.ended)
    kept: list[Call] = []
    for call in known:
        if call.kind == "write" and call.ended == FOREVER:
            if call.value not in seen_at:
                continue
            call = replace(call, ended=max(seen_at[call.value], call.began))
        kept.append(call)
    return sorted(kept, key=lambda call: (call.began, call.ended))


def fits(calls: Sequence[Call]) -> bool:
    """Whether settled calls are within the bar, so that a verdict is owed."""
    unknown = sum(call.ended == FOREVER for call in calls)
    edges = [(call.began, 1) for call in calls if call.ended < FOREVER]
    edges += [(call.ended, -1) for call in calls if call.ended < FOREVER]
    at_once = most = 0
    for _, change in sorted(edges):
        at_once += change
        most = max(most, at_once)
    return len(calls) <= CALLS_MAX and unknown <= UNKNOWN_MAX and most <= CONCURRENT_MAX


def judge(calls: Iterable[Call], steps_max: int = STEPS_MAX) -> Verdict:
    return _Search(settled(calls), steps_max).run()


class _Search:
    """Depth first over configurations (set of operations that have their instant, row of cells)."""

    def __init__(self, calls: list[Call], steps_max: int) -> None:
        self._calls = calls
        self._steps_left = steps_max
        self._all = sum(1 << i for i, call in enumerate(calls) if call.ended < FOREVER)
        self._visited: set[tuple[int, Cells]] = set()

    def run(self) -> Verdict:
        stack: list[tuple[int, int, Cells]] = [(0, 0, ())]
        while stack:
            done, low, cells = stack.pop()
            self._steps_left -= 1
            if self._steps_left < 0:
                return Verdict.UNDECIDED
            done, candidates = self._read_greedily(done, low, cells)
            if done & self._all == self._all:
                return Verdict.LINEARIZABLE
            if (done, cells) in self._visited:
                continue
            self._visited.add((done, cells))
            while low < len(self._calls) and done >> low & 1:
                low += 1
            # The one that returned first is tried first, so it goes on the stack last.
            candidates.sort(key=lambda i: -self._calls[i].ended)
            for i in candidates:
                stack.append((done | 1 << i, low, _applied(self._calls[i], cells)))
        return Verdict.VIOLATION

    def _read_greedily(self, done: int, low: int, cells: Cells) -> tuple[int, list[int]]:
        """Reads that fit now get their instant now, which can only help: they change nothing. Then
        the updates that may come next."""
        while True:
            updates: list[int] = []
            fitting = False
            horizon = FOREVER  # what began after some waiting operation returned has to wait
            for i in range(low, len(self._calls)):
                call = self._calls[i]
                if call.began > horizon:
                    break
                if done >> i & 1:
                    continue
                horizon = min(horizon, call.ended)
                if call.kind != "read":
                    updates.append(i)
                elif call.seen == cells:
                    done |= 1 << i
                    fitting = True
            if not fitting:
                return done, [i for i in updates if self._calls[i].began <= horizon]


def _applied(call: Call, cells: Cells) -> Cells:
    if call.kind == "remove":
        return ()
    if call.kind == "truncate":
        return (cells + (0,) * call.count)[: call.count]
    end = call.first + call.count
    before = (cells + (0,) * call.first)[: call.first]
    return before + (call.value,) * call.count + cells[end:]
