"""What the checks want to know of a target as it goes: I5 by the ledger, I7 by its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim import messages
from tests.sim.disk import REMOVE, REPLACE, ChunkKey, Position, Version
from tests.sim.ledger import Violation

if TYPE_CHECKING:
    from tests.sim.target import Target

__all__ = ["LOCAL_OFFLINE", "Books"]

LOCAL_OFFLINE = 3


class Books:
    def __init__(self, target: Target) -> None:
        self._target = target

    def made(self, e: Any, position: Position, data: bytes) -> None:
        """This replica is the head, and this is where a version comes from."""
        before = self._target.disk.chunk(e.chunk)
        parent = before.removed if before.committed is None else before.committed.position
        content: bytes | None = self._target.disk.content(e.chunk, e.kind, e.offset, e.length, data)
        if e.kind == REMOVE:
            content = None
        self._target.node.world.ledger.made(e.chunk, position, parent, content, e.identity)

    def given_up(self, e: Any, position: Position) -> bytes:
        """An update that this replica was told of and cannot make. Either it is the head, and a
        version that changes nothing takes its place; or its successor has made it, and what is kept
        here is that its bytes are damaged: those that they were, for the checks only."""
        world = self._target.node.world
        if e.kind == REPLACE:
            world.landed["update lost"] += 1
            return world.ledger.entries[e.chunk, position].content or b""
        base = self._target.disk.chunk(e.chunk).committed
        assert base is not None
        world.ledger.voided(e.chunk, position, base.data, base.position)
        world.landed["update made void"] += 1
        return b""

    def note_held(self, chunk: ChunkKey, made: Version, code: int) -> None:
        if code == 0 and made.position != (0, 0):
            content = None if made.kind == REMOVE else made.data
            self._target.node.world.ledger.held(
                chunk, made.position, content, f"target {self._target.id}"
            )

    def check_below(self, chunk: ChunkKey, position: Position) -> None:
        """I7: what commits here is committed at the successor already."""
        if self._target.view_successor is None:
            return
        peer = self._target.node.world.target(self._target.view_successor[0])
        if peer is None or peer.replica.chain_version != self._target.replica.chain_version:
            return
        below = peer.disk.chunk(chunk)
        held = below.removed if below.committed is None else below.committed.position
        if peer.replica.local != LOCAL_OFFLINE and (held is None or held < position):
            raise Violation(
                "I7",
                f"target {self._target.id} commits {chunk} at {position}, {peer.id} has {held}",
            )

    def check_above(self, chunk: ChunkKey, position: Position) -> None:
        """I7: what is staged here is staged, or more, at the predecessor."""
        before = self._target.view_predecessor
        peer = self._target.node.world.target(before[0]) if before is not None else None
        if peer is None or peer.replica.chain_version != self._target.replica.chain_version:
            return
        held = peer.disk.chunk(chunk)
        above = [v.position for v in (held.committed, held.pending) if v is not None]
        above += [p for p in (held.removed, peer.staging.get(chunk)) if p is not None]
        if peer.replica.local != LOCAL_OFFLINE and max(above, default=(0, 0)) < position:
            raise Violation(
                "I7",
                f"target {self._target.id} stages {chunk} at {position}, {peer.id} has {above}",
            )

    def note_absent(self, request: messages.Forwarded) -> None:
        """A removal of what was not here is answered without the disk; the history knows it."""
        disk = self._target.disk
        here = disk.chunk(request.chunk)
        position = request.update_chain, request.version
        if request.kind != REMOVE or request.resync or here.committed is not None:
            return
        if here.removed is None or here.removed < position:
            disk.note_removed({**disk.removed(), request.chunk: position})
