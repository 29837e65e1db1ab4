"""The gRPC face of the manager: decode and check, submit an event, encode. Decides nothing."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeVar

import grpc

from fs3._proto import mgmtd_pb2, mgmtd_pb2_grpc
from fs3.auth.access import ANYBODY, SERVERS
from fs3.errors import BadRequest, Denied, Fs3Error, RetryElsewhere, RetryLater, Status
from fs3.mgmtd import routing
from fs3.mgmtd.cluster import (
    Effect,
    Event,
    Heartbeat,
    NodeExited,
    NodeRegistered,
    NumberDrawn,
    Refusal,
    Refused,
)
from fs3.mgmtd.manager import Manager
from fs3.mgmtd.sessions import SESSION_TTL_S
from fs3.mgmtd.state import ClusterState
from fs3.runtime.clock import Clock
from fs3.types import ClientId, NodeId

__all__ = ["ACCESS", "WATCHERS_MAX", "MgmtdServicer"]

WATCHERS_MAX = 1024  # each holds a thread of the server
TARGETS_MAX = 4096  # per server
PEERS_MAX = 4096  # servers that one server can share chains with
SILENT_S_MAX = 1e9  # 30 years; keeps the nanoseconds inside 64 bits
ADDRESSES_MAX = 16
STATUS_CLIENTS_MAX = 1024
TEXT_BYTES_MAX = 255
ROLES = ("storage", "meta", "mgmtd")

R = TypeVar("R")
Context = grpc.ServicerContext

ACCESS = {
    "DrawNumber": SERVERS,
    "Register": SERVERS,
    "Heartbeat": SERVERS,
    "ReportExit": SERVERS,
    "WatchRouting": ANYBODY,
    "Status": ANYBODY,
    "ExtendClientSession": ANYBODY,
}

_STATUS = {
    Refusal.UNKNOWN_NODE: grpc.StatusCode.NOT_FOUND,
    Refusal.DECLARED_DEAD: grpc.StatusCode.FAILED_PRECONDITION,
    Refusal.SUPERSEDED: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.OUT_OF_DATE: grpc.StatusCode.ABORTED,
    Refusal.OUT_OF_ORDER: grpc.StatusCode.ABORTED,
    Refusal.FOREIGN_TARGET: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.UNKNOWN_TARGET: grpc.StatusCode.NOT_FOUND,
}


class MgmtdServicer(mgmtd_pb2_grpc.MgmtdServicer):  # type: ignore[misc]  # generated, untyped
    """Thread-safe; every method may run in many threads of the server's pool.

    `manager()`: that of the present term. Raises RetryElsewhere in a standby.
    """

    def __init__(self, manager: Callable[[], Manager], clock: Clock, *, heartbeat_s: float) -> None:
        self._manager = manager
        self._clock = clock
        self._heartbeat_s = heartbeat_s

    def DrawNumber(
        self, request: mgmtd_pb2.DrawNumberRequest, context: Context
    ) -> mgmtd_pb2.DrawNumberReply:
        def draw() -> mgmtd_pb2.DrawNumberReply:
            state = _submit(self._manager(), NumberDrawn())
            return mgmtd_pb2.DrawNumberReply(epoch=state.epoch, number=state.drawn)

        return _answer(context, draw)

    def Register(
        self, request: mgmtd_pb2.RegisterRequest, context: Context
    ) -> mgmtd_pb2.RegisterReply:
        def register() -> mgmtd_pb2.RegisterReply:
            _check_registration(request)
            manager = self._manager()
            _check_cluster(manager, request.cluster_id)
            state = _submit(
                manager,
                NodeRegistered(
                    routing.identity_of(request.node),
                    request.node.incarnation,
                    request.epoch,
                    request.number,
                    request.sequence,
                    routing.reports_of(request.targets),
                    self._clock.monotonic_ns(),
                ),
            )
            return mgmtd_pb2.RegisterReply(
                cluster_id=state.cluster_id,
                lease_s=state.lease_ns / 1e9,
                heartbeat_s=self._heartbeat_s,
                epoch=state.epoch,
                routing=routing.encode(state),
            )

        return _answer(context, register)

    def Heartbeat(
        self, request: mgmtd_pb2.HeartbeatRequest, context: Context
    ) -> mgmtd_pb2.HeartbeatReply:
        def heartbeat() -> mgmtd_pb2.HeartbeatReply:
            _require(len(request.targets) <= TARGETS_MAX, "targets", f"at most {TARGETS_MAX}")
            _check_silent(request)
            manager = self._manager()
            beat = Heartbeat(
                NodeId(request.node_id),
                request.incarnation,
                request.epoch,
                request.sequence,
                routing.reports_of(request.targets),
                self._clock.monotonic_ns(),
                routing.silent_of(request.silent),
            )
            state, effects = manager.submit(beat)
            refused = _refusal(effects)
            if refused is not None and refused.refusal is not Refusal.OTHER_TERM:
                raise _RefusedEvent(refused)
            return mgmtd_pb2.HeartbeatReply(
                lease_s=state.lease_ns / 1e9 if refused is None else 0.0,
                epoch=state.epoch,
                routing_version=state.version,
            )

        return _answer(context, heartbeat)

    def WatchRouting(
        self, request: mgmtd_pb2.WatchRoutingRequest, context: Context
    ) -> Iterator[mgmtd_pb2.RoutingUpdate]:
        manager = _answer(context, self._manager)
        board = manager.board
        if board.watchers() >= WATCHERS_MAX:
            detail = f"{WATCHERS_MAX} watchers; try again later"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, detail)
        gone = threading.Event()

        def leave() -> None:
            gone.set()
            board.wake()

        if not context.add_callback(leave):
            return
        for newest in board.watch(gone, request.known_version):
            yield mgmtd_pb2.RoutingUpdate(routing=newest, epoch=manager.epoch)  # None: unset

    def Status(self, request: mgmtd_pb2.StatusRequest, context: Context) -> mgmtd_pb2.StatusReply:
        def status() -> mgmtd_pb2.StatusReply:
            manager = self._manager()
            state = manager.state()
            healthy, sentence = manager.health()
            now_ns = self._clock.monotonic_ns()
            return mgmtd_pb2.StatusReply(
                routing=routing.encode(state),
                epoch=manager.epoch,
                nodes=[
                    routing.encode_status(node, now_ns) for _, node in sorted(state.nodes.items())
                ],
                health=sentence,
                healthy=healthy,
                clients=[
                    mgmtd_pb2.ClientSession(
                        client_id=client.client_id,
                        description=client.description,
                        age_s=(now_ns - client.since_ns) / 1e9,
                    )
                    for client in manager.clients()[:STATUS_CLIENTS_MAX]
                ],
            )

        return _answer(context, status)

    def ReportExit(
        self, request: mgmtd_pb2.ReportExitRequest, context: Context
    ) -> mgmtd_pb2.ReportExitReply:
        def report_exit() -> mgmtd_pb2.ReportExitReply:
            now_ns = self._clock.monotonic_ns()
            event = NodeExited(NodeId(request.node_id), request.incarnation, now_ns)
            _, effects = self._manager().submit(event)
            return mgmtd_pb2.ReportExitReply(accepted=_refusal(effects) is None)

        return _answer(context, report_exit)

    def ExtendClientSession(
        self, request: mgmtd_pb2.ClientSessionRequest, context: Context
    ) -> mgmtd_pb2.ClientSessionReply:
        def extend() -> mgmtd_pb2.ClientSessionReply:
            _require(len(request.client_id) == 16, "client_id", "16 bytes")
            manager = self._manager()
            manager.extend_client(ClientId(request.client_id), request.description)
            newest = manager.board.newest()
            return mgmtd_pb2.ClientSessionReply(ttl_s=SESSION_TTL_S, routing=newest)

        return _answer(context, extend)


def _submit(manager: Manager, event: Event) -> ClusterState:
    state, effects = manager.submit(event)
    refused = _refusal(effects)
    if refused is not None:
        raise _RefusedEvent(refused)
    return state


def _check_cluster(manager: Manager, cluster_id: bytes) -> None:
    ours = manager.state().cluster_id
    if cluster_id and cluster_id != ours:
        detail = f"cluster_id: this is cluster {ours.hex()}, not {cluster_id.hex()}"
        raise Denied(Status.WRONG_CLUSTER, "mgmtd", detail)


class _RefusedEvent(Exception):
    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.detail}; {refused.refusal.value}")
        self.status = _STATUS[refused.refusal]


def _answer(context: Context, handler: Callable[[], R]) -> R:
    """Runs the handler; its errors become gRPC statuses whose details say what to do."""
    try:
        return handler()
    except _RefusedEvent as refused:
        _abort(context, refused.status, str(refused))
    except BadRequest as error:
        _abort(context, grpc.StatusCode.INVALID_ARGUMENT, error.detail)
    except Denied as error:
        _abort(context, grpc.StatusCode.PERMISSION_DENIED, error.detail)
    except RetryElsewhere as error:
        _abort(context, grpc.StatusCode.UNAVAILABLE, error.detail)
    except RetryLater as error:
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error.detail)
    except Fs3Error as error:
        _abort(context, grpc.StatusCode.INTERNAL, str(error))


def _abort(context: Context, status: grpc.StatusCode, detail: str) -> NoReturn:
    context.abort(status, detail)
    raise AssertionError("abort raises")


def _refusal(effects: Iterable[Effect]) -> Refused | None:
    return next((effect for effect in effects if isinstance(effect, Refused)), None)


def _check_registration(request: mgmtd_pb2.RegisterRequest) -> None:
    node = request.node
    _require(node.id > 0, "node.id", "a number above 0")
    _require(len(node.incarnation) == 16, "node.incarnation", "16 bytes")
    _require(node.role in ROLES, "node.role", f"one of {', '.join(ROLES)}")
    _require(len(node.name.encode()) <= TEXT_BYTES_MAX, "node.name", f"{TEXT_BYTES_MAX} bytes")
    _require(len(node.addresses) <= ADDRESSES_MAX, "node.addresses", f"at most {ADDRESSES_MAX}")
    texts = [*node.addresses, node.admin_address]
    short = all(len(text.encode()) <= TEXT_BYTES_MAX for text in texts)
    _require(short, "node.addresses", f"{TEXT_BYTES_MAX} bytes each")
    _require(len(request.targets) <= TARGETS_MAX, "targets", f"at most {TARGETS_MAX}")
    _require(request.number > 0, "number", "draw one first (DrawNumber)")


def _check_silent(request: mgmtd_pb2.HeartbeatRequest) -> None:
    _require(len(request.silent) <= PEERS_MAX, "silent", f"at most {PEERS_MAX}")
    lengths = (peer.silent_s for peer in request.silent)
    sane = all(0 <= silent_s <= SILENT_S_MAX for silent_s in lengths)  # false for NaN
    _require(sane, "silent.silent_s", f"0 to {SILENT_S_MAX:g} seconds")


def _require(condition: bool, field: str, detail: str) -> None:
    if not condition:
        raise BadRequest(Status.BAD_REQUEST, "mgmtd", f"{field}: {detail}")
