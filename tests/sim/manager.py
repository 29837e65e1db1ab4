"""The cluster manager process around the production state machine (fs3/mgmtd/cluster.py).

What the machine persists survives a crash; the rest is learnt again. Routing is pushed to everybody
who watches, late or lost as the network pleases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fs3.errors import Status
from fs3.mgmtd import cluster
from fs3.mgmtd.cluster import Moved, Persist, Refused, RoutingChanged
from fs3.mgmtd.state import ClusterState
from fs3.mgmtd.transitions import Public
from tests.sim import messages
from tests.sim.ledger import Violation
from tests.sim.loop import MS
from tests.sim.network import Endpoint, Reply

if TYPE_CHECKING:
    from tests.sim.cluster import World

__all__ = ["Manager"]


class Manager(Endpoint):
    def __init__(self, world: World, first: ClusterState) -> None:
        super().__init__(world.loop, "mgmtd")
        self.world = world
        self.state = first
        self._durable = first
        self.rows: set[str] = set()

    def start(self) -> None:
        self.begin_life()
        self.loop.note("start", self.name)
        lease_ns = self._durable.lease_ns
        self.state = cluster.resumed(self._durable, self.loop.now_ns, lease_ns)
        self._tick()
        self._publish()

    def crash(self) -> None:
        self.loop.note("crash", self.name)
        self.end_life()

    def handle(self, request: object, reply: Reply) -> None:
        now_ns = self.loop.now_ns
        if isinstance(request, messages.Heartbeat):
            beat = cluster.Heartbeat(
                request.node, request.incarnation, request.sequence, request.reports, now_ns
            )
            if not self._refused(self._apply(beat), reply):
                reply(0, (self.state.lease_ns, self.state.version))
        elif isinstance(request, messages.Register):
            event = cluster.NodeRegistered(
                request.identity, request.incarnation, request.reports, now_ns
            )
            if not self._refused(self._apply(event), reply):
                reply(0, (self.state.lease_ns, self.state))
        elif isinstance(request, messages.Exit):
            self._apply(cluster.NodeExited(request.node, request.incarnation, now_ns))
        elif isinstance(request, messages.GetRouting):
            reply(0, self.state)

    def operator(self, event: cluster.TargetLeaves) -> None:
        self._apply(event)

    def _refused(self, effects: list[cluster.Effect], reply: Reply) -> bool:
        for effect in effects:
            if isinstance(effect, Refused):
                reply(Status.NOT_SERVING, effect.refusal)
                return True
        return False

    def _tick(self) -> None:
        hurry_ns = self.state.lease_ns // 2 if self.world.bugs.manager_in_a_hurry else 0
        self._apply(cluster.Tick(self.loop.now_ns + hurry_ns))
        self.after(100 * MS, self._tick)

    def _apply(self, event: cluster.Event) -> list[cluster.Effect]:
        before = self.state
        state, effects = cluster.apply(before, event)
        for effect in effects:
            if isinstance(effect, Persist):
                self._durable = state
        self.state = state
        for effect in effects:
            if isinstance(effect, Moved):
                self._moved(effect)
            elif isinstance(effect, RoutingChanged):
                self._check_versions(before, state)
                self._publish()
        return effects

    def _moved(self, effect: Moved) -> None:
        move = effect.move
        self.rows.add(move.row.id)
        self.loop.note(
            "mgmtd", move.chain, move.target, move.before.name, move.after.name, move.row.id
        )
        if move.after is Public.LASTSRV and move.before is Public.SERVING:
            self.world.ledger.died_ns[move.chain] = self.loop.now_ns
        if move.after is Public.SERVING and not self.state.chains[move.chain].forming:
            self._check_serves(move.chain, move.target)

    def _check_serves(self, chain: int, target: int) -> None:
        """I9: what becomes serving holds every acknowledged update."""
        disk = self.world.disk(target)
        for chunk, position in self.world.ledger.acknowledged.items():
            if chunk[0] != chain:
                continue
            held = disk.chunk(chunk)
            there = held.removed if held.committed is None else held.committed.position
            if there is None or there < position:
                raise Violation(
                    "I9",
                    f"target {target} becomes serving with {chunk} at {there}, "
                    f"acknowledged is {position}",
                )

    def _check_versions(self, before: ClusterState, after: ClusterState) -> None:
        """I6: routing and chain versions only grow."""
        for number, chain in before.chains.items():
            now = after.chains[number]
            changed = [(t.id, t.public) for t in chain.targets] != [
                (t.id, t.public) for t in now.targets
            ]
            if now.version < chain.version + changed or after.version <= before.version:
                raise Violation("I6", f"chain {number}: version {chain.version} -> {now.version}")

    def _publish(self) -> None:
        push = messages.PushRouting(self.state)
        for watcher in self.world.watchers():
            self.world.network.send(self.name, watcher.name, _delivery(watcher, push))


def _delivery(watcher: Endpoint, push: messages.PushRouting) -> Callable[[], None]:
    return lambda: watcher.deliver(lambda: watcher.handle(push, _nobody))


def _nobody(code: int, payload: object) -> None:
    """A push has no answer."""
