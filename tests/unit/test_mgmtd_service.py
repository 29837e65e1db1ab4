"""The gRPC face: statuses that say what to do, bounds on what comes in."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from fs3._proto import common_pb2, mgmtd_pb2, mgmtd_pb2_grpc
from fs3.errors import BadRequest, Refused
from fs3.kv.memory import MemoryStore
from fs3.mgmtd import service
from fs3.mgmtd.daemon import MgmtdDaemon
from fs3.runtime.clock import ManualClock
from fs3.runtime.config import MgmtdConfig
from fs3.runtime.entropy import SeededEntropy
from fs3.runtime.managers import open_channel
from tests.unit.mgmtd_harness import CLUSTER, Manager, wait_for

NODE: dict[str, Any] = {"id": 1, "role": "storage", "name": "storage-1", "incarnation": b"i" * 16}


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager(ManualClock()).start()
    yield manager
    manager.daemon.stop()


@pytest.fixture
def stub(manager: Manager) -> Iterator[Any]:
    channel = open_channel(manager.address)
    yield mgmtd_pb2_grpc.MgmtdStub(channel)
    channel.close()


def register(stub: Any, targets: list[mgmtd_pb2.LocalTarget] | None = None, **node: Any) -> Any:
    return stub.Register(registration(stub, targets, **node), timeout=10)


def registration(
    stub: Any, targets: list[mgmtd_pb2.LocalTarget] | None = None, **node: Any
) -> mgmtd_pb2.RegisterRequest:
    drawn = stub.DrawNumber(mgmtd_pb2.DrawNumberRequest(), timeout=10)
    return mgmtd_pb2.RegisterRequest(
        cluster_id=CLUSTER,
        node=common_pb2.Node(**{**NODE, **node}),
        targets=targets or [],
        epoch=drawn.epoch,
        number=drawn.number,
        sequence=1,
    )


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_register_answers_terms_and_routing(stub: Any) -> None:
    reply = register(stub)
    assert (reply.lease_s, reply.heartbeat_s, reply.epoch) == (4.0, 0.5, 1)
    assert reply.cluster_id == reply.routing.cluster_id == CLUSTER
    assert [node.name for node in reply.routing.nodes] == ["storage-1"]
    assert len(reply.routing.chains) == 2


@pytest.mark.parametrize(
    ("field", "node"),
    [
        ("node.id", {"id": 0}),
        ("node.incarnation", {"incarnation": b"short"}),
        ("node.role", {"role": "client"}),
        ("node.name", {"name": "n" * 256}),
        ("node.addresses", {"addresses": ["a"] * 17}),
        ("node.addresses", {"addresses": ["a" * 256]}),
        ("node.addresses", {"admin_address": "a" * 256}),
    ],
)
def test_a_bad_registration_names_its_field(stub: Any, field: str, node: dict[str, Any]) -> None:
    code, details = status_of(lambda: register(stub, **node))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"{field}: ")


def test_another_cluster_is_refused(stub: Any) -> None:
    request = registration(stub)
    request.cluster_id = b"d" * 16
    code, details = status_of(lambda: stub.Register(request, timeout=10))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert CLUSTER.hex() in details


def test_an_unknown_node_is_told_to_register(stub: Any) -> None:
    beat = mgmtd_pb2.HeartbeatRequest(node_id=9, incarnation=b"i" * 16, sequence=1)
    code, details = status_of(lambda: stub.Heartbeat(beat, timeout=10))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details == "node 9 never registered; register"


def test_a_target_of_another_node_is_refused(stub: Any) -> None:
    routing = register(stub).routing
    target = next(t for t in routing.chains[0].targets if t.node_id == 2)
    report = mgmtd_pb2.LocalTarget(
        target_id=target.target_id, chain_id=routing.chains[0].id, state=common_pb2.ONLINE
    )
    code, details = status_of(lambda: register(stub, [report]))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "belongs to node 2" in details


def test_too_many_targets_are_refused_before_they_are_looked_at(stub: Any) -> None:
    many = [mgmtd_pb2.LocalTarget(target_id=1)] * (service.TARGETS_MAX + 1)
    assert status_of(lambda: register(stub, many))[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("silent_s", [-1.0, 1e10, float("nan"), float("inf")])
def test_a_silence_of_no_sensible_length_is_refused(stub: Any, silent_s: float) -> None:
    register(stub)
    silent = [mgmtd_pb2.SilentPeer(node_id=2, silent_s=silent_s)]
    request = mgmtd_pb2.HeartbeatRequest(node_id=1, sequence=1, silent=silent)
    code, detail = status_of(lambda: stub.Heartbeat(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert detail.startswith("silent.silent_s: ")


def test_heartbeats_acknowledge_with_the_routing_version(stub: Any) -> None:
    version = register(stub).routing.version
    beat = mgmtd_pb2.HeartbeatRequest(node_id=1, incarnation=b"i" * 16, sequence=2, epoch=1)
    reply = stub.Heartbeat(beat, timeout=10)
    assert (reply.lease_s, reply.epoch, reply.routing_version) == (4.0, 1, version)
    assert status_of(lambda: stub.Heartbeat(beat, timeout=10))[0] is grpc.StatusCode.ABORTED


def test_a_heartbeat_of_another_term_is_answered_with_the_term_and_no_lease(stub: Any) -> None:
    register(stub)
    beat = mgmtd_pb2.HeartbeatRequest(node_id=1, incarnation=b"i" * 16, sequence=2, epoch=7)
    reply = stub.Heartbeat(beat, timeout=10)
    assert (reply.lease_s, reply.epoch) == (0.0, 1)
    beat.epoch = reply.epoch
    assert stub.Heartbeat(beat, timeout=10).lease_s == 4.0


def test_a_registration_counts_once_and_under_a_number_drawn_for_it(stub: Any) -> None:
    request = registration(stub)
    stub.Register(request, timeout=10)
    code, details = status_of(lambda: stub.Register(request, timeout=10))
    assert code is grpc.StatusCode.ABORTED
    assert details == "node 1: number 1 after 1; draw a number and register again"
    request.number = 0
    code, details = status_of(lambda: stub.Register(request, timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "number: draw one first (DrawNumber)"


def test_an_exit_is_accepted_once_for_the_right_process(stub: Any) -> None:
    register(stub)

    def report(incarnation: bytes) -> bool:
        request = mgmtd_pb2.ReportExitRequest(node_id=1, incarnation=incarnation, exit_status=-9)
        return bool(stub.ReportExit(request, timeout=10).accepted)

    assert not report(b"other" + bytes(11))
    assert report(b"i" * 16)
    reply = stub.Status(mgmtd_pb2.StatusRequest(), timeout=10)
    assert [entry.node.alive for entry in reply.nodes] == [False]


def test_status_says_it_all(manager: Manager, stub: Any) -> None:
    register(stub)
    session = mgmtd_pb2.ClientSessionRequest(client_id=b"x" * 16, description="mount")
    extended = stub.ExtendClientSession(session, timeout=10)
    assert extended.ttl_s == 60.0
    assert extended.routing.version == manager.daemon.manager.state().version
    reply = stub.Status(mgmtd_pb2.StatusRequest(), timeout=10)
    assert not reply.healthy
    assert "not formed yet" in reply.health
    assert [client.description for client in reply.clients] == ["mount"]
    assert reply.nodes[0].node.name == "storage-1"
    assert reply.routing.version == extended.routing.version


def test_a_client_id_has_16_bytes(stub: Any) -> None:
    session = mgmtd_pb2.ClientSessionRequest(client_id=b"x")
    code, details = status_of(lambda: stub.ExtendClientSession(session, timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "client_id: 16 bytes"


def test_watchers_leave_and_are_bounded(
    manager: Manager, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WATCHERS_MAX", 2)
    board = manager.daemon.manager.board
    request = mgmtd_pb2.WatchRoutingRequest(watcher="test")
    streams = [stub.WatchRouting(request) for _ in range(2)]
    for stream in streams:
        assert next(stream).routing.version == 1
    third = stub.WatchRouting(request)
    assert status_of(lambda: next(third))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()
    wait_for(lambda: board.watchers() == 0, "watchers left")


def test_streams_end_when_the_manager_stops(manager: Manager, stub: Any) -> None:
    stream = stub.WatchRouting(mgmtd_pb2.WatchRoutingRequest())
    next(stream)
    ended = threading.Event()

    def drain() -> None:
        with contextlib.suppress(grpc.RpcError):
            list(stream)
        ended.set()

    thread = threading.Thread(target=drain)
    thread.start()
    manager.daemon.stop()
    assert ended.wait(20)
    thread.join()


def make(config: MgmtdConfig) -> MgmtdDaemon:
    return MgmtdDaemon(config, MemoryStore(), clock=ManualClock(), entropy=SeededEntropy(1))


def test_an_empty_store_without_a_shape_is_refused() -> None:
    with pytest.raises(BadRequest, match="fs3 cluster init"):
        make(MgmtdConfig(data="d")).start()


def test_a_port_in_use_is_named(manager: Manager) -> None:
    second = make(MgmtdConfig(data="d", grpc=manager.address, storage_nodes=(1,), replicas=1))
    with pytest.raises(Refused, match=r"in use\? Name another with --grpc"):
        second.start()
    second.stop()
