"""From what a disk holds and mgmtd says to the values of the replica's events. Pure."""

from __future__ import annotations

from collections.abc import Callable

from fs3._native import craq

from fs3.mgmtd.state import ChainRecord
from fs3.mgmtd.transitions import Public
from tests.sim.disk import REMOVE, Chunk, ChunkKey, Position, Version

__all__ = ["Peer", "listed", "load_event", "seen", "sum_of", "view"]

Peer = tuple[int, int, bool]
"""target, node, is syncing."""
Checksum = Callable[[bytes], int]


def sum_of(made: Version, checksum: Checksum) -> int:
    return 0 if made.kind == REMOVE else checksum(made.data)


def seen(version: Version | None, chunk: Chunk) -> tuple[bytes, Position | None]:
    """What a read answers with: the bytes, and for the checks where they stand in the history."""
    if version is not None:
        return version.data, version.position
    return b"", chunk.removed


def load_event(key: ChunkKey, chunk: Chunk, checksum: Checksum, *, damaged: bool) -> object:
    committed, pending = chunk.committed, chunk.pending
    fields: dict[str, object] = {
        "chunk": key,
        "committed": committed.position[1] if committed else 0,
        "committed_chain": committed.position[0] if committed else 0,
        "length": len(committed.data) if committed else 0,
        "checksum": checksum(committed.data) if committed else 0,
        "damaged": damaged,
    }
    if pending is not None:
        fields |= {
            "pending": pending.position[1],
            "pending_chain": pending.position[0],
            "pending_kind": pending.kind,
            "pending_length": len(pending.data),
            "pending_checksum": sum_of(pending, checksum),
            "pending_identity": pending.identity,
        }
    return craq.LoadChunk(**fields)


def listed(
    key: ChunkKey, chunk: Chunk, checksum: Checksum, *, damaged: bool
) -> tuple[ChunkKey, int, int, int, int, bool]:
    version = chunk.committed
    if version is None:
        return key, 0, 0, 0, 0, True
    chain, number = version.position
    data = version.data
    return key, number, chain, len(data), checksum(data), damaged or chunk.pending is not None


def view(chain: ChainRecord, target: int) -> tuple[Public, Peer | None, Peer | None]:
    """State, predecessor and successor: the serving targets in order, then the syncing one."""
    line = [t for t in chain.targets if t.public is Public.SERVING]
    line += [t for t in chain.targets if t.public is Public.SYNCING][:1]
    peers: list[Peer] = [(t.id, t.node, t.public is Public.SYNCING) for t in line]
    state = next(t.public for t in chain.targets if t.id == target)
    at = next((i for i, peer in enumerate(peers) if peer[0] == target), None)
    if at is None:
        return state, None, None
    before = peers[at - 1] if at > 0 else None
    after = peers[at + 1] if at + 1 < len(peers) else None
    return state, before, after
