"""Linearizability of registers whose writes all have different values (Gibbons and Korach, 1997).

The operations that name one value are its cluster: the write and the reads that returned it. Its
zone runs from the earliest end to the latest begin among them; it is forward when that is a span of
time during which the register must hold the value, backward when all its operations overlap. A
history is linearizable if and only if no read begins and ends before its write begins, no two
forward zones overlap, and no backward zone lies inside a forward one. No search, so no history is
too long to decide.
"""

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["INITIAL", "Operation", "violation"]

INITIAL = 0
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Operation:
    """`end_s` is NEVER when nobody knows the outcome: such a write may take effect at any time."""

    register: int
    write: bool
    value: int
    begin_s: float
    end_s: float
    who: str = ""


@dataclass(frozen=True, slots=True)
class _Zone:
    value: int
    operations: list[Operation]

    @property
    def earliest_end(self) -> float:
        return min(operation.end_s for operation in self.operations)

    @property
    def latest_begin(self) -> float:
        return max(operation.begin_s for operation in self.operations)

    @property
    def forward(self) -> bool:
        return self.earliest_end < self.latest_begin

    @property
    def low(self) -> float:
        return min(self.earliest_end, self.latest_begin)

    @property
    def high(self) -> float:
        return max(self.earliest_end, self.latest_begin)

    def __str__(self) -> str:
        steps = [
            f"{o.who} {'wrote' if o.write else 'read'} it {o.begin_s:.6f}..{o.end_s:.6f}"
            for o in sorted(self.operations, key=lambda operation: operation.begin_s)
        ]
        return f"{self.value:#x} ({'; '.join(steps)})"


def violation(operations: Iterable[Operation]) -> str:
    """What contradicts every order of the operations of some register; empty when nothing does."""
    registers: dict[int, list[Operation]] = {}
    for operation in operations:
        registers.setdefault(operation.register, []).append(operation)
    for number, history in sorted(registers.items()):
        if text := _of_one(history):
            return f"register {number}: {text}"
    return ""


def _of_one(history: list[Operation]) -> str:
    writes = {operation.value: operation for operation in history if operation.write}
    clusters: dict[int, list[Operation]] = {value: [write] for value, write in writes.items()}
    clusters[INITIAL] = [Operation(0, True, INITIAL, -2.0, -1.0)]
    for read in history:
        if read.write or read.end_s == NEVER:
            continue
        if read.value not in clusters:
            return f"{read.who} read {read.value:#x}, which nobody wrote"
        if read.end_s < clusters[read.value][0].begin_s:
            return f"{read.who} read {read.value:#x} before it was written"
        clusters[read.value].append(read)
    zones = [
        _Zone(value, cluster)
        for value, cluster in clusters.items()
        # A write of unknown outcome that nobody read may never have happened.
        if len(cluster) > 1 or cluster[0].end_s != NEVER
    ]
    return _overlap(zones)


def _overlap(zones: list[_Zone]) -> str:
    forward = sorted((zone for zone in zones if zone.forward), key=lambda zone: zone.low)
    for first, second in itertools.pairwise(forward):
        if second.low < first.high:
            return f"values {first} and {second} must both have been there at {second.low:.6f} s"
    lows = [zone.low for zone in forward]
    for zone in (zone for zone in zones if not zone.forward):
        index = bisect.bisect_left(lows, zone.low) - 1  # the only one that can contain it
        if index >= 0 and forward[index].high > zone.high:
            return f"value {zone} was there while {forward[index]} must have been"
    return ""
