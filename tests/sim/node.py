"""A storage server process: its targets, and its membership in the cluster.

Membership is the twin of fs3/runtime/membership: draw a number, register with it, heartbeat, and a
lease that begins only once the routing was applied under which it was given. Routing is taken from
the first registration on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fs3._native import craq

from fs3.errors import Status
from fs3.limits import LEASE_SERVER_SHARE
from fs3.mgmtd.cluster import Refusal
from fs3.mgmtd.state import (
    LOCAL_OFFLINE,
    ChainRecord,
    ClusterState,
    NodeIdentity,
    TargetReport,
)
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, ChainVersion, NodeId, TargetId
from tests.sim import messages
from tests.sim.disk import Disk
from tests.sim.engine_disk import EngineDisk
from tests.sim.loop import MS
from tests.sim.model_disk import ModelDisk
from tests.sim.network import Endpoint, Reply
from tests.sim.target import Target

if TYPE_CHECKING:
    from tests.sim.cluster import World

__all__ = ["StorageNode"]

TICK_NS = 100 * MS
SLEPT_NS = 250 * MS  # between two ticks: this process did not run (native/storage/contact.h)
TELL_SILENCE_NS = 1000 * MS


class StorageNode(Endpoint):
    def __init__(
        self, world: World, node: int, placed: list[tuple[int, int]], drift: float
    ) -> None:
        """`placed`: (target, chain) on this server. `drift`: of its clock, as a share."""
        super().__init__(world.loop, f"node-{node}")
        self.world = world
        self.id = node
        self.incarnation = b""
        self._drift = drift
        self._placed = placed
        self._silent_since_ns: dict[int, int] = {}  # neighbours
        self._ticked_ns = 0
        self.disks = {target: self._disk(target) for target, _ in placed}
        self.targets: dict[int, Target] = {}
        self.wall_jump_ns = 0  # somebody set the clock of the machine
        self.strange: TargetReport | None = None  # a disk of another server was put in
        self._routing: ClusterState | None = None
        self._sequence = 0  # of the last registration or heartbeat
        self._epoch = 0  # the newest term heard of
        self._watching = False  # registered once in this life
        self._registered = False
        self._asking = False
        self._manager = 0  # which of the managers is asked
        self._offered: tuple[int, int] | None = None  # routing version to apply first, until

    def _disk(self, target: int) -> Disk:
        world = self.world
        if world.engine is None:
            return ModelDisk(self, world.landed, world.bugs.disk_quirks)
        seed = f"disk {target} {world.seed}"
        return EngineDisk(self, world.landed, world.bugs.disk_quirks, world.engine, seed)

    def clock_ns(self) -> int:
        """CLOCK_BOOTTIME of this machine: drifts, and knows no relation to other machines'."""
        jump_ns = self.wall_jump_ns if self.world.bugs.wall_clock_in_leases else 0
        return int(self.loop.now_ns * (1 + self._drift)) + self.id * 1_000_000_000_000 + jump_ns

    # ---- lives

    def start(self) -> None:
        self.begin_life()
        life = self.world.bugs.life(self.epoch)
        self.incarnation = f"{self.id}.{life}".encode().ljust(16, b".")
        self.loop.note("start", self.name)
        self._routing = None
        self._sequence = 0
        self._epoch = 0
        self._watching = False
        self._registered = False
        self._asking = False
        self._offered = None
        self._silent_since_ns = {}
        self._ticked_ns = self.clock_ns()
        for disk in self.disks.values():
            disk.open()
        self.targets = {
            target: Target(self, target, chain, self.disks[target])
            for target, chain in self._placed
            if self.disks[target].present
        }
        self._tick()
        self._beat()

    def crash(self, power_loss: bool) -> None:
        if not self.alive:
            return
        self.loop.note("crash", self.name, "power" if power_loss else "kill")
        self.end_life()
        for disk in self.disks.values():
            disk.crash(power_loss)
            disk.failing = False  # the operator replaced the cable
            disk.fail_once.clear()
        self.targets = {}

    def disk_failed(self) -> bool:
        """A failure is final for the process: it has to be started anew."""
        local = (target.replica.local for target in self.targets.values())
        failed = any(disk.failing or disk.failed for disk in self.disks.values())
        return failed or LOCAL_OFFLINE in local

    # ---- requests

    def handle(self, request: object, reply: Reply) -> None:
        if isinstance(request, messages.PushRouting):
            if self._watching:  # else it was pushed to the former life
                self.world.bugs.routing(self, request.routing)
            return
        target = self.targets.get(request.target)  # type: ignore[attr-defined]
        if target is None:
            reply(Status.UNKNOWN_TARGET, "not here")
        elif isinstance(request, messages.UpdateRequest):
            if self.loop.now_ns > request.expires_ns:
                self.world.landed["capability expired"] += 1
                reply(Status.CAPABILITY_DENIED, "expired")
            else:
                target.update(request, reply)
        elif isinstance(request, messages.ReadRequest):
            target.read(request, reply)
        elif isinstance(request, messages.Forwarded):
            target.forwarded(request, reply)
        elif isinstance(request, messages.Ask):
            target.ask(request, reply)
        elif isinstance(request, messages.TellDone):
            target.tell_done(request, reply)
        elif isinstance(request, messages.QueryLast):
            target.query_last(request, reply)
        elif isinstance(request, messages.Fetch):
            target.fetch(request, reply)

    def call_node(self, node: int, request: object, done: Reply, timeout_ns: int) -> None:
        self.world.network.call(self, self.world.nodes[node], request, done, timeout_ns)

    # ---- membership

    def nudge(self) -> None:
        """Something in the report changed: a heartbeat at once."""
        self.after(0, self._send_beat)

    def apply_routing(self, routing: ClusterState) -> None:
        if self._routing is not None and routing.version <= self._routing.version:
            return
        self._routing = routing
        for number, chain in self._placed:
            self._adopt(number, routing.chains[ChainId(chain)])
        self._grant()
        self.nudge()

    def _adopt(self, number: int, chain: ChainRecord) -> None:
        """As native/storage does: a target that should hold acknowledged writes and is not on the
        disk is never made up."""
        target = self.targets.get(number)
        if target is None:
            public = next(t.public for t in chain.targets if t.id == number)
            counted_on = public in (Public.SERVING, Public.LASTSRV)
            if counted_on and not self.world.bugs.makes_up_targets:
                return
            self.disks[number].present = True
            target = self.targets[number] = Target(self, number, chain.id, self.disks[number])
        target.set_chain(chain)

    def _tick(self) -> None:
        self._look_around()
        for target in self.targets.values():
            target.tick()
        self.after(TICK_NS, self._tick)

    def _look_around(self) -> None:
        """As native/storage/neighbours: asks those who share a chain with this server."""
        now_ns = self.clock_ns()
        slept_ns = now_ns - self._ticked_ns if now_ns - self._ticked_ns > SLEPT_NS else 0
        self._ticked_ns = now_ns
        for peer in self._partners():
            since_ns = self._silent_since_ns.get(peer, now_ns) + slept_ns
            seen = self.world.network.sees(self, self.world.nodes[peer])
            self._silent_since_ns[peer] = now_ns if seen else min(now_ns, since_ns)

    def _partners(self) -> list[int]:
        mine = {chain for _, chain in self._placed}
        around = {node for node, chain in self.world.placed.values() if chain in mine}
        return sorted(around - {self.id})

    def _silent(self) -> dict[NodeId, int]:
        since_ns = self._silent_since_ns.items()
        silent = {NodeId(peer): self._ticked_ns - since_ns for peer, since_ns in since_ns}
        return {peer: for_ns for peer, for_ns in silent.items() if for_ns >= TELL_SILENCE_NS}

    def _beat(self) -> None:
        self._send_beat()
        self.after(self.world.heartbeat_ns, self._beat)

    def _send_beat(self) -> None:
        if not self._registered:
            self._register()
            return
        self._sequence += 1
        beat = messages.Heartbeat(
            NodeId(self.id),
            self.incarnation,
            self._epoch,
            self._sequence,
            self._reports(),
            self._silent(),
        )
        sent_ns = self.clock_ns()

        def done(code: int, payload: object) -> None:
            if code == 0:
                lease_ns, version = payload  # type: ignore[misc]
                self._offer(sent_ns, lease_ns, version)
            else:
                self._refused(payload)

        self._call_manager(beat, done)

    def _refused(self, payload: object) -> None:
        refusal, epoch = payload if isinstance(payload, tuple) else (None, 0)
        if refusal in (Refusal.UNKNOWN_NODE, Refusal.DECLARED_DEAD):
            self._registered = False
        elif refusal is Refusal.OTHER_TERM:
            self._epoch = epoch
            self.nudge()
        elif refusal in (Refusal.SUPERSEDED, Refusal.FOREIGN_TARGET):
            self.world.superseded(self)
        elif refusal not in (Refusal.OUT_OF_DATE, Refusal.OUT_OF_ORDER):
            self._manager += 1

    def _call_manager(self, request: object, done: Reply) -> None:
        managers = self.world.managers
        manager = managers[self._manager % len(managers)]
        self.world.network.call(self, manager, request, done, 1000 * MS)

    def _register(self) -> None:
        if self._asking:
            return
        self._asking = True

        def drawn(code: int, payload: object) -> None:
            if code == 0:
                epoch, number = payload  # type: ignore[misc]
                self._register_as(epoch, number)
            else:
                self._asking = False
                self._refused(payload)

        self._call_manager(messages.DrawNumber(), drawn)

    def _register_as(self, epoch: int, number: int) -> None:
        self._sequence += 1
        identity = NodeIdentity(NodeId(self.id), "storage", self.name)
        request = messages.Register(
            identity, self.incarnation, epoch, number, self._sequence, self._reports()
        )
        sent_ns = self.clock_ns()

        def done(code: int, payload: object) -> None:
            self._asking = False
            if code == 0:
                lease_ns, routing = payload  # type: ignore[misc]
                self._epoch = epoch
                self._registered = self._watching = True
                self.world.bugs.registered(self, routing)
                self._offer(sent_ns, lease_ns, routing.version)
            else:
                self._refused(payload)

        self._call_manager(request, done)

    def _offer(self, sent_ns: int, lease_ns: int, version: int) -> None:
        sent_ns = self.world.bugs.lease_from_ns(sent_ns, self.clock_ns())
        until_ns = sent_ns + int(lease_ns * LEASE_SERVER_SHARE * self.world.bugs.lease_stretch)
        first = 0 if self.world.bugs.lease_before_routing else version
        self._offered = first, until_ns
        self._grant()
        if self._routing is None or self._routing.version < version:
            self._fetch_routing()

    def _fetch_routing(self) -> None:
        """The push was lost; ask."""

        def done(code: int, payload: object) -> None:
            if code == 0 and isinstance(payload, ClusterState):
                self.apply_routing(payload)

        self._call_manager(messages.GetRouting(), done)

    def _grant(self) -> None:
        applied = self._routing.version if self._routing is not None else 0
        if self._offered is None or applied < self._offered[0]:
            return
        until_ns = self._offered[1]
        self._offered = None
        for target in self.targets.values():
            target.lease_until_ns = until_ns
            target.feed(craq.SetLease(until_ns))

    def _reports(self) -> tuple[TargetReport, ...]:
        reports = tuple(
            self.world.bugs.report(self, self._report(t)) for t in self.targets.values()
        )
        return reports if self.strange is None else (*reports, self.strange)

    def _report(self, target: Target) -> TargetReport:
        return TargetReport(
            target=TargetId(target.id),
            local=LOCAL_OFFLINE if target.disk.failed else target.replica.local,
            chain=ChainId(target.chain),
            chain_version=ChainVersion(target.replica.chain_version),
            used_bytes=target.disk.used_bytes(),
        )
