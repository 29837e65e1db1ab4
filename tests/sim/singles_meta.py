"""Single faults of the metadata service, enumerated: every named point of create, rename, remove,
close, fsync and truncate, of gc and of pruning x action, each one deterministic run of files,
service, gc and chains (meta_world.py) with all its end checks.

What happens at a point (failpoints.py):

    kill    the process ends there; it comes back after 0.1 s
    pause   the process stops there for 2 T, and goes on
    error   an OSError comes out there: an operation is refused and has left nothing, a job begins
            again, and whoever cannot tell what was applied ends
    delay   what was under way goes on long after its deadline; the process works on, where it does
            not hold its lock there
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from fs3 import limits
from fs3.runtime import failpoint
from tests.sim import failpoints
from tests.sim.bugs import Bugs
from tests.sim.client import Client
from tests.sim.disk import DiskFaults
from tests.sim.ledger import Violation
from tests.sim.loop import MS, S
from tests.sim.meta_client import MetaClient, SteadyClient
from tests.sim.meta_world import MetaWorld
from tests.sim.network import NetworkFaults
from tests.sim.plan import Load, Plan
from tests.sim.store import StoreFaults

__all__ = ["ACTIONS", "META", "run_meta"]

ACTIONS = ("kill", "pause", "error", "delay")
LEASE_NS = 2 * S
STEPS = ("received", "staged", "recorded", "committed", "replied")
META = (
    *(f"create.{step}" for step in STEPS),
    "allocator.reserved",
    "create.entry_staged",
    "session.staged",
    "create.minted",
    *(f"rename.{step}" for step in STEPS),
    "rename.entries_moved",
    *(f"unlink.{step}" for step in STEPS),
    "unlink.entry_gone",
    "gc.epoch_ended",
    "gc.claimed",
    "gc.measured",
    "gc.shortened",
    "gc.noted",
    "gc.emptied",
    "gc.deleted",
    "gc.swept",
    "gc.sweep_ended",
    *(f"close.{step}" for step in STEPS),
    *(f"sync.{step}" for step in STEPS),
    "store.flushed",
    "store.measured",
    *(f"setattr.{step}" for step in STEPS),
    "truncation.taken",
    "truncation.measured",
    "truncation.cut",
    "truncation.cleared",
    "prune.measured",
    "prune.settled",
)


class QuietWorld(MetaWorld):
    """Without the faults that a seed draws; clients do everything that has a point."""

    def __init__(self, plan: Plan, bugs: Bugs, trace: Callable[[str], None] | None) -> None:
        super().__init__(plan, 1, bugs, trace)
        self.dies_before_reply = 0.0
        self.meta_kill_ns = self.client_dies_ns = 0

    def _clients(self) -> list[Client]:
        return [SteadyClient(self, n + 1) for n in range(self.load.clients)]


def run_meta(
    point: str,
    action: str,
    trace: Callable[[str], None] | None = None,
    bugs: Bugs | None = None,
) -> None:
    """Raises Violation; a point that was never passed is one."""
    plan = Plan(
        nodes=3,
        replicas=2,
        managers=1,
        lease_ns=LEASE_NS,
        load=Load(
            clients=2,
            channels=2,
            chains=2,
            chunks=0,
            mix=(0, 0, 0, 0),
            think_ns=50 * MS,
            deadline_ns=8 * S,
            duration_ns=6 * S,
        ),
        network=NetworkFaults(),
        disk=DiskFaults(),
        store=StoreFaults(),
        drift=0.0,
    )
    one_chunk = mock.patch.object(limits, "GC_CHUNKS_PER_STEP", 1)  # so that files take steps
    bugs = bugs or Bugs()
    with failpoints.armed(), one_chunk, bugs.planted():
        world = QuietWorld(plan, bugs, trace)
        world.oracle.may_fail = action == "error"
        world.run(lambda _: _script(world, point, action))
        if not failpoint.passed(point):
            raise Violation("coverage", f"{point}/{action}: the point was never passed")


def _script(world: MetaWorld, point: str, action: str) -> None:
    arm = failpoints.specification(point, action, LEASE_NS)
    world.loop.after(S, lambda: failpoint.arm(arm))
    if point == "allocator.reserved":  # the first create of a life reserves
        world.loop.after(S + 1, world.meta.end_and_come_back)
    if point.startswith("prune."):
        world.loop.after(2 * S, lambda: _lose_client(world))


def _lose_client(world: MetaWorld) -> None:
    """As soon as it has something open."""
    client = world.clients[-1]
    assert isinstance(client, MetaClient)
    if client.holds_open:
        world.dead_clients += 1
        client.die()
    else:
        world.loop.after(10 * MS, lambda: _lose_client(world))
