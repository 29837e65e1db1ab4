"""The checks at the end of a run: I8 by comparing replicas; I1, I2, I3, I4 and I10 twice: by the
witness (witness.py), which trusts the positions that servers name, and by the black box
(blackbox.py), which trusts nothing.

One exception is granted, and counted: a replica stages and forwards at the same time, so the tail
may commit and show an update that is not yet durable at the head. When then every serving replica
dies, and the one whose death is learnt last is the one that had not written it yet, an update is
gone that nobody was told is done, but that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.sim import blackbox, witness
from tests.sim.disk import ChunkKey, Disk, Position
from tests.sim.ledger import CELL, Ledger, Operation, Violation

__all__ = ["Judged", "blind_call", "check_histories", "check_replicas"]

ChainOf = Callable[[ChunkKey], int]


@dataclass(slots=True)
class Judged:
    """How many chunks' histories the black box decided, and how many were beyond its bar."""

    blind: int = 0
    too_big: int = 0
    forgotten_reads: int = 0

    def add(self, other: Judged) -> None:
        self.blind += other.blind
        self.too_big += other.too_big
        self.forgotten_reads += other.forgotten_reads


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


def check_histories(ledger: Ledger, tips: dict[ChunkKey, Position], chain_of: ChainOf) -> Judged:
    """I1 to I4 and I10 of every chunk, by both checkers."""
    by_chunk: dict[ChunkKey, list[Operation]] = {}
    for operation in ledger.operations:
        by_chunk.setdefault(operation.chunk, []).append(operation)
    judged = Judged()
    for chunk, operations in by_chunk.items():
        history = [
            witness.Applied(position, entry.identity, entry.content)
            for position in ledger.history(chunk, tips.get(chunk))
            for entry in (ledger.entries[chunk, position],)
        ]
        known = {step.position for step in history} | {None}
        lost = [
            o
            for o in operations
            if o.position not in known and _may_be_forgotten(ledger, chain_of, o)
        ]
        kept = [o for o in operations if o not in lost]
        judged.forgotten_reads += len(lost)
        witness.check(kept, history)
        _judge_blindly(chunk, kept, judged)
    return judged


def _may_be_forgotten(ledger: Ledger, chain_of: ChainOf, operation: Operation) -> bool:
    """A read of an update that was never acknowledged, before nobody served the chain."""
    if operation.kind != "read" or not operation.ok or operation.position is None:
        return False
    chunk = operation.chunk
    assert operation.ended_ns is not None
    died = ledger.died_ns.get(chain_of(chunk), -1) > operation.ended_ns
    return died and (chunk, operation.position) not in ledger.promised


def _judge_blindly(chunk: ChunkKey, operations: list[Operation], judged: Judged) -> None:
    """I2 by the black box, where the history is within its bar: then a verdict is owed."""
    calls = blackbox.settled(blind_call(operation) for operation in operations)
    if not blackbox.fits(calls):
        judged.too_big += 1
        return
    judged.blind += 1
    verdict = blackbox.judge(calls)
    if verdict is blackbox.Verdict.UNDECIDED:
        raise Violation("I2", f"{chunk}: the black box could not decide; its bar is too high")
    if verdict is blackbox.Verdict.VIOLATION:
        shown = "\n     ".join(map(str, calls))
        raise Violation("I2", f"{chunk}: no order of the operations explains them:\n     {shown}")


def blind_call(operation: Operation) -> blackbox.Call:
    ended = operation.ended_ns if operation.ok else None
    data = operation.data
    return blackbox.Call(
        operation.kind,
        operation.began_ns,
        blackbox.FOREVER if ended is None else ended,
        operation.first,
        operation.count,
        operation.number,
        tuple(int.from_bytes(data[i : i + CELL], "big") for i in range(0, len(data), CELL)),
    )
