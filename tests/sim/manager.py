"""A cluster manager process: the production manager and election (fs3/mgmtd) on a shared store.

Nothing of a process survives it but the store. Routing is pushed to everybody who watches, late or
lost as the network pleases. Processes that are not primary refuse, and take over when they may.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

from fs3._proto import common_pb2
from fs3.errors import RetryElsewhere, RetryLater, Status
from fs3.kv.election import MANAGER_KEY, Election
from fs3.mgmtd import cluster, manager
from fs3.mgmtd.cluster import Effect, Event, Moved, Refused
from fs3.mgmtd.daemon import PRIMARY_LEASE_SHARE
from fs3.mgmtd.routing import Board
from fs3.mgmtd.state import ClusterState
from fs3.runtime.failpoint import failpoint
from tests.sim import failpoints, messages
from tests.sim.loop import MS, Loop, S
from tests.sim.network import Endpoint, Reply

if TYPE_CHECKING:
    from tests.sim.cluster import World

__all__ = ["NOT_PRIMARY", "Core", "Died", "Manager"]

NOT_PRIMARY = "not the primary"
TICK_NS = 100 * MS
DELAY_NS = 1500 * MS  # longer than a call of a heartbeat waits


T = TypeVar("T")


class Died(BaseException):
    """The process ended inside production code, which may not catch it."""


class Manager(Endpoint):
    def __init__(self, world: World, number: int) -> None:
        super().__init__(world.loop, f"mgmtd-{number}")
        self.world = world
        self.core: Core | None = None
        self._election: Election | None = None

    # ---- lives

    def start(self) -> None:
        self.begin_life()
        self.loop.note("start", self.name)
        self._election = self.world.bugs.election(
            Election(
                self.world.store,
                LoopClock(self.loop),
                key=MANAGER_KEY,
                holder=f"{self.name}.{self.epoch}",
                lease_s=self.world.plan.lease_ns / S * PRIMARY_LEASE_SHARE,
                exclusive=self.world.plan.managers == 1,
            )
        )
        self._campaign()

    def crash(self) -> None:
        self.loop.note("crash", self.name)
        self.end_life()
        self.core = None

    @property
    def primary(self) -> bool:
        return self.alive and self.core is not None

    def _campaign(self) -> None:
        assert self._election is not None
        try:
            if self._inside(self._election.try_take):
                self._begin(self._election)
            else:
                self.after(TICK_NS, self._campaign)
        except OSError as error:
            self._give_up(error)
        except Died:
            return

    def _begin(self, election: Election) -> None:
        core = Core(self, election)
        self._inside(core.begin)
        self.core = core
        self.loop.note(self.name, "is primary", election.epoch)
        self._tick()
        self._renew()

    def _give_up(self, error: object) -> None:
        """The process ends; a supervisor starts it again."""
        if not self.alive:
            return
        self.loop.note(self.name, "ends:", error)
        self.crash()
        self.loop.after(50 * MS, lambda: self.alive or self.start())

    # ---- requests

    def handle(self, request: object, reply: Reply) -> None:
        now_ns = self.loop.now_ns
        if isinstance(request, messages.Heartbeat):
            beat = cluster.Heartbeat(
                request.node,
                request.incarnation,
                request.epoch,
                request.sequence,
                request.reports,
                now_ns,
                request.silent,
            )
            self._answer(beat, reply, lambda state: (state.lease_ns, state.version))
        elif isinstance(request, messages.DrawNumber):
            drawn = cluster.NumberDrawn()
            self._answer(drawn, reply, lambda state: (state.epoch, state.drawn))
        elif isinstance(request, messages.Register):
            registered = cluster.NodeRegistered(
                request.identity,
                request.incarnation,
                request.epoch,
                request.number,
                request.sequence,
                request.reports,
                now_ns,
            )
            self._answer(registered, reply, lambda state: (state.lease_ns, state))
        elif isinstance(request, messages.Exit):
            exited = cluster.NodeExited(request.node, request.incarnation, now_ns)
            self._answer(exited, reply, lambda state: None)
        elif isinstance(request, messages.Leave):
            leaves = cluster.TargetLeaves(request.target, request.leaving, now_ns)
            self._answer(leaves, reply, lambda state: None)
        elif isinstance(request, messages.GetRouting):
            try:
                reply(0, self.core.state()) if self.core else reply(Status.NOT_SERVING, NOT_PRIMARY)
            except RetryElsewhere:
                reply(Status.NOT_SERVING, NOT_PRIMARY)

    def _answer(
        self, event: Event, reply: Reply, payload: Callable[[ClusterState], object]
    ) -> None:
        if self.core is None:
            reply(Status.NOT_SERVING, NOT_PRIMARY)
            return
        try:
            event = self.world.bugs.event(self.core, event)
            state, effects = self._inside(partial(self.core.submit, event))
        except Died:
            return
        except OSError as error:
            reply(Status.NOT_SERVING, str(error))
            return
        if not self.alive:
            return  # it died inside
        for effect in effects:
            if isinstance(effect, Refused):
                reply(Status.NOT_SERVING, (effect.refusal, state.epoch))
                return
        reply(0, payload(state))

    # ---- named points inside the production code

    def _inside(self, action: Callable[[], T]) -> T:
        """Runs production code in which this process may be killed or stopped."""
        with failpoints.running(self):
            return action()

    def die_inside(self) -> NoReturn:
        self._give_up("killed")
        raise Died

    def stop_inside(self, duration_ns: int) -> None:
        """The world goes on, and this process only afterwards, from where it is."""
        epoch = self.epoch
        self.pause(duration_ns)
        self.loop.run(self.loop.now_ns + duration_ns - 1)  # it holds its lock until it returns
        if self.epoch != epoch:
            raise Died

    def delay_inside(self) -> None:
        """It holds its lock: all of it waits."""
        self.stop_inside(DELAY_NS)

    # ---- its own clocks

    def _tick(self) -> None:
        if self.core is None:
            return
        try:
            self._inside(self.core.tick)
        except RetryLater as error:
            if self.world.plan.managers == 1:  # a store of its own is there, or it is broken
                self._give_up(error)
                return
            self.loop.note(self.name, "goes on:", error)
        except OSError as error:
            self._give_up(error)
        except Died:
            return
        self.after(TICK_NS, self._tick)

    def _renew(self) -> None:
        if self.core is None:
            return
        try:
            self._inside(self.core.renew)
        except OSError as error:
            self.loop.note(self.name, "was not renewed:", error)
        except Died:
            return
        self.after(int(self.world.plan.lease_ns * PRIMARY_LEASE_SHARE / 4), self._renew)

    def fenced(self) -> None:
        failpoint("mgmtd.old_epoch_fenced")
        epoch = self.epoch
        self.loop.after(0, lambda: self.epoch == epoch and self._give_up("fenced"))

    def publish(self, state: ClusterState) -> None:
        self.world.published(state, f"{self.name}.{self.epoch}")
        push = messages.PushRouting(state)
        for watcher in self.world.watchers():
            self.world.network.send(self.name, watcher.name, _delivery(watcher, push))


class Core(manager.Manager):
    """The production manager; what it publishes and decides is seen by the simulation."""

    def __init__(self, process: Manager, election: Election) -> None:
        self.process = process
        self.loop_clock = LoopClock(process.loop)
        super().__init__(
            process.world.store,
            self.loop_clock,
            election,
            lease_s=process.world.plan.lease_ns / S,
            on_ended=process.fenced,
        )
        self.board = _Pushing(self)
        process.world.bugs.manager(self)

    def newest(self) -> ClusterState:
        """Also while an event is being applied."""
        assert self._state is not None
        return self._state

    def _make_true(self, state: ClusterState, effect: Effect) -> None:
        if isinstance(effect, Moved):
            self.process.world.moved(state, effect.move)
        super()._make_true(state, effect)


class _Pushing(Board):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core

    def publish(self, routing: common_pb2.RoutingInfo) -> None:
        super().publish(routing)
        self._core.process.publish(self._core.newest())


class LoopClock:
    """fs3.runtime.clock.Clock on virtual time; nobody sleeps in here."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.ahead_ns = 0  # planted: this clock is wrong

    def monotonic_ns(self) -> int:
        return self._loop.now_ns + self.ahead_ns

    boottime_ns = monotonic_ns

    def wall_ns(self) -> int:
        return 1_700_000_000 * S + self._loop.now_ns

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing in the simulation sleeps")

    def wait(self, event: object, timeout_s: float) -> bool:
        raise AssertionError("nothing in the simulation waits")


def _delivery(watcher: Endpoint, push: messages.PushRouting) -> Callable[[], None]:
    return lambda: watcher.deliver(lambda: watcher.handle(push, _nobody))


def _nobody(code: int, payload: object) -> None:
    """A push has no answer."""
