"""Several managers on one store, in virtual time: election, pauses, failover, who moves where."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.errors import BadRequest, OutcomeUnknown, RetryElsewhere
from fs3.kv.api import transact
from fs3.kv.memory import MemoryStore
from fs3.mgmtd import store
from fs3.mgmtd.daemon import MgmtdDaemon
from fs3.runtime.clock import ManualClock
from fs3.runtime.config import MgmtdConfig
from fs3.runtime.entropy import SeededEntropy
from fs3.runtime.managers import AVOID_S, Managers
from fs3.runtime.membership import RoutingWatcher
from tests.unit.mgmtd_harness import CLUSTER, Server, settle, wait_for

ALL_SERVE = [common_pb2.SERVING] * 3
LEASE_S = 4.0
STEP_S = 0.008  # of virtual time per 5 ms of real time: slow threads must not miss their leases


class SharedStore(MemoryStore):
    """As a database: outlives the managers."""

    shared = True

    def close(self) -> None:
        pass


class PausableClock(ManualClock):
    """The time of one process that can be stopped with SIGSTOP: its loops stand still, and time
    has passed when they go on."""

    def __init__(self, world: ManualClock) -> None:
        super().__init__()
        self._world = world
        self._running = threading.Event()
        self._running.set()

    def monotonic_ns(self) -> int:
        return self._world.monotonic_ns()

    boottime_ns = wall_ns = monotonic_ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        done = self._world.wait(event, timeout_s)
        self._running.wait(30)
        return done or event.is_set()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()


class Town:
    """Managers a, b, c on one store."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.kv = SharedStore()
        self.clocks = [PausableClock(self.clock) for _ in range(count)]
        self.managers = [self.make(number) for number in range(count)]
        self.servers: list[Server] = []
        for manager in self.managers:
            manager.start()

    def make(self, number: int) -> MgmtdDaemon:
        config = MgmtdConfig(
            data="memory",
            cluster_id=CLUSTER.hex(),
            storage_nodes=(1, 2, 3),
            replicas=3,
            chains=2,
            lease_s=LEASE_S,
        )
        entropy = SeededEntropy(number + 1)
        return MgmtdDaemon(config, self.kv, clock=self.clocks[number], entropy=entropy)

    @property
    def addresses(self) -> str:
        return ",".join(manager.grpc_address for manager in self.managers)

    def primaries(self) -> list[int]:
        return [n for n, manager in enumerate(self.managers) if manager._manager is not None]

    def formed(self) -> list[Server]:
        self.servers = [Server(self.addresses, node, self.clock) for node in (1, 2, 3)]
        for server in self.servers:
            server.membership.start()
        wait_for(lambda: all(s.states() == ALL_SERVE for s in self.servers), "chains serve")
        return self.servers

    def close(self) -> None:
        for clock in self.clocks:
            clock.resume()
        for server in self.servers:
            server.membership.stop()
        for manager in self.managers:
            manager.stop()


@pytest.fixture
def town() -> Iterator[Town]:
    town = Town(3)
    yield town
    town.close()


def new_leases(servers: list[Server]) -> list[int]:
    return [len(server.leases_ns) for server in servers]


def test_one_of_three_is_primary_and_the_others_say_who(town: Town) -> None:
    assert town.primaries() == [0]
    wait_for(lambda: town.managers[1].health()[1].endswith(town.managers[0].grpc_address), "hint")
    assert town.managers[1].health()[0]
    with pytest.raises(RetryElsewhere, match=r"not the primary"):
        _ = town.managers[1].manager
    managers = Managers(town.managers[1].grpc_address, clock=town.clock)
    with pytest.raises(grpc.RpcError) as refused:
        managers.call(lambda stub: stub.Status(mgmtd_pb2.StatusRequest(), timeout=5))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert town.managers[0].grpc_address in refused.value.details()
    managers.close()


def test_a_standby_takes_over_and_servers_move(town: Town) -> None:
    servers = town.formed()
    version = town.managers[0].manager.state().version
    town.managers[0].stop()
    settle(town.clock, STEP_S, lambda: any(n in town.primaries() for n in (1, 2)), "a new primary")
    before = new_leases(servers)
    settle(
        town.clock,
        STEP_S,
        lambda: all(new > old + 1 for new, old in zip(new_leases(servers), before, strict=True)),
        "leases of the new primary",
    )
    assert all(server.states() == ALL_SERVE for server in servers)
    assert all(server.versions == sorted(set(server.versions)) for server in servers)
    assert all(server.refused == [] for server in servers)
    held = transact(town.kv, store.read_all)
    assert held is not None
    assert held.version == version


def test_a_primary_that_sleeps_past_its_lease_changes_nothing_and_stands_by(town: Town) -> None:
    servers = town.formed()
    old = town.managers[0].manager
    town.clocks[0].pause()
    settle(town.clock, STEP_S, lambda: any(n in town.primaries() for n in (1, 2)), "a new primary")
    servers[2].membership.stop()
    settle(town.clock, STEP_S, lambda: servers[0].states().count(1) == 2, "the silent one dropped")
    held = transact(town.kv, store.read_all)
    town.clocks[0].resume()
    settle(town.clock, STEP_S, lambda: 0 not in town.primaries(), "the old one stands by")
    settle(town.clock, STEP_S, lambda: len(town.primaries()) == 1, "one primary")
    with pytest.raises(RetryElsewhere):
        old.state()
    again = transact(town.kv, store.read_all)
    assert held is not None
    assert again is not None
    assert (again.chains, again.version) == (held.chains, held.version)
    assert town.managers[0].health()[0]


def test_failover_twice_and_the_first_comes_back(town: Town) -> None:
    town.formed()
    epochs = [town.managers[0].manager.epoch]
    for _ in range(2):
        (primary,) = town.primaries()
        town.clocks[primary].pause()
        settle(
            town.clock,
            STEP_S,
            lambda primary=primary: any(n != primary for n in town.primaries()),
            "next",
        )
        town.clocks[primary].resume()
        settle(town.clock, STEP_S, lambda: len(town.primaries()) == 1, "one primary")
        epochs.append(town.managers[town.primaries()[0]].manager.epoch)
    assert epochs == sorted(set(epochs))
    servers = town.servers
    before = new_leases(servers)
    settle(
        town.clock,
        STEP_S,
        lambda: all(new > old for new, old in zip(new_leases(servers), before, strict=True)),
        "leases",
    )
    assert all(server.states() == ALL_SERVE for server in servers)


def test_a_watcher_leaves_a_manager_that_stands_still(town: Town) -> None:
    """It has no heartbeats that would tell it: a mount, a client."""
    servers = town.formed()
    seen: list[int] = []
    watcher = RoutingWatcher(
        town.addresses, lambda routing: seen.append(routing.version), clock=town.clock
    )
    watcher.start()
    town.clocks[0].pause()
    settle(town.clock, STEP_S, lambda: any(n in town.primaries() for n in (1, 2)), "a new primary")
    servers[2].membership.stop()
    settle(town.clock, STEP_S, lambda: servers[0].states().count(1) == 2, "the silent one dropped")
    settle(town.clock, STEP_S, lambda: seen[-1] >= servers[0].versions[-1], "the watcher knows")
    watcher.stop()


# ---- Managers: who is asked


def test_a_refusal_moves_on_and_silence_is_avoided_for_a_while() -> None:
    clock = ManualClock()
    managers = Managers("a:1, b:2,c:3", clock=clock)
    assert str(managers) == "a:1,b:2,c:3"
    managers.failed("a:1", grpc.StatusCode.DEADLINE_EXCEEDED)
    order = []
    for _ in range(4):
        order.append(managers.address)
        managers.failed(managers.address, grpc.StatusCode.UNAVAILABLE)
    assert order == ["b:2", "c:3", "b:2", "c:3"]
    clock.advance(AVOID_S)
    order = []
    for _ in range(3):
        order.append(managers.address)
        managers.failed(managers.address, grpc.StatusCode.UNAVAILABLE)
    assert "a:1" in order


def test_only_the_present_address_is_left_and_only_for_reasons_that_another_may_not_have() -> None:
    managers = Managers("a:1,b:2", clock=ManualClock())
    managers.failed("b:2", grpc.StatusCode.UNAVAILABLE)
    managers.failed("a:1", grpc.StatusCode.PERMISSION_DENIED)
    assert managers.address == "a:1"


def test_one_manager_is_asked_again_and_again() -> None:
    managers = Managers("a:1", clock=ManualClock())
    managers.failed("a:1", grpc.StatusCode.DEADLINE_EXCEEDED)
    assert managers.address == "a:1"


@pytest.mark.parametrize("addresses", ["", " , ", ",".join(f"h:{n}" for n in range(17))])
def test_no_address_or_too_many_is_refused(addresses: str) -> None:
    with pytest.raises(BadRequest, match="mgmtd"):
        Managers(addresses, clock=ManualClock())


def test_asking_round_ends_when_the_time_is_over() -> None:
    clock = ManualClock()
    managers = Managers("127.0.0.1:1,127.0.0.1:2", clock=clock)
    with pytest.raises(OutcomeUnknown, match="is it running"):
        managers.ask(
            lambda stub: stub.Status(mgmtd_pb2.StatusRequest(), timeout=5), timeout_s=0, what="test"
        )
    managers.close()
