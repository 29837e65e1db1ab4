"""Which faults a seed brings, and how they strike. Everything is drawn before the run starts.

Swarm: most kinds are off in most runs, and what is on has its own rate, so that rare combinations
get whole runs for themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from fs3.mgmtd import cluster
from fs3.types import TargetId
from tests.sim import messages
from tests.sim.disk import DiskFaults
from tests.sim.loop import MS, S
from tests.sim.network import NetworkFaults

if TYPE_CHECKING:
    from tests.sim.cluster import World
    from tests.sim.node import StorageNode

__all__ = ["Load", "Nemesis", "Plan"]


@dataclass(frozen=True, slots=True)
class Load:
    clients: int
    channels: int
    chains: int
    chunks: int
    mix: tuple[float, float, float, float]  # write, read, truncate, remove
    think_ns: int
    deadline_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Plan:
    nodes: int
    replicas: int
    lease_ns: int
    load: Load
    network: NetworkFaults
    disk: DiskFaults
    drift: float
    strikes: dict[str, int] = field(default_factory=dict)  # kind -> mean interval, ns

    @classmethod
    def draw(cls, seed: int) -> Plan:
        random = Random(f"plan {seed}")
        nodes = random.choice((3, 3, 3, 4, 5))
        replicas = min(nodes, random.choice((1, 2, 2, 3, 3, 3, 3, 4)))
        kinds = random.sample(sorted(STRIKES), random.choice((1, 1, 2, 2, 3, 4)))
        return cls(
            nodes=nodes,
            replicas=replicas,
            lease_ns=random.choice((2, 2, 3, 4)) * S,
            load=_draw_load(random),
            network=_draw_network(random),
            disk=DiskFaults(random.choice((0.0, 0.0, 0.0, 0.01, 0.05)), random.choice((1, 3)) * S),
            drift=random.choice((0.0, 0.01)),
            strikes={kind: random.randrange(700, 4000) * MS for kind in sorted(kinds)},
        )

    def __str__(self) -> str:
        load = self.load
        strikes = " ".join(f"{kind}/{every / S:.1f}s" for kind, every in self.strikes.items())
        return (
            f"nodes={self.nodes} replicas={self.replicas} chains={load.chains} "
            f"chunks={load.chunks} clients={load.clients}x{load.channels} "
            f"T={self.lease_ns / S:g}s load={load.duration_ns / S:g}s drift={self.drift} "
            f"{self.network} {self.disk} {strikes}"
        )


def _draw_load(random: Random) -> Load:
    return Load(
        clients=random.randrange(1, 6),
        channels=random.randrange(1, 3),
        chains=random.choice((1, 1, 2, 3)),
        chunks=random.randrange(1, 6),
        mix=random.choice(((5, 5, 1, 0), (5, 5, 1, 1), (8, 2, 0, 0), (3, 6, 1, 1), (4, 3, 1, 2))),
        think_ns=random.choice((20, 100, 400)) * MS,
        deadline_ns=random.choice((2, 8, 20)) * S,
        duration_ns=random.randrange(6, 14) * S,
    )


def _draw_network(random: Random) -> NetworkFaults:
    def rate(*choices: float) -> float:
        return random.choice((0.0, 0.0, *choices))

    return NetworkFaults(
        loss=rate(0.01, 0.05, 0.3),
        duplicate=rate(0.02, 0.2),
        slow=rate(0.05, 0.2),
        slow_ns=random.choice((50, 300, 2000)) * MS,
        late=rate(0.005, 0.03),
        reset=rate(0.01, 0.1),
    )


class Nemesis:
    """Strikes while it is on; heal() takes everything back."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.on = False
        self._left: list[int] = []

    def start(self) -> None:
        self.on = True
        self.world.network.faults = self.plan.network
        for node in self.world.nodes.values():
            for disk in node.disks.values():
                disk.faults = self.plan.disk
        for kind in self.plan.strikes:
            self._later(kind)

    def heal(self) -> None:
        self.on = False
        world = self.world
        world.loop.note("heal")
        world.network.heal()
        for target in self._left:
            world.operator(cluster.TargetLeaves(TargetId(target), False, world.loop.now_ns))
        for node in world.nodes.values():
            for disk in node.disks.values():
                disk.faults = DiskFaults()
            if any(disk.failing for disk in node.disks.values()):
                node.crash(power_loss=False)
            self._restart(node, 0)
        if not world.manager.alive:
            world.manager.start()

    def _later(self, kind: str) -> None:
        random = self.world.loop.random
        delay_ns = int(random.expovariate(1.0) * self.plan.strikes[kind])
        self.world.loop.after(delay_ns, lambda: self._strike(kind))

    def _strike(self, kind: str) -> None:
        if not self.on:
            return
        STRIKES[kind](self)
        self._later(kind)

    # ---- the kinds

    def _some_node(self) -> StorageNode | None:
        alive = [node for node in self.world.nodes.values() if node.alive]
        return self.world.loop.random.choice(alive) if alive else None

    def _crash(self, node: StorageNode, power_loss: bool, away_ns: int, kind: str) -> None:
        if not node.alive:
            return
        self.world.landed[kind] += 1
        incarnation = node.incarnation
        node.crash(power_loss)
        if self.world.loop.random.random() < 0.4:
            self._report_exit(node, incarnation)
        self.world.loop.after(away_ns, lambda: self._restart(node, 0))

    def _report_exit(self, node: StorageNode, incarnation: bytes) -> None:
        """A supervisor saw it."""
        manager = self.world.manager
        exit_ = messages.Exit(node.id, incarnation)  # type: ignore[arg-type]
        self.world.landed["exit reported"] += 1
        self.world.network.send(
            "supervisor",
            manager.name,
            lambda: manager.deliver(lambda: manager.handle(exit_, lambda *_: None)),
        )

    def _restart(self, node: StorageNode, delay_ns: int) -> None:
        def start() -> None:
            if not node.alive:
                node.start()

        self.world.loop.after(delay_ns, start)

    def _away_ns(self) -> int:
        """Short, or long enough that everybody notices."""
        random = self.world.loop.random
        return random.choice((random.randrange(300 * MS), random.randrange(4 * S)))

    def kill(self) -> None:
        node = self._some_node()
        if node is not None:
            self._crash(node, False, self._away_ns(), "kill")

    def power(self) -> None:
        node = self._some_node()
        if node is not None:
            self._crash(node, True, self._away_ns(), "power loss")

    def storm(self) -> None:
        node = self._some_node()
        if node is None:
            return
        for i in range(4):
            after_ns = i * 400 * MS
            self.world.loop.after(
                after_ns, lambda: self.on and self._crash(node, False, 50 * MS, "storm")
            )

    def all_power(self) -> None:
        for node in self.world.nodes.values():
            self._crash(node, True, self._away_ns(), "all power lost")

    def most_die(self) -> None:
        """All but one, one after the other."""
        nodes = list(self.world.nodes.values())
        self.world.loop.random.shuffle(nodes)
        for i, node in enumerate(nodes[1:]):
            self.world.loop.after(
                i * self.world.loop.random.randrange(S),
                lambda n=node: self.on and self._crash(n, True, 3 * S, "most die"),
            )

    def pause(self) -> None:
        node = self._some_node()
        lease_ns = self.plan.lease_ns
        choices = (100 * MS, lease_ns * 8 // 10, lease_ns, lease_ns * 12 // 10, 3 * lease_ns)
        if node is not None:
            self.world.landed["pause"] += 1
            node.pause(self.world.loop.random.choice(choices))

    def pause_manager(self) -> None:
        if self.world.manager.alive:
            self.world.landed["pause mgmtd"] += 1
            self.world.manager.pause(self.world.loop.random.randrange(2 * self.plan.lease_ns))

    def restart_manager(self) -> None:
        manager = self.world.manager
        if not manager.alive:
            return
        self.world.landed["mgmtd crash"] += 1
        manager.crash()

        def start() -> None:
            if not manager.alive:
                manager.start()

        self.world.loop.after(self.world.loop.random.randrange(2 * S), start)

    def partition(self) -> None:
        """One node from all others, from some, from mgmtd alone, or in one direction only."""
        node = self._some_node()
        if node is None:
            return
        random = self.world.loop.random
        others = [other.name for other in self.world.everybody() if other is not node]
        shape = random.choice(("all", "mgmtd", "some", "out", "in"))
        if shape == "mgmtd":
            others = [self.world.manager.name]
        elif shape == "some":
            others = [name for name in others if random.random() < 0.5]
        pairs = [(node.name, other) for other in others] if shape != "in" else []
        pairs += [(other, node.name) for other in others] if shape != "out" else []
        self.world.loop.note("partition", node.name, shape)
        for source, target in pairs:
            self.world.network.cut(source, target)
        self.world.loop.after(
            random.choice((random.randrange(S), random.randrange(4 * S))),
            lambda: [self.world.network.mend(*pair) for pair in pairs],
        )

    def eio(self) -> None:
        """A disk fails for good; later somebody replaces the cable and restarts the server."""
        node = self._some_node()
        if node is None or not node.disks:
            return
        disk = self.world.loop.random.choice(list(node.disks.values()))
        self.world.loop.note("disk fails", node.name)
        disk.failing = True
        self.world.loop.after(
            self.world.loop.random.randrange(S, 5 * S),
            lambda: disk.failing and self._crash(node, False, 100 * MS, "disk replaced"),
        )

    def leave(self) -> None:
        """An operator takes a target out of its chain, and later back in."""
        world = self.world
        target = world.loop.random.choice(list(world.placed))
        world.landed["leave"] += 1
        self._left.append(target)
        world.operator(cluster.TargetLeaves(TargetId(target), True, world.loop.now_ns))
        world.loop.after(
            world.loop.random.randrange(4 * S),
            lambda: world.operator(
                cluster.TargetLeaves(TargetId(target), False, world.loop.now_ns)
            ),
        )


STRIKES: dict[str, Callable[[Nemesis], None]] = {
    "kill": Nemesis.kill,
    "power": Nemesis.power,
    "storm": Nemesis.storm,
    "all_power": Nemesis.all_power,
    "most_die": Nemesis.most_die,
    "pause": Nemesis.pause,
    "pause_manager": Nemesis.pause_manager,
    "restart_manager": Nemesis.restart_manager,
    "partition": Nemesis.partition,
    "eio": Nemesis.eio,
    "leave": Nemesis.leave,
}
