"""Protocol bugs on demand: the checks must find each of them, or they prove nothing.

The compiled replica stays as it is; a planted bug changes what goes in and comes out of it, or what
the server around it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fs3._native import craq

__all__ = ["PLANTED", "Bugs"]

NEVER_NS = 1 << 62


class Filter:
    """Stands where the replica stands."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)

    def step(self, now_ns: int, event: Any) -> list[Any]:
        effects: list[Any] = self._replica.step(now_ns, event)
        return effects


class AckBeforeSuccessor(Filter):
    """Commits and answers as soon as the own disk has it; the successor may never get it."""

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

    def step(self, now_ns: int, event: Any) -> list[Any]:
        if isinstance(event, craq.SetLease):
            event = craq.SetLease(NEVER_NS)
        return super().step(now_ns, event)


class ReadDoesNotWait(Filter):
    """Answers strict reads from the committed version while a newer one is pending."""

    def step(self, now_ns: int, event: Any) -> list[Any]:
        if isinstance(event, craq.Read):
            event.relaxed = True
        return super().step(now_ns, event)


class LeaseCheckedBeforeRead(Filter):
    """Looks at the clock when the read begins, not after the bytes were read."""

    def __init__(self, replica: Any) -> None:
        super().__init__(replica)
        self._began: dict[int, int] = {}

    def step(self, now_ns: int, event: Any) -> list[Any]:
        when_ns = now_ns
        if isinstance(event, craq.ReadDone):
            when_ns = self._began.pop(event.op, now_ns)
        effects = super().step(when_ns, event)
        for effect in effects:
            if isinstance(effect, craq.StartRead):
                self._began[effect.op] = now_ns
        return effects


class DedupForgotten(Filter):
    """A restart forgets which updates were applied."""

    def step(self, now_ns: int, event: Any) -> list[Any]:
        if isinstance(event, craq.LoadDedup):
            return []
        if isinstance(event, craq.LoadChunk):
            event.pending_identity = (bytes(16), 0, 0)
        return super().step(now_ns, event)


class DedupNotMoved(Filter):
    """Resync brings the chunks and not the dedup rows."""

    def step(self, now_ns: int, event: Any) -> list[Any]:
        if isinstance(event, craq.SyncStart):
            event.dedup = []
        return super().step(now_ns, event)


class ResyncSkipsChunks(Filter):
    """Says done although chunks that differ were never sent."""

    def step(self, now_ns: int, event: Any) -> list[Any]:
        effects = super().step(now_ns, event)
        kept: list[Any] = []
        for effect in effects:
            if isinstance(effect, craq.Forward) and effect.resync:
                done = craq.ForwardDone(effect.op, 0, effect.checksum)
                kept += self.step(now_ns, done)
            else:
                kept.append(effect)
        return kept


@dataclass(frozen=True, slots=True)
class Bugs:
    """What is wrong in this run; nothing by default."""

    name: str = ""
    filter: Callable[[Any], Any] | None = None
    lease_before_routing: bool = False
    sync_lies: bool = False
    manager_in_a_hurry: bool = False

    def replica(self, replica: Any) -> Any:
        return self.filter(replica) if self.filter is not None else replica


PLANTED: dict[str, Bugs] = {
    bugs.name: bugs
    for bugs in (
        Bugs("ack-before-successor", AckBeforeSuccessor),
        Bugs("read-without-lease", ReadWithoutLease),
        Bugs("read-does-not-wait", ReadDoesNotWait),
        Bugs("lease-checked-before-read", LeaseCheckedBeforeRead),
        Bugs("dedup-forgotten-at-restart", DedupForgotten),
        Bugs("dedup-not-moved-by-resync", DedupNotMoved),
        Bugs("resync-skips-chunks", ResyncSkipsChunks),
        Bugs("lease-before-routing", lease_before_routing=True),
        Bugs("answer-before-durable", sync_lies=True),
        Bugs("manager-in-a-hurry", manager_in_a_hurry=True),
    )
}
