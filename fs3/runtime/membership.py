"""A server's side of the cluster manager: registration, heartbeats, leases, and the routing watch.

Order that safety stands on: routing before lease. Every acknowledgement names the routing version
under which it was given, and `on_lease` follows only after `on_routing` returned with that version
or a newer one. Otherwise a process that slept through its removal would answer from an old view
with a fresh lease.

A lease runs from the *send* time of the request that was acknowledged, for 0.8 T, on
CLOCK_BOOTTIME: network delay can only shorten it, and mgmtd acts a whole T after it took that
request.

Order of what one process says (proto/mgmtd.proto): a number is drawn for each registration, also
for a repeated one; registrations and heartbeats carry one sequence; a heartbeat names the newest
term heard of. So a message that arrives late does nothing, whatever became of its process.
"""

import logging
import threading
from collections.abc import Callable, Sequence

import grpc

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.errors import Denied, Fs3Error, OutcomeUnknown, Status
from fs3.limits import LEASE_SERVER_SHARE
from fs3.runtime.clock import Clock
from fs3.runtime.managers import RETRY_S, Managers, call_reason

__all__ = ["Membership", "RoutingWatcher"]

log = logging.getLogger(__name__)

Report = Callable[[], Sequence[mgmtd_pb2.LocalTarget]]
Silent = Callable[[], Sequence[mgmtd_pb2.SilentPeer]]
OnRouting = Callable[[common_pb2.RoutingInfo], None]
OnLease = Callable[[int], None]

RPC_TIMEOUT_S = 1.0  # at most; and a quarter of the lease, so that another manager can be asked
JOIN_S = 5.0
SILENCE_S = 3.0  # three beats of a manager (mgmtd/manager.py)
REGISTER_AGAIN = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
REFUSED = (
    grpc.StatusCode.PERMISSION_DENIED,  # superseded by a newer process, or another cluster
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)


class RoutingWatcher:
    """Delivers each newer routing info, from a thread of its own. Survives restarts of the manager,
    and moves to another one. `manager_address`: "host:port", several with commas.

    `on_routing` is called by one thread at a time, with versions that only grow. It must not call
    stop().
    """

    def __init__(
        self,
        manager_address: str,
        on_routing: OnRouting,
        *,
        clock: Clock,
        watcher: str = "client",
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._managers = Managers(manager_address, clock=clock, credentials=credentials)
        self._on_routing = on_routing
        self._clock = clock
        self._watcher = watcher
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._deliver = threading.Lock()  # held while on_routing runs
        self._version = 0
        self._after: Callable[[], None] | None = None
        self._call: grpc.Future[mgmtd_pb2.RoutingUpdate] | None = None
        self._heard_ns = 0
        self._thread = threading.Thread(target=self._run, name="fs3-routing-watch", daemon=True)
        self._listener = threading.Thread(
            target=self._watch_silence, name="fs3-routing-silence", daemon=True
        )

    def start(self, timeout_s: float = 10.0) -> None:
        """Returns once the first routing info was delivered, or raises OutcomeUnknown."""
        self.begin()
        if not self._clock.wait(self._first, timeout_s):
            self.stop()
            raise _unreachable(str(self._managers), timeout_s)

    def stop(self) -> None:
        """No delivery begins after it returned."""
        self._stopping.set()
        self.reconnect()
        self._managers.close()
        for thread in (self._thread, self._listener):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(JOIN_S)

    def begin(self, after: Callable[[], None] | None = None) -> None:
        """Starts without waiting; `after` is called each time after on_routing, in its thread."""
        self._after = after
        self._heard_ns = self._clock.monotonic_ns()
        self._thread.start()
        self._listener.start()

    def version(self) -> int:
        """Of the newest routing info that was delivered; 0 before the first."""
        return self._version

    def deliver(self, routing: common_pb2.RoutingInfo) -> None:
        """Passes it on if it is newer. Returns after on_routing did, in whichever thread."""
        with self._deliver:
            if routing.version > self._version and not self._stopping.is_set():
                self._on_routing(routing)
                self._version = routing.version
                self._first.set()
        if self._after is not None:
            self._after()

    def reconnect(self) -> None:
        """Gives up the present stream; the thread opens a new one, with another manager if there
        are several."""
        call = self._call
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        while not self._stopping.is_set():
            address = self._managers.address
            try:
                request = mgmtd_pb2.WatchRoutingRequest(
                    known_version=self._version, watcher=self._watcher
                )
                stream = self._managers.stub(address).WatchRouting(request)
                self._call = stream
                for update in stream:
                    self._heard_ns = self._clock.monotonic_ns()
                    if update.HasField("routing"):
                        self.deliver(update.routing)
            except grpc.RpcError as error:
                if not self._stopping.is_set():
                    self._managers.failed(address, error.code())
                    log.debug("routing stream ended: %s", call_reason(error))
            except Exception:
                if self._stopping.is_set():  # stop() closed the channel under the call
                    return
                log.exception("on_routing failed; the routing info is delivered again")
            self._clock.wait(self._stopping, RETRY_S)

    def _watch_silence(self) -> None:
        """A manager that stands still keeps its connections: the stream is open and silent."""
        while not self._clock.wait(self._stopping, SILENCE_S / 4):
            now_ns = self._clock.monotonic_ns()
            if now_ns - self._heard_ns >= SILENCE_S * 1e9:
                self._heard_ns = now_ns
                log.info("the cluster manager is silent; opening the stream again")
                self.reconnect()


class Membership:
    """One registered process. start(), then stop(); callbacks come from two threads named fs3-*.

    - `report()` gives every target the process holds; a missing one counts as closed. Called for
      the registration and each heartbeat.
    - `silent()` gives the servers that this one asks and that do not answer. Called for each
      heartbeat.
    - `on_routing(routing)`: versions only grow; one call at a time. When it returns, the process
      must have applied it: a target that may not serve any more has stopped.
    - `on_lease(until_ns)`: on CLOCK_BOOTTIME; the process answers for its targets until then.
    - `on_refused(reason)`: this process may not go on (a newer one has its node id, or another
      cluster). No lease comes any more; the process should end.
    """

    def __init__(
        self,
        manager_address: str,
        node: common_pb2.Node,
        *,
        cluster_id: bytes,
        clock: Clock,
        report: Report,
        on_routing: OnRouting,
        on_lease: OnLease,
        on_refused: Callable[[str], None] | None = None,
        silent: Silent = tuple,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if len(node.incarnation) != 16:
            raise ValueError("node.incarnation: 16 random bytes per process start")
        self._node = node
        self._cluster_id = cluster_id
        self._clock = clock
        self._report = report
        self._silent = silent
        self._on_lease = on_lease
        self._on_refused = on_refused
        self._managers = Managers(manager_address, clock=clock, credentials=credentials)
        self._routing = RoutingWatcher(
            manager_address, on_routing, clock=clock, watcher=node.name, credentials=credentials
        )
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._sequence = 0  # of the last registration or heartbeat
        self._epoch = 0  # the newest term heard of
        self._lease_s = 0.0
        self._heartbeat_s = 0.0
        self._timeout_s = RPC_TIMEOUT_S
        self._lease = threading.Lock()  # held while on_lease runs
        self._pending: tuple[int, int] | None = None  # routing version to apply first, until_ns
        self._behind_since_ns = 0  # heartbeats told of newer routing since then; 0: they do not
        self._thread = threading.Thread(target=self._run, name="fs3-heartbeat", daemon=True)

    @property
    def cluster_id(self) -> bytes:
        """16 bytes; known after start()."""
        return self._cluster_id

    @property
    def lease_s(self) -> float:
        """T, known after start()."""
        return self._lease_s

    def start(self, timeout_s: float = 30.0) -> None:
        """Registers, delivers the first routing and lease, then starts the threads.

        Raises OutcomeUnknown when the manager was not reached in time, Denied when it refuses.
        """
        until_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        while not self._stopping.is_set():
            try:
                self._register()
                break
            except grpc.RpcError as error:
                if error.code() in REFUSED:
                    raise Denied(Status.WRONG_CLUSTER, "membership", call_reason(error)) from None
                if self._clock.monotonic_ns() >= until_ns:
                    where = str(self._managers)
                    raise _unreachable(where, timeout_s, call_reason(error)) from None
                log.info("waiting for the cluster manager: %s", call_reason(error))
            self._clock.wait(self._stopping, RETRY_S)
        self._routing.begin(self._grant)
        self._thread.start()

    def nudge(self) -> None:
        """A heartbeat at once: something in the report changed. Any thread, never blocks."""
        self._wake.set()

    def stop(self) -> None:
        """Ends the threads. The lease runs out by itself, or a supervisor reports the exit."""
        self._stopping.set()
        self._wake.set()
        self._routing.stop()
        self._managers.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        pause_s = self._heartbeat_s
        while not self._stopping.is_set():
            self._clock.wait(self._wake, pause_s)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._heartbeat()
                pause_s = self._heartbeat_s
            except grpc.RpcError as error:
                pause_s = RETRY_S
                if not self._recover(error):
                    return
            except Exception:
                if self._stopping.is_set():  # stop() closed the channel under the call
                    return
                pause_s = RETRY_S
                log.exception("heartbeat failed in this process; the lease is not renewed")

    def _recover(self, error: grpc.RpcError) -> bool:
        """After a failed heartbeat; False when this process may not go on."""
        if self._stopping.is_set():
            return False
        try:
            if error.code() in REGISTER_AGAIN:
                log.warning("registering again: %s", call_reason(error))
                self._register()
                return True
        except grpc.RpcError as second:
            error = second
        if error.code() not in REFUSED:
            log.info("heartbeat was not acknowledged: %s", call_reason(error))
            return True
        log.error("the cluster manager refuses this process: %s", call_reason(error))
        if self._on_refused is not None:
            self._on_refused(call_reason(error))
        return False

    def _register(self) -> None:
        draw = mgmtd_pb2.DrawNumberRequest()
        drawn = self._managers.call(lambda stub: stub.DrawNumber(draw, timeout=self._timeout_s))
        self._sequence += 1
        sent_ns = self._clock.boottime_ns()
        request = mgmtd_pb2.RegisterRequest(
            cluster_id=self._cluster_id,
            node=self._node,
            targets=self._report(),
            epoch=drawn.epoch,
            number=drawn.number,
            sequence=self._sequence,
        )
        reply = self._managers.call(lambda stub: stub.Register(request, timeout=self._timeout_s))
        if self._cluster_id and reply.cluster_id != self._cluster_id:
            detail = f"manager of cluster {reply.cluster_id.hex()}, not {self._cluster_id.hex()}"
            raise Denied(Status.WRONG_CLUSTER, "membership", detail)
        self._cluster_id = reply.cluster_id
        self._heartbeat_s = reply.heartbeat_s
        self._epoch = reply.epoch
        self._routing.deliver(reply.routing)
        self._renew(sent_ns, reply.lease_s, reply.routing.version)

    def _heartbeat(self) -> None:
        self._sequence += 1
        targets = self._report()
        sent_ns = self._clock.boottime_ns()
        request = mgmtd_pb2.HeartbeatRequest(
            node_id=self._node.id,
            incarnation=self._node.incarnation,
            sequence=self._sequence,
            routing_version=self._routing.version(),
            targets=targets,
            epoch=self._epoch,
            silent=self._silent(),
        )
        reply = self._managers.call(lambda stub: stub.Heartbeat(request, timeout=self._timeout_s))
        if reply.epoch != self._epoch:
            log.info("term %d of the cluster manager follows term %d", reply.epoch, self._epoch)
            self._epoch = reply.epoch
            self.nudge()
            return
        self._renew(sent_ns, reply.lease_s, reply.routing_version)
        self._watch_the_watcher(reply.routing_version)

    def _renew(self, sent_ns: int, lease_s: float, routing_version: int) -> None:
        self._lease_s = lease_s
        self._timeout_s = min(RPC_TIMEOUT_S, lease_s / 4)
        with self._lease:
            until_ns = sent_ns + int(lease_s * LEASE_SERVER_SHARE * 1e9)
            self._pending = (routing_version, until_ns)
        self._grant()

    def _grant(self) -> None:
        """Passes the newest lease on, once the routing that it was given under is applied."""
        with self._lease:
            if self._pending is None or self._routing.version() < self._pending[0]:
                return
            until_ns = self._pending[1]
            self._pending = None
            self._on_lease(until_ns)

    def _watch_the_watcher(self, newest: int) -> None:
        """A stream can be half open and silent; heartbeats tell when it is. They may come in quick
        succession, so what counts is the time that the stream had to deliver."""
        now_ns = self._clock.monotonic_ns()
        if newest <= self._routing.version():
            self._behind_since_ns = 0
        elif not self._behind_since_ns:
            self._behind_since_ns = now_ns
        elif now_ns - self._behind_since_ns >= 2 * self._heartbeat_s * 1e9:
            self._behind_since_ns = 0
            log.info("routing info %d has not arrived; opening the stream again", newest)
            self._routing.reconnect()


def _reason(error: grpc.RpcError) -> str:
    return f"{error.code().name.lower()}: {error.details()}"


def _unreachable(address: str, timeout_s: float, last: str = "no routing info came") -> Fs3Error:
    detail = f"cluster manager {address} not reached in {timeout_s:g} s ({last}); is it running?"
    return OutcomeUnknown(Status.TIMED_OUT, "membership", detail)
