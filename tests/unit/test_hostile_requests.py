"""Random messages at the RPC edges: a reply or a clear refusal, never an exception of the inside,
and never damage."""

import logging
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hostile import messages, octets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meta_world import CLIENT, PRINCIPAL, World, routing
from mgmtd_harness import CLUSTER, Manager

from fs3._proto import common_pb2, mgmtd_pb2, storage_pb2
from fs3._proto import meta_pb2 as pb
from fs3.errors import Fs3Error
from fs3.meta.call import Call
from fs3.meta.fsck import fsck
from fs3.meta.ops import VERBS
from fs3.meta.ports import Measure
from fs3.mgmtd.service import MgmtdServicer
from fs3.runtime.clock import ManualClock
from fs3.storage.admin import StorageAdmin
from fs3.storage.checker import check
from fs3.types import NodeId, TargetId

QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# ---- meta


def headers() -> st.SearchStrategy[pb.Header]:
    """Mostly acceptable ones: the operations behind them are what is tried."""
    sound = st.builds(
        lambda uid, request: pb.Header(
            caller=pb.Caller(uid=uid, gid=uid), client_id=CLIENT, request_id=request
        ),
        st.sampled_from([0, 0, 0, 7]),
        st.integers(1, 1 << 40),
    )
    return st.one_of(sound, sound, sound, messages(pb.Header))


@st.composite
def requests(draw: Any) -> tuple[int, bytes]:
    method = draw(st.sampled_from(sorted(VERBS)))
    kind: type[Message] = VERBS[method].request
    if draw(st.integers(0, 19)) == 0:
        return method, draw(octets())
    message: Any = draw(messages(kind, skip=("header",)))
    if VERBS[method].has_header:
        message.header.CopyFrom(draw(headers()))
    return method, message.SerializeToString()


def planted_world() -> World:
    world = World()
    directory = world.mkdir(b"d")
    world.write_file(b"f", 100, directory)
    world.write_file(b"f", 1 << 22)
    world.call(pb.SYMLINK, parent=1, name=b"link", target=b"d/f")
    world.call(pb.SYMLINK, parent=1, name=b"loop", target=b"loop")
    world.request_id = 1 << 41  # above what the random headers use
    return world


@QUICK
@given(st.lists(requests(), min_size=1, max_size=8))
def test_the_metadata_service_answers_anything(sent: list[tuple[int, bytes]]) -> None:
    world = planted_world()
    world.chunks.measure = lambda inode, layout: Measure(world.chunks.lengths.get(inode, 0), 0)
    for method, body in sent:
        for answer in world.store.run([Call(object(), method, body, PRINCIPAL)]):
            assert "its log has the stack" not in answer.detail, (method, answer)
            assert answer.status == 0 or answer.detail, (method, answer)
    world.jobs.run(200)
    assert not [a for a in world.delivered.values() if "has the stack" in a.detail]
    assert fsck(world.kv) == []


@QUICK
@given(st.binary(max_size=200), st.booleans())
def test_resolve_takes_any_path(path: bytes, follow: bool) -> None:
    world = planted_world()
    (answer,) = world.store.run(
        [Call(1, pb.RESOLVE, world.request(pb.RESOLVE, path=path, follow=follow), PRINCIPAL)]
    )
    assert "has the stack" not in answer.detail, answer


# ---- mgmtd


class Aborted(Exception):
    pass


class FakeContext:
    """A ServicerContext: abort raises, nobody hangs up."""

    def __init__(self) -> None:
        self.status: tuple[grpc.StatusCode, str] | None = None

    def abort(self, status: grpc.StatusCode, detail: str) -> None:
        self.status = status, detail
        raise Aborted

    def add_callback(self, callback: Any) -> bool:
        return True


@pytest.fixture(scope="module")
def servicer() -> Any:
    clock = ManualClock()
    manager = Manager(clock).start()
    yield MgmtdServicer(lambda: manager.daemon.manager, clock, heartbeat_s=0.5)
    manager.daemon.stop()


UNARY = {
    "DrawNumber": mgmtd_pb2.DrawNumberRequest,
    "Register": mgmtd_pb2.RegisterRequest,
    "Heartbeat": mgmtd_pb2.HeartbeatRequest,
    "ReportExit": mgmtd_pb2.ReportExitRequest,
    "ExtendClientSession": mgmtd_pb2.ClientSessionRequest,
    "Status": mgmtd_pb2.StatusRequest,
}


@st.composite
def manager_calls(draw: Any) -> tuple[str, Message]:
    method = draw(st.sampled_from(sorted(UNARY)))
    request: Any = draw(messages(UNARY[method]))
    if method == "Register" and draw(st.booleans()):  # far enough to be taken
        request.cluster_id = CLUSTER
        request.node.id = draw(st.integers(1, 4))
        request.node.role = "storage"
        request.node.incarnation = draw(st.binary(min_size=16, max_size=16))
        request.epoch = 1
        request.number = draw(st.integers(1, 8))
    return method, request


@QUICK
@given(st.lists(manager_calls(), min_size=1, max_size=5))
def test_the_manager_answers_anything(servicer: Any, calls: list[tuple[str, Message]]) -> None:
    for method, request in calls:
        context = FakeContext()
        try:
            reply = getattr(servicer, method)(request, context)
        except Aborted:
            assert context.status is not None
            status, detail = context.status
            assert status is not grpc.StatusCode.INTERNAL, (method, request, detail)
            assert detail
        else:
            assert reply.SerializeToString() is not None
    state = servicer._manager().state()
    assert state.cluster_id == CLUSTER
    assert all(chain.targets for chain in state.chains.values())


# ---- what a storage server answers to tools


class Impatient(ManualClock):
    """Sleeping is over at once."""

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)


class Server:
    """A Connection whose answers are given; after the last of them there is an end."""

    def __init__(self, answers: list[tuple[bytes, bytes]]) -> None:
        self._answers = answers

    def call(self, method: int, body: bytes, *, sink_bytes: int = 0) -> tuple[bytes, bytes]:
        if self._answers:
            return self._answers.pop()
        return storage_pb2.DumpReply(end=True).SerializeToString(), b""


def bodies() -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([storage_pb2.DumpReply, storage_pb2.SpaceReply, storage_pb2.ReadReply])
    return st.one_of(
        kinds.flatmap(messages).map(lambda message: message.SerializeToString()), octets()
    )


def answers() -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(st.tuples(bodies(), st.binary(max_size=20)), max_size=6)


@QUICK
@given(answers())
def test_the_checker_reads_any_answer_of_a_server(given_answers: list[tuple[bytes, bytes]]) -> None:
    info = routing(chains=1)
    for node in range(3):
        info.nodes.add(id=node, role="storage", addresses=["tcp://x:1"])
    server = Server(given_answers)
    report = check(info, StorageAdmin(info, lambda address: server), clock=Impatient(), deep=True)
    assert report.chains == 1


@QUICK
@given(bodies(), st.binary(max_size=20))
def test_space_of_any_answer(body: bytes, data: bytes) -> None:
    info = common_pb2.RoutingInfo()
    info.nodes.add(id=1, role="storage", addresses=["tcp://x:1"])
    admin = StorageAdmin(info, lambda address: Server([(body, data)]))
    try:
        assert admin.space(NodeId(1)).capacity_bytes >= 0
    except Fs3Error as error:
        assert "body" in str(error)


def test_a_list_that_does_not_move_on_is_damage() -> None:
    """An empty page that is not the last would be asked for without end."""
    info = common_pb2.RoutingInfo()
    info.nodes.add(id=1, role="storage", addresses=["tcp://x:1"])
    empty = storage_pb2.DumpReply().SerializeToString()
    admin = StorageAdmin(info, lambda address: Server([(empty, b"")] * 1000))
    with pytest.raises(Fs3Error, match="chunks: "):
        list(admin.chunks(NodeId(1), TargetId(101)))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
