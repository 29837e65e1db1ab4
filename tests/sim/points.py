"""Named points of the write, read and resync paths and of mgmtd, and what may happen at one.

In a run that has Points, one thing happens once: at the first pass of a point by a replica in a
role, after the load began. An action at a point of a storage server:

    kill    the process dies there; a supervisor starts it again
    pause   the process stops for 2 T there, and goes on
    error   what was under way there fails
    delay   what was under way there goes on long after its deadline; the process works on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.loop import MS, S

if TYPE_CHECKING:
    from tests.sim.cluster import World
    from tests.sim.target import Target

__all__ = ["ACTIONS", "READ", "RESYNC", "WRITE", "Points"]

ACTIONS = ("kill", "pause", "error", "delay")
WRITE = (
    "write.received",
    "write.data_pulled",
    "write.chunk_locked",
    "write.pending_staged",
    "write.pending_durable",
    "write.before_forward",
    "write.after_forward",
    "write.successor_acked",
    "write.commit_staged",
    "write.commit_durable",
    "write.dedup_saved",
    "write.replied",
)
READ = ("read.version_chosen", "read.bytes_read", "read.lease_checked", "read.sent")
RESYNC = (
    "resync.start_decided",
    "resync.dump_asked",
    "resync.dump_answered",
    "resync.diff_made",
    "resync.chunk_locked",
    "resync.chunk_sent",
    "resync.chunk_applied",
    "resync.lock_released",
    "resync.done_sent",
    "resync.marked_uptodate",
)
DELAY_NS = 12 * S  # beyond what a client or a predecessor waits, and what the replica lets wait
AWAY_NS = 300 * MS


class Points:
    def __init__(self, world: World, point: str, action: str, role: str | None = None) -> None:
        self.fired = False
        self._world = world
        self._point = point
        self._action = action
        self._role = role

    def at(
        self,
        target: Target,
        point: str,
        go: Callable[[], None],
        fail: Callable[[], None] | None,
    ) -> None:
        other_role = self._role is not None and target.role != self._role
        if self.fired or point != self._point or other_role:
            go()
            return
        self.fired = True
        node = target.node
        self._world.loop.note("point", point, self._action, target.id)
        if self._action == "kill":
            node.crash(power_loss=False)
            self._world.loop.after(AWAY_NS, lambda: node.alive or node.start())
        elif self._action == "pause":
            node.pause(2 * self._world.plan.lease_ns)
            node.after(0, go)
        elif self._action == "delay":
            node.after(DELAY_NS, go)
        else:
            (fail or go)()
