"""The witness check: replays a chunk's updates in the order of their versions, in linear time.

The servers say at which position each update was applied, and which position each read saw. Then
linearizability needs no search:
  - replaying the updates one after the other gives, at each position, the content that the
    replicas hold there (I4) and that the reads of that position saw (I4);
  - every acknowledged update is in the history (I1), at the version that the acknowledgement named
    (I2), and no update is in it twice (I10);
  - no operation is placed before one that had ended when it began (I2; for reads I3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.sim.ledger import NOTHING, Operation, Violation

__all__ = ["Applied", "Place", "check"]

Position = tuple[int, int]
Identity = tuple[bytes, int, int]


@dataclass(frozen=True, slots=True)
class Applied:
    """One step of the final history. `content` is what the replicas hold; None: removed."""

    position: Position
    identity: Identity
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Place:
    operation: Operation
    index: int  # in the history; -1: before everything


def check(operations: Sequence[Operation], history: Sequence[Applied]) -> None:
    """Raises Violation. All operations of one chunk; the whole history of its content."""
    index_of = {step.position: i for i, step in enumerate(history)}
    place_of = {step.identity: i for i, step in enumerate(history) if step.identity != NOTHING}
    _check_order(history)
    _check_once(history)
    _check_replay(operations, history)
    placed: list[Place] = []
    for operation in operations:
        if operation.kind == "read":
            if not operation.ok:
                continue
            if operation.position not in index_of and operation.position is not None:
                raise Violation(
                    "I1", f"{operation} saw {operation.position}, which is not in the history"
                )
            placed.append(_place_of_read(operation, history, index_of))
        else:
            place = _place_of_update(operation, history, place_of)
            if place is not None:
                placed.append(place)
    _check_real_time(placed)


def _check_order(history: Sequence[Applied]) -> None:
    """Positions grow: that is what makes them an order to replay in."""
    for before, after in itertools.pairwise(history):
        if after.position <= before.position:
            raise Violation("I5", f"{after.position} was built on {before.position}")


def _check_once(history: Sequence[Applied]) -> None:
    seen: dict[Identity, Position] = {}
    for step in history:
        if step.identity == NOTHING:
            continue
        if step.identity in seen:
            raise Violation(
                "I10",
                f"one update was applied at {seen[step.identity]} and at {step.position}",
            )
        seen[step.identity] = step.position


def _check_replay(operations: Sequence[Operation], history: Sequence[Applied]) -> None:
    asked = {o.identity: o for o in operations if o.identity is not None}
    content = b""
    for step in history:
        if step.identity == NOTHING:
            if content != step.content:
                raise Violation("I4", f"{step.position} is void, and changes the bytes")
            continue
        operation = asked.get(step.identity)
        if operation is None:
            raise Violation("I4", f"{step.position} was made by an update that nobody asked for")
        content = operation.applied_to(content)
        if content != (step.content or b""):
            raise Violation(
                "I4", f"{operation} at {step.position} makes other bytes than the replicas hold"
            )


def _place_of_update(
    operation: Operation, history: Sequence[Applied], place_of: dict[Identity, int]
) -> Place | None:
    """None when it had no effect that anybody saw."""
    assert operation.identity is not None
    index = place_of.get(operation.identity)
    if index is not None:
        position = history[index].position
        if operation.ok and operation.version != position[1]:
            raise Violation(
                "I2",
                f"{operation} was acknowledged as version {operation.version}, and is at "
                f"{position}",
            )
        return Place(operation, index)
    if not operation.ok or (operation.kind == "remove" and operation.version == 0):
        return None
    raise Violation("I1", f"{operation} was acknowledged and is not in the history")


def _place_of_read(
    operation: Operation, history: Sequence[Applied], index_of: dict[Position, int]
) -> Place:
    index = -1 if operation.position is None else index_of[operation.position]
    content = (history[index].content or b"") if index >= 0 else b""
    if operation.data != content:
        raise Violation("I4", f"{operation} saw other bytes than {operation.position} has")
    return Place(operation, index)


def _check_real_time(placed: Sequence[Place]) -> None:
    """No operation has a place before one that had ended when it began."""
    ended = sorted(
        (
            (place.operation.ended_ns, place.index, place.operation)
            for place in placed
            if place.operation.ok and place.operation.ended_ns is not None
        ),
        key=lambda item: (item[0], item[1]),
    )
    newest, latest, at = -1, None, 0
    for place in sorted(placed, key=lambda place: place.operation.began_ns):
        operation = place.operation
        while at < len(ended) and ended[at][0] < operation.began_ns:
            if ended[at][1] > newest:
                newest, latest = ended[at][1], ended[at][2]
            at += 1
        reads = operation.kind == "read"
        behind = place.index < newest if reads else place.index <= newest
        if behind and latest is not operation:
            rule = "I3" if reads else "I2"
            raise Violation(
                rule, f"{operation} is at place {place.index}, behind {newest} of {latest}"
            )
