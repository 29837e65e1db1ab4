"""Bugs that stand where the compiled replica stands, and change its events or effects."""

from __future__ import annotations

from typing import Any

from fs3._native import craq

from tests.sim.bugs import Bugs, aimed_at_readers

__all__ = ["REPLICA_BUGS"]

NEVER_NS = 1 << 62


class Filter(Bugs):
    """The replica behind a filter."""

    filter: type[Behind]

    def replica(self, replica: Any) -> Any:
        return self.filter(replica)


class Behind:
    def __init__(self, replica: Any) -> None:
        self._replica = replica

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)

    def step(self, now_ns: int, event: Any) -> list[Any]:
        effects: list[Any] = self._replica.step(now_ns, event)
        return effects


class AckBeforeSuccessor(Filter):
    """Commits and answers as soon as the own disk has it; the successor may never get it."""

    name = "ack-before-successor"

    class filter(Behind):
        def __init__(self, replica: Any) -> None:
            super().__init__(replica)
            self._forwards: dict[int, int] = {}  # op of the Stage -> op of the Forward

        def step(self, now_ns: int, event: Any) -> list[Any]:
            effects = super().step(now_ns, event)
            for effect in effects:
                if isinstance(effect, craq.Forward) and effect.source:
                    self._forwards[effect.source] = effect.op
            if isinstance(event, craq.Staged):
                forward = self._forwards.pop(event.op, 0)
                if forward:
                    done = craq.ForwardDone(forward, 0, event.checksum)
                    effects += self._replica.step(now_ns, done)
            return effects


class ReadWithoutLease(Filter):
    """Believes that its lease lasts for ever."""

    name = "read-without-lease"
    aim = aimed_at_readers("unseen")

    class filter(Behind):
        def step(self, now_ns: int, event: Any) -> list[Any]:
            if isinstance(event, craq.SetLease):
                event = craq.SetLease(NEVER_NS)
            return super().step(now_ns, event)


class ReadDoesNotWait(Filter):
    """Answers strict reads from the committed version while a newer one is pending."""

    name = "read-does-not-wait"

    class filter(Behind):
        def step(self, now_ns: int, event: Any) -> list[Any]:
            if isinstance(event, craq.Read):
                event.relaxed = True
            return super().step(now_ns, event)


class DedupForgotten(Filter):
    """A restart forgets which updates were applied."""

    name = "dedup-forgotten-at-restart"

    class filter(Behind):
        def step(self, now_ns: int, event: Any) -> list[Any]:
            if isinstance(event, craq.LoadDedup):
                return []
            if isinstance(event, craq.LoadChunk):
                event.pending_identity = (bytes(16), 0, 0)
            return super().step(now_ns, event)


class DedupNotMoved(Filter):
    """Resync brings the chunks and not the dedup rows."""

    name = "dedup-not-moved-by-resync"

    class filter(Behind):
        def step(self, now_ns: int, event: Any) -> list[Any]:
            if isinstance(event, craq.SyncStart):
                event.dedup = []
            return super().step(now_ns, event)


class ForwardsSwallowed(Behind):
    """Some forwards are answered as done and never sent."""

    def swallows(self, forward: Any) -> bool:
        raise NotImplementedError

    def step(self, now_ns: int, event: Any) -> list[Any]:
        kept: list[Any] = []
        for effect in super().step(now_ns, event):
            if isinstance(effect, craq.Forward) and self.swallows(effect):
                done = craq.ForwardDone(effect.op, 0, effect.checksum)
                kept += self.step(now_ns, done)
            else:
                kept.append(effect)
        return kept


class ResyncSkipsChunks(Filter):
    """Says done although chunks that differ were never sent."""

    name = "resync-skips-chunks"

    class filter(ForwardsSwallowed):
        def swallows(self, forward: Any) -> bool:
            return bool(forward.resync)


class ResyncDoesNotRemove(Filter):
    """Chunks that only the syncing replica has stay there."""

    name = "resync-does-not-remove"

    class filter(ForwardsSwallowed):
        def swallows(self, forward: Any) -> bool:
            return bool(forward.resync and forward.kind == 3)


class SyncingIsSkipped(Filter):
    """Updates do not wait for the replica that is being brought level."""

    name = "updates-skip-the-syncing-replica"

    class filter(ForwardsSwallowed):
        def swallows(self, forward: Any) -> bool:
            return bool(forward.to[2] and not forward.resync)


REPLICA_BUGS: tuple[type[Bugs], ...] = (
    AckBeforeSuccessor,
    ReadWithoutLease,
    ReadDoesNotWait,
    DedupForgotten,
    DedupNotMoved,
    ResyncSkipsChunks,
    ResyncDoesNotRemove,
    SyncingIsSkipped,
)
