"""The nemesis: strikes as the plan says while it is on, and takes everything back at heal().

The kinds are functions in strikes.py and strikes_disk.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fs3.mgmtd.transitions import Public
from fs3.types import NodeId, TargetId
from tests.sim import messages
from tests.sim.disk import DiskFaults
from tests.sim.loop import MS, S
from tests.sim.plan import Plan
from tests.sim.store import StoreFaults
from tests.sim.strikes import STRIKES
from tests.sim.strikes_aimed import AIMED

if TYPE_CHECKING:
    from tests.sim.cluster import World
    from tests.sim.disk import Disk
    from tests.sim.manager import Manager
    from tests.sim.node import StorageNode

__all__ = ["Nemesis"]


class Nemesis:
    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.random = world.loop.random
        self.landed = world.landed
        self.on = False
        self.left: set[int] = set()  # targets that an operator took out
        self._strikes = 0

    def start(self) -> None:
        self.on = True
        self.world.network.faults = self.plan.network
        self.world.store.faults = self.plan.store
        for disk in self.disks():
            disk.faults = self.plan.disk
        for kind in self.plan.strikes:
            self._later(kind)

    def heal(self) -> None:
        self.on = False
        world = self.world
        world.loop.note("heal")
        world.points = None
        world.network.heal()
        world.store.faults = StoreFaults()
        world.store.down = False
        for disk in self.disks():
            disk.faults = DiskFaults()
            disk.set_capacity(None)
            disk.slowness = 1
            disk.fail_once.clear()
        for node in world.nodes.values():
            node.strange = None
            if node.disk_failed():
                node.crash(power_loss=False)
            self.restart(node, 0)
        for manager in world.managers:
            if not manager.alive:
                manager.start()
        self._bring_back()

    def _bring_back(self) -> None:
        """Tells the primary until it knows; there may be none for a moment, or one that sleeps and
        has older orders to look at, in any order, when it wakes up."""
        for target in sorted(self.left):
            self.operator(target, leaving=False)
        primary = self.primary()
        state = primary.core.newest() if primary is not None and primary.core else None
        asleep = any(manager.paused for manager in self.world.managers)
        if self.left and (
            asleep
            or state is None
            or any(t.leaving for c in state.chains.values() for t in c.targets)
        ):
            self.world.loop.after(500 * MS, self._bring_back)

    def _later(self, kind: str) -> None:
        delay_ns = int(self.random.expovariate(1.0) * self.plan.strikes[kind])
        self.world.loop.after(delay_ns, lambda: self._strike(kind))

    def _strike(self, kind: str) -> None:
        if not self.on or self._strikes >= self.plan.strikes_max:
            return
        self._strikes += 1
        (STRIKES.get(kind) or AIMED[kind])(self)
        self._later(kind)

    # ---- for the kinds

    def soon(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Later, if the faults still go on then."""
        self.world.loop.after(delay_ns, lambda: self.on and action())

    def later(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Later in any case: an end of a fault."""
        self.world.loop.after(delay_ns, lambda: action() and None)

    def disks(self) -> list[Disk]:
        return [disk for node in self.world.nodes.values() for disk in node.disks.values()]

    def some_node(self) -> StorageNode | None:
        alive = [node for node in self.world.nodes.values() if node.alive]
        return self.random.choice(alive) if alive else None

    def primary(self) -> Manager | None:
        return next((m for m in self.world.managers if m.primary), None)

    def node_with(self, public: Public) -> StorageNode | None:
        """A living server that has a target in this state."""
        nodes = [
            self.world.nodes[t.node]
            for chain in self.world.state.chains.values()
            for t in chain.targets
            if t.public is public
        ]
        alive = [node for node in nodes if node.alive]
        return self.random.choice(alive) if alive else None

    def crash(self, node: StorageNode, power_loss: bool, away_ns: int, kind: str) -> None:
        if not node.alive:
            return
        self.landed[kind] += 1
        incarnation = node.incarnation
        node.crash(power_loss)
        if self.random.random() < 0.4:
            self._report_exit(node, incarnation)
        self.restart(node, away_ns)

    def crash_manager(self, manager: Manager, away_ns: int, kind: str) -> None:
        if not manager.alive:
            return
        self.landed[kind] += 1
        manager.crash()
        self.world.loop.after(away_ns, lambda: manager.alive or manager.start())

    def _report_exit(self, node: StorageNode, incarnation: bytes) -> None:
        """A supervisor saw it, and tells every manager."""
        self.landed["exit reported"] += 1
        for manager in self.world.managers:
            exit_ = messages.Exit(NodeId(node.id), incarnation)
            self.world.network.send(
                "supervisor",
                manager.name,
                lambda m=manager, e=exit_: m.deliver(lambda: m.handle(e, _nobody)),
            )

    def report_exit_now(self, node: StorageNode, incarnation: bytes) -> None:
        """The same, known at once."""
        for manager in self.world.managers:
            exit_ = messages.Exit(NodeId(node.id), incarnation)
            manager.deliver(lambda m=manager, e=exit_: m.handle(e, _nobody))

    def operator(self, target: int, *, leaving: bool) -> None:
        request = messages.Leave(TargetId(target), leaving)
        for manager in self.world.managers:
            manager.deliver(lambda m=manager: m.handle(request, _nobody))

    def restart(self, node: StorageNode, delay_ns: int) -> None:
        self.world.loop.after(delay_ns, lambda: node.alive or node.start())

    def away_ns(self) -> int:
        """Short, or long enough that everybody notices."""
        return self.random.choice((self.random.randrange(300 * MS), self.random.randrange(4 * S)))


def _nobody(code: int, payload: object) -> None:
    """The operator looks at the routing, not at the answer."""
