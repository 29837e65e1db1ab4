"""Both sides of membership over real gRPC on loopback."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.errors import Denied, OutcomeUnknown
from fs3.mgmtd.cluster import NodeExited
from fs3.runtime.clock import ManualClock, RealClock
from fs3.runtime.membership import Membership, RoutingWatcher
from fs3.types import NodeId
from tests.unit.mgmtd_harness import CLUSTER, Manager, Server, settle, wait_for

ALL_SERVE = [common_pb2.SERVING] * 3


class Town:
    """A manager and its servers."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.manager = Manager(clock).start()
        self.servers: list[Server] = []

    def server(self, node: int, incarnation: bytes = b"") -> Server:
        server = Server(self.manager.address, node, self.clock, incarnation)
        self.servers.append(server)
        return server

    def formed(self) -> list[Server]:
        servers = [self.server(node) for node in (1, 2, 3)]
        for server in servers:
            server.membership.start()
        wait_for(lambda: all(s.states() == ALL_SERVE for s in servers), "chains serve")
        return servers

    def close(self) -> None:
        for server in self.servers:
            server.membership.stop()
        self.manager.daemon.stop()


@pytest.fixture
def town() -> Iterator[Town]:
    before = {thread.name for thread in threading.enumerate()}
    town = Town(ManualClock())
    yield town
    town.close()
    left = {t.name for t in threading.enumerate() if t.name.startswith("fs3-")} - before
    assert {name for name in left if not name.startswith("fs3-grpc")} == set()


def test_a_fresh_cluster_serves_without_the_clock_moving(town: Town) -> None:
    servers = town.formed()
    for server in servers:
        assert server.versions == sorted(set(server.versions))
        assert server.log[0] == "routing"


def test_the_lease_runs_from_the_send_time_for_four_fifths(town: Town) -> None:
    begin_ns = town.clock.boottime_ns()
    server = town.server(1)
    server.membership.start()
    assert server.log[:2] == ["routing", "lease"]
    assert server.leases_ns[0] == begin_ns + 3_200_000_000
    assert server.membership.lease_s == 4.0
    assert server.membership.cluster_id == CLUSTER


def test_heartbeats_go_on_and_renew(town: Town) -> None:
    servers = town.formed()
    settle(town.clock, 0.1, lambda: all(len(s.leases_ns) > 10 for s in servers), "leases")
    for server in servers:
        assert server.leases_ns == sorted(server.leases_ns)
        assert server.states() == ALL_SERVE


def test_a_change_in_the_report_is_told_at_once_by_nudge(town: Town) -> None:
    servers = town.formed()
    target = next(t for c in servers[1].report() for t in [c.target_id])
    servers[1].failed.add(target)
    servers[1].membership.nudge()
    wait_for(lambda: common_pb2.OFFLINE in servers[0].states(), "failed disk leaves")


def test_a_neighbour_that_a_server_cannot_reach_leaves_the_chain(town: Town) -> None:
    servers = town.formed()
    settle(town.clock, 0.1, lambda: len(servers[0].leases_ns) > 60, "heartbeats are steady")
    servers[0].silent = {2: 60.0}
    out = [common_pb2.SERVING, common_pb2.SERVING, common_pb2.OFFLINE]
    settle(town.clock, 0.1, lambda: servers[1].states() == out, "one is taken out")
    servers[0].silent = {}
    settle(
        town.clock,
        0.1,
        lambda: common_pb2.SYNCING in servers[1].states(),
        "it comes back when they see each other",
    )


def test_a_silent_server_is_dropped_and_registers_again(town: Town) -> None:
    servers = town.formed()
    servers[1].membership.stop()
    settle(
        town.clock,
        0.05,
        lambda: servers[0].states().count(common_pb2.SERVING) == 2,
        "the silent one is dropped",
    )
    assert not town.manager.daemon.manager.state().nodes[NodeId(2)].alive
    again = town.server(2, incarnation=b"again" + bytes(11))
    again.membership.start()
    wait_for(lambda: common_pb2.SYNCING in servers[0].states(), "it syncs")
    again.up_to_date = {target.target_id for target in again.report()}
    again.membership.nudge()
    wait_for(lambda: servers[0].states() == ALL_SERVE, "it serves again")


def test_one_declared_dead_registers_again_by_itself_routing_before_lease(town: Town) -> None:
    """Its heartbeat thread hangs for a lease, then goes on: no lease before the new routing."""
    servers = town.formed()
    manager = town.manager.daemon.manager
    hold = threading.Event()
    report = servers[1].membership._report

    def hang() -> Sequence[mgmtd_pb2.LocalTarget]:
        hold.wait(20)
        return report()

    servers[1].membership._report = hang
    settle(town.clock, 0.05, lambda: not manager.state().nodes[NodeId(2)].alive, "death")
    dead_version = manager.state().version
    leases = len(servers[1].leases_ns)
    hold.set()
    settle(town.clock, 0.02, lambda: len(servers[1].leases_ns) > leases, "a lease again")
    assert manager.state().nodes[NodeId(2)].alive
    assert manager.state().nodes[NodeId(2)].incarnation == bytes([2]) * 16
    assert servers[1].versions[-1] > dead_version
    wait_for(lambda: common_pb2.SYNCING in servers[0].states(), "it syncs")


def test_a_superseded_process_is_told_to_end(town: Town) -> None:
    servers = town.formed()
    second = town.server(2, incarnation=b"second" + bytes(10))
    second.membership.start()
    settle(town.clock, 0.1, lambda: servers[1].refused, "the old process is refused")
    assert "newer process" in servers[1].refused[0]
    leases = len(servers[1].leases_ns)
    settle(town.clock, 0.1, lambda: len(second.leases_ns) > 5, "the new one lives")
    assert len(servers[1].leases_ns) == leases


def test_a_restart_of_the_manager_is_survived(town: Town) -> None:
    servers = town.formed()
    version = servers[0].versions[-1]
    town.manager.restart()
    leases = [len(server.leases_ns) for server in servers]
    settle(
        town.clock,
        0.02,
        lambda: all(len(s.leases_ns) > count + 2 for s, count in zip(servers, leases, strict=True)),
        "leases after the restart",
    )
    assert town.manager.daemon.manager.epoch == 2
    assert servers[0].states() == ALL_SERVE
    town.manager.daemon.manager.submit(NodeExited(NodeId(3), bytes([3]) * 16, 0))
    settle(town.clock, 0.02, lambda: servers[0].versions[-1] > version, "routing goes on")


def test_a_new_term_hears_heartbeats_without_a_registration(town: Town) -> None:
    servers = town.formed()
    version = town.manager.daemon.manager.state().version
    town.manager.restart()
    manager = town.manager.daemon.manager
    leases = [len(server.leases_ns) for server in servers]

    def heard() -> bool:
        for server in servers:
            server.membership.nudge()  # the clock stands still, so nobody can be declared dead
        return all(len(s.leases_ns) > count for s, count in zip(servers, leases, strict=True))

    wait_for(heard, "leases in the new term")
    state = manager.state()
    assert (state.epoch, state.drawn, state.version) == (2, 0, version)
    assert all(node.reported for node in state.nodes.values())


def test_a_number_of_a_former_term_is_drawn_again(town: Town) -> None:
    """The manager changes between the draw and the registration."""
    server = town.server(1)
    report, restarts = server.membership._report, iter([town.manager.restart])

    def restart_first() -> Sequence[mgmtd_pb2.LocalTarget]:
        next(restarts, lambda: None)()
        return report()

    server.membership._report = restart_first
    start = threading.Thread(target=server.membership.start, name="start")
    start.start()
    settle(town.clock, 0.02, lambda: server.leases_ns, "the first lease")
    start.join()
    state = town.manager.daemon.manager.state()
    assert (state.epoch, state.nodes[NodeId(1)].number) == (2, 1)
    assert server.log[0] == "routing"


def test_a_lease_waits_for_the_routing_that_it_was_given_under(town: Town) -> None:
    """An acknowledgement that names a routing the process has not applied grants nothing yet."""
    server = town.server(1)
    server.membership.start()
    wait_for(lambda: server.versions, "first routing")
    hold, held = threading.Event(), threading.Event()
    original = server._on_routing

    def slow(routing: common_pb2.RoutingInfo) -> None:
        held.set()
        hold.wait(20)
        original(routing)

    server.membership._routing._on_routing = slow
    other = town.server(2)
    other.membership.start()  # a new routing version; server 1 hangs in applying it
    assert held.wait(20)
    count = len(server.leases_ns)
    sequence = server.membership._sequence
    settle(town.clock, 0.1, lambda: server.membership._sequence > sequence + 3, "heartbeats go on")
    assert len(server.leases_ns) == count
    hold.set()
    wait_for(lambda: len(server.leases_ns) > count, "the lease after the routing")


def test_another_cluster_is_refused(town: Town) -> None:
    wrong = Membership(
        town.manager.address,
        common_pb2.Node(id=1, role="storage", incarnation=b"i" * 16),
        cluster_id=b"d" * 16,
        clock=town.clock,
        report=list,
        on_routing=lambda routing: None,
        on_lease=lambda until: None,
    )
    with pytest.raises(Denied, match="cluster_id"):
        wrong.start()
    wrong.stop()


def test_a_manager_that_is_not_there_is_named() -> None:
    lonely = Membership(
        "127.0.0.1:1",
        common_pb2.Node(id=1, role="storage", incarnation=b"i" * 16),
        cluster_id=b"",
        clock=RealClock(),
        report=list,
        on_routing=lambda routing: None,
        on_lease=lambda until: None,
    )
    with pytest.raises(OutcomeUnknown, match=r"127\.0\.0\.1:1 not reached.*is it running"):
        lonely.start(timeout_s=0.2)
    lonely.stop()


def test_an_incarnation_is_demanded() -> None:
    with pytest.raises(ValueError, match="incarnation"):
        Membership(
            "127.0.0.1:1",
            common_pb2.Node(id=1),
            cluster_id=b"",
            clock=RealClock(),
            report=list,
            on_routing=lambda routing: None,
            on_lease=lambda until: None,
        )


def test_a_watcher_gets_the_routing_and_each_change(town: Town) -> None:
    got: list[int] = []
    watcher = RoutingWatcher(
        town.manager.address, lambda routing: got.append(routing.version), clock=RealClock()
    )
    watcher.start()
    assert watcher.version() == got[-1] > 0
    servers = town.formed()
    wait_for(lambda: got[-1] >= servers[0].versions[-1], "the newest routing")
    town.manager.restart()
    town.manager.daemon.manager.submit(NodeExited(NodeId(3), bytes([3]) * 16, 0))
    version = town.manager.daemon.manager.state().version
    wait_for(lambda: got[-1] == version, "routing after the restart")
    assert got == sorted(set(got))
    watcher.stop()


def test_a_watcher_whose_callback_fails_gets_the_routing_again(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fails_once(routing: common_pb2.RoutingInfo) -> None:
        calls.append(routing.version)
        if len(calls) == 1:
            raise ValueError("planted")

    watcher = RoutingWatcher(town.manager.address, fails_once, clock=RealClock())
    watcher.start()
    assert len(calls) == 2
    assert calls[0] == calls[1]
    assert "delivered again" in caplog.text
    watcher.stop()
