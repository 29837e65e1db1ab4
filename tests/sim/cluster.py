"""One simulated cluster and the phases of one run.

form -> load under faults -> heal -> liveness bound -> checks
     -> all power lost -> liveness bound -> read everything -> checks
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fs3.kv.api import transact
from fs3.mgmtd import bootstrap
from fs3.mgmtd.chains import Move
from fs3.mgmtd.state import ChainRecord, ClusterState
from fs3.mgmtd.store import read_all
from fs3.mgmtd.transitions import Public
from tests.sim.bugs import Bugs
from tests.sim.checks import Judged, check_histories, check_replicas
from tests.sim.client import Client
from tests.sim.disk import ChunkKey, Disk, Position
from tests.sim.engine_disk import Shape
from tests.sim.faults import Nemesis
from tests.sim.ledger import Ledger, Violation
from tests.sim.loop import MS, Loop, Process, S, Stalled
from tests.sim.manager import Manager
from tests.sim.network import Endpoint, Network, NetworkFaults
from tests.sim.node import StorageNode
from tests.sim.plan import Plan
from tests.sim.points import Points
from tests.sim.publications import Publications
from tests.sim.store import FaultyStore
from tests.sim.target import Target

__all__ = ["Outcome", "World", "run_plan", "simulate"]

Trace = Callable[[str], None]
Script = Callable[["World"], None]
Tips = dict[ChunkKey, Position]

LIVENESS_NS = 60 * S
POLL_NS = 50 * MS


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    fingerprint: str
    steps: int
    operations: int
    updates: int
    virtual_s: float
    landed: Counter[str]
    rows: frozenset[str]  # of the state table of mgmtd that were executed
    judged: Judged  # at the end
    work: Counter[str]  # of the engines, when they are there


class World:
    liveness_ns = LIVENESS_NS

    def __init__(self, plan: Plan, seed: int, bugs: Bugs, trace: Trace | None = None) -> None:
        self.plan = plan
        self.seed = seed
        self.engine = Shape.draw(seed) if plan.engine else None
        self.load = self.plan.load
        self.bugs = bugs
        self.judged = Judged()
        self.loop = Loop(seed, trace)
        self.ledger = Ledger()
        self.network = Network(self.loop, NetworkFaults())
        self.landed = self.network.landed
        self.heartbeat_ns = self.plan.lease_ns // 8
        self.store = FaultyStore(self.loop.random, self.landed)
        self.state = self._first_state()
        self.publications = Publications(self)
        self.placed = {t.id: (t.node, c.id) for c in self.state.chains.values() for t in c.targets}
        self.replaced: set[int] = set()  # targets on another disk that have not served since
        self.managers = [Manager(self, n + 1) for n in range(self.plan.managers)]
        self.nodes = {n + 1: self._node(n + 1) for n in range(self.plan.nodes)}
        self.clients = self._clients()
        self.nemesis = Nemesis(self, self.plan)
        self.points: Points | None = None

    def _first_state(self) -> ClusterState:
        bootstrap.initialise(
            self.store,
            cluster_id=bytes(16),
            storage_nodes=[n + 1 for n in range(self.plan.nodes)],
            replicas=self.plan.replicas,
            chains=self.load.chains,
            lease_s=self.plan.lease_ns / S,
        )
        state = transact(self.store, read_all)
        assert state is not None
        return state

    def _node(self, number: int) -> StorageNode:
        placed = [(t, chain) for t, (node, chain) in self.placed.items() if node == number]
        return StorageNode(self, number, placed, self.plan.drift * (-1) ** number)

    def _clients(self) -> list[Client]:
        return [Client(self, n + 1) for n in range(self.load.clients)]

    def chain_of(self, chunk: ChunkKey) -> int:
        """Without files, a chunk is named by its chain."""
        return chunk[0]

    # ---- who is there

    def everybody(self) -> Iterator[Process]:
        yield from self.managers
        yield from self.nodes.values()
        yield from self.clients

    def watchers(self) -> Iterator[Endpoint]:
        yield from self.nodes.values()
        yield from self.clients

    def target(self, target: int) -> Target | None:
        node = self.nodes[self.placed[target][0]]
        return node.targets.get(target)

    def disk(self, target: int) -> Disk:
        return self.nodes[self.placed[target][0]].disks[target]

    def superseded(self, node: StorageNode) -> None:
        """The manager will not have this process any more; it ends, and a supervisor starts it."""
        node.crash(power_loss=False)
        self.loop.after(10 * MS, lambda: node.alive or node.start())

    # ---- what mgmtd decides, seen from above

    def published(self, state: ClusterState, who: str) -> None:
        self.publications.check(state, who)
        if state.version >= self.state.version:
            self.state = state

    def moved(self, state: ClusterState, move: Move) -> None:
        self.publications.moved(state, move)

    # ---- phases

    def run(self, script: Script | None = None) -> None:
        """`script`: what happens during the load, instead of the nemesis."""
        for manager in self.managers:
            manager.start()
        for node in self.nodes.values():
            node.start()
        self._until(self._level, "the chains form")
        self._start_load()
        if script is None:
            self.nemesis.start()
        else:
            script(self)
        self.loop.run(self.loop.now_ns + self.load.duration_ns)
        self.nemesis.heal()
        for client in self.clients:
            client.stopping = True
        self._until(self._level, "all chains are whole and all operations ended after the faults")
        tips = self._check()
        self._lose_power()
        self._until(self._level, "all chains are whole after all power was lost")
        self.clients[0].read_all()
        self._until(self._level, "everything can be read")
        self._check_kept(tips, self._check())

    def _check_kept(self, before: Tips, after: Tips) -> None:
        """A late message may have added an update that nobody waits for; nothing may be gone."""
        for chunk, tip in before.items():
            if tip not in self.ledger.history(chunk, after.get(chunk)):
                raise Violation(
                    "I1", f"{chunk}: the restart of everything led from {tip} to {after.get(chunk)}"
                )

    def _start_load(self) -> None:
        for client in self.clients:
            client.start(self.load.channels)

    def _lose_power(self) -> None:
        self.loop.note("all power lost")
        for node in self.nodes.values():
            node.crash(power_loss=True)
        for manager in self.managers:
            manager.crash()
            manager.start()
        for node in self.nodes.values():
            self.loop.after(self.loop.random.randrange(S), node.start)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """I27."""
        until_ns = self.loop.now_ns + self.liveness_ns
        while not condition():
            if self.loop.now_ns >= until_ns:
                spent_s = self.liveness_ns // S
                raise Violation(
                    "I27", f"{spent_s} virtual seconds passed, not {what}: {self._stuck()}"
                )
            try:
                self.loop.run(self.loop.now_ns + POLL_NS)
            except Stalled as stalled:
                raise Violation("I27", f"{stalled}, before {what}") from stalled

    def _level(self) -> bool:
        return not self._stuck()

    def _stuck(self) -> str:
        """What is not yet as it should be; empty when all is well."""
        primaries = [manager for manager in self.managers if manager.primary]
        if not primaries:
            return "no manager is primary"
        if self.state.version > max(m.core.newest().version for m in primaries if m.core):
            return "the newest primary has not caught up"
        for chain in self.state.chains.values():
            for member in chain.targets:
                if member.public is not Public.SERVING:
                    return f"target {member.id} is {member.public.name}"
                target = self.target(member.id)
                if target is None or target.replica.chain_version != chain.version:
                    return f"target {member.id} does not know chain version {chain.version}"
                statistics = target.replica.statistics()
                damaged = statistics["damaged"] > self._lost(chain)
                if statistics["pending"] or statistics["queued"] or damaged:
                    return f"target {member.id} has work in progress: {statistics}"
        busy = [client.name for client in self.clients if client.busy]
        return f"operations of {busy} have not ended" if busy else ""

    def _lost(self, chain: ChainRecord) -> int:
        """Chunks of which no replica has sound bytes."""
        disks = [self.disk(target.id) for target in chain.targets]
        return sum(
            all(disk.is_damaged(key, disk.chunk(key).committed) for disk in disks)
            for key, chunk in disks[0].chunks()
            if chunk.committed is not None
        )

    def _check(self) -> Tips:
        tips: Tips = {}
        for chain in self.state.chains.values():
            disks = [(f"target {t.id}", self.disk(t.id)) for t in chain.targets]
            for _, disk in disks:
                disk.verify()
            tips |= check_replicas(chain.id, disks)
        self.judged = check_histories(self.ledger, tips, self.chain_of)
        return tips


def simulate(
    seed: int,
    bugs: Bugs | None = None,
    trace: Trace | None = None,
    changes: Mapping[str, str] | None = None,
) -> Outcome:
    """One run. Raises Violation (with the fingerprint's seed known to the caller)."""
    return run_plan(Plan.draw(seed).changed(changes or {}), seed, bugs, trace)


def run_plan(
    plan: Plan,
    seed: int,
    bugs: Bugs | None = None,
    trace: Trace | None = None,
    script: Script | None = None,
) -> Outcome:
    bugs = bugs or Bugs()
    with bugs.planted():
        world = World(plan, seed, bugs, trace)
        world.run(script)
    updates = sum(1 for o in world.ledger.operations if o.kind != "read" and o.ok)
    return Outcome(
        seed,
        world.loop.fingerprint,
        world.loop.steps,
        len(world.ledger.operations),
        updates,
        world.loop.now_ns / S,
        world.landed,
        frozenset(world.publications.rows),
        world.judged,
        sum((world.disk(target).work for target in world.placed), Counter()),
    )
