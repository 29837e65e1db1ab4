"""The checks at the end of a run: I1, I2, I3, I4 and I10 by the history, I8 by comparing replicas.

Witness check: each acknowledgement and each read names a position, and the positions of a chunk's
final history are a total order. If every operation fits its place in it - the content it saw, and
no place before anything that had ended when it began - the history is linearizable.

One exception is granted, and counted: a replica stages and forwards at the same time, so the tail
may commit and show an update that is not yet durable at the head. When then every serving replica
dies, and the one whose death is learnt last is the one that had not written it yet, an update is
gone that nobody was told is done, but that was read.
"""

from collections.abc import Iterable

from tests.sim.disk import ChunkKey, Disk, Position
from tests.sim.ledger import Ledger, Operation, Violation

__all__ = ["check_histories", "check_replicas"]


def check_replicas(chain: int, disks: Iterable[tuple[str, Disk]]) -> dict[ChunkKey, Position]:
    """I8: the replicas of one chain are equal, and nothing is pending. The tips of the chunks."""
    first: tuple[str, dict[ChunkKey, object]] | None = None
    tips: dict[ChunkKey, Position] = {}
    for name, disk in disks:
        held: dict[ChunkKey, object] = {}
        for key, chunk in disk.chunks():
            if chunk.pending is not None:
                raise Violation("I8", f"{name}: {key} is still pending at {chunk.pending.position}")
            if chunk.committed is not None:
                held[key] = chunk.committed.position, chunk.committed.data
                tips[key] = chunk.committed.position
            elif chunk.removed is not None:
                tips.setdefault(key, chunk.removed)
        if first is None:
            first = name, held
        elif held != first[1]:
            different = [key for key in {**held, **first[1]} if held.get(key) != first[1].get(key)]
            key = different[0]
            raise Violation(
                "I8",
                f"chain {chain}: {key} is {held.get(key)} at {name} "
                f"and {first[1].get(key)} at {first[0]}",
            )
    return tips


def check_histories(ledger: Ledger, tips: dict[ChunkKey, Position]) -> None:
    by_chunk: dict[ChunkKey, list[Operation]] = {}
    for operation in ledger.operations:
        by_chunk.setdefault(operation.chunk, []).append(operation)
    for chunk, operations in by_chunk.items():
        _check_chunk(ledger, chunk, ledger.history(chunk, tips.get(chunk)), operations)


def _check_chunk(
    ledger: Ledger, chunk: ChunkKey, history: list[Position], operations: list[Operation]
) -> None:
    place: dict[Position | None, int] = {position: i for i, position in enumerate(history)}
    place[None] = -1
    _check_once(ledger, chunk, history)
    placed: list[tuple[Operation, int]] = []
    for operation in operations:
        if _forgotten(ledger, operation, place):
            ledger.forgotten_reads += 1
            continue
        index = _place(ledger, operation, place)
        if index is not None:
            placed.append((operation, index))
    _check_real_time(placed)


def _check_once(ledger: Ledger, chunk: ChunkKey, history: list[Position]) -> None:
    seen: dict[object, Position] = {}
    for position in history:
        identity = ledger.entries[chunk, position].identity
        if identity in seen:
            raise Violation(
                "I10", f"{chunk}: one update was applied at {seen[identity]} and at {position}"
            )
        seen[identity] = position


def _place(ledger: Ledger, operation: Operation, place: dict[Position | None, int]) -> int | None:
    """The index of the operation in the history; None when it had no effect that anybody saw."""
    if operation.kind == "read":
        return _place_of_read(ledger, operation, place) if operation.ok else None
    assert operation.identity is not None
    at = [p for p in ledger.positions.get(operation.identity, []) if p in place]
    if at:
        return place[at[0]]
    if not operation.ok:
        return None
    if operation.kind == "remove" and operation.position is None and operation.data == b"absent":
        return None
    raise Violation("I1", f"{operation} was acknowledged and is not in the history")


def _forgotten(ledger: Ledger, operation: Operation, place: dict[Position | None, int]) -> bool:
    """A read of an update that was never acknowledged, before nobody served the chain."""
    position = operation.position
    if operation.kind != "read" or not operation.ok or position is None or position in place:
        return False
    chunk = operation.chunk
    assert operation.ended_ns is not None
    died = ledger.died_ns.get(chunk[0], -1) > operation.ended_ns
    return died and (chunk, position) not in ledger.promised


def _place_of_read(ledger: Ledger, operation: Operation, place: dict[Position | None, int]) -> int:
    if operation.position not in place:
        raise Violation("I1", f"{operation} saw {operation.position}, which is not in the history")
    content: bytes | None = b""
    if operation.position is not None:
        content = ledger.entries[operation.chunk, operation.position].content
    if operation.data != (content or b""):
        raise Violation("I4", f"{operation} saw other bytes than {operation.position} has")
    return place[operation.position]


def _check_real_time(placed: list[tuple[Operation, int]]) -> None:
    """No operation has a place before one that had ended when it began."""
    ended = sorted(
        ((o.ended_ns, index, o) for o, index in placed if o.ok and o.ended_ns is not None),
        key=lambda item: (item[0], item[1]),
    )
    newest, latest, at = -1, None, 0
    for operation, index in sorted(placed, key=lambda item: item[0].began_ns):
        while at < len(ended) and ended[at][0] < operation.began_ns:
            if ended[at][1] > newest:
                newest, latest = ended[at][1], ended[at][2]
            at += 1
        behind = index < newest if operation.kind == "read" else index <= newest
        if behind and latest is not operation:
            rule = "I3" if operation.kind == "read" else "I2"
            raise Violation(rule, f"{operation} is at {index}, behind {newest} of {latest}")
