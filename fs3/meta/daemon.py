"""The process of the metadata service: everything real, plugged together."""

import errno
import logging
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import asdict
from typing import Any

import grpc

from fs3._proto import common_pb2, meta_service_pb2_grpc, mgmtd_pb2
from fs3.auth.capability import Minter
from fs3.auth.identity import Role
from fs3.auth.keyring import Keyring
from fs3.errors import BadRequest, Denied, Refused, Status
from fs3.kv.election import Fenced
from fs3.kv.engine import open_engine
from fs3.limits import GRPC_MESSAGE_BYTES_MAX
from fs3.meta.chunk_client import ChunkClient
from fs3.meta.gc import GarbageCollector
from fs3.meta.grpc_service import MetaServicer
from fs3.meta.identity import ANY_HOST, HostRule, IdentityPolicy
from fs3.meta.inspect import Inspector
from fs3.meta.jobs import ThreadJobs
from fs3.meta.layouts import LayoutPolicy
from fs3.meta.leadership import Leadership
from fs3.meta.peers import Peers
from fs3.meta.pulse import BEAT_S, Pulse
from fs3.meta.service import MetaService
from fs3.meta.space import ManagerSpace
from fs3.meta.store import MetaStore
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.config import MetaConfig
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.managers import Managers, call_reason
from fs3.runtime.membership import Membership
from fs3.runtime.process import run as run_process
from fs3.runtime.signals import StopSignal

__all__ = ["MetaDaemon", "run"]

log = logging.getLogger(__name__)

JOB_THREADS = 8  # truncates and lengths that wait for storage at the same time
GC_THREADS = 8  # files whose chunks are removed at the same time
GRPC_THREADS = 16
CHECK_THREADS = 1  # a check must not slow the service down: one page at a time
HOUSEKEEPING_S = 1.0
SPACE_S = 2.0
GC_PAUSE_S = 0.5
GC_PAGE_PAUSE_S = 0.02  # between two pages of rows that somebody holds
MANAGER_WAIT_S = 30.0
MANAGER_CALL_S = 2.0
STOP_S = 1.0

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),
)


class MetaDaemon:
    """start() recovers, listens, registers.

    On a store of its own (`config.data`) the lease of the membership decides nothing: it only tells
    others that this process is alive. On a shared one (`config.kv`) chunks are cut within the lease
    only, because another service takes over when it is over."""

    def __init__(
        self, config: MetaConfig, *, clock: Clock, entropy: Entropy, stop: StopSignal
    ) -> None:
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._stop_signal = stop
        self._incarnation = entropy.token(16)
        self._stopping = threading.Event()
        self._addresses: list[str] = []
        self._grpc_port = 0
        self._closers: list[Any] = []  # called in reverse order by stop()
        self._client: Any = None
        self._layouts = LayoutPolicy()
        self._peers = Peers(clock)
        self._pulse = Pulse(clock)
        self._threads: list[threading.Thread] = []

    @property
    def addresses(self) -> Sequence[str]:
        return self._addresses

    @property
    def grpc_address(self) -> str:
        return f"{self._config.grpc.rpartition(':')[0]}:{self._grpc_port}"

    @property
    def incarnation(self) -> bytes:
        return self._incarnation

    def start(self) -> None:
        """Serves when it returns. Raises Fs3Error when it cannot."""
        from fs3._native import NativeClient, RpcServer  # only a real process needs the extension

        config = self._config
        keyring = _keyring(config)
        owner = f"{config.name or 'meta'} incarnation {self._incarnation.hex()}"
        self._kv = open_engine(config.kv, config.data, owner=owner)
        self._closers.append(self._kv.close)
        managers = Managers(config.mgmtd, clock=self._clock)
        self._closers.append(managers.close)
        cluster_id = config.cluster_id_bytes() or _ask_cluster_id(managers)
        self._kv.claim(cluster_id)
        self._space = ManagerSpace(managers)

        self._server = RpcServer(
            name="meta",
            cluster_id=cluster_id,
            instance_id=self._incarnation,
            role=int(Role.META),
            node_id=config.node_id,
        )
        self._closers.append(self._server.stop)
        self._addresses = [self._server.listen(address) for address in config.listen]
        self._client = NativeClient(
            self._addresses,
            client_id=self._entropy.token(16),
            cluster_id=cluster_id,
            capability_key=keyring.serialize(),
        )
        if self._kv.shared:
            self._client.set_server_lease(0)  # until the manager has granted one
        self._open_store(keyring, cluster_id)
        self._listen_grpc()
        self._join_cluster(cluster_id)
        self._start_thread("housekeeping", self._keep_house)
        self._start_thread("gc", self._collect)
        if self._kv.shared:
            self._start_thread("pulse", self._beat)

    def stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._client is not None:
            self._client.shutdown()  # ends the calls to storage that jobs and gc wait in
        for thread in self._threads:
            thread.join()
        while self._closers:
            try:
                self._closers.pop()()
            except Exception:
                log.exception("while stopping")

    def statistics(self) -> Mapping[str, Any]:
        if not self._threads:
            return {}
        return {
            **self._store.statistics(),
            **{f"gc_{key}": value for key, value in asdict(self._gc.statistics()).items()},
            **{f"rpc_{key}": value for key, value in self._server.statistics().items()},
        }

    def health(self) -> tuple[bool, str]:
        if not self._layouts.routing.version:
            return False, "no routing info yet"
        return True, "serving"

    # -- parts -------------------------------------------------------------------------------------

    def _open_store(self, keyring: Keyring, cluster_id: bytes) -> None:
        chunks = ChunkClient(self._client)
        self._leadership = Leadership(self._kv, self._clock, holder=self._incarnation.hex())
        jobs = ThreadJobs(self._clock, threads=JOB_THREADS, name="meta-job")
        sync_jobs = ThreadJobs(self._clock, threads=1, name="meta-sync")
        self._store = MetaStore(
            self._kv,
            clock=self._clock,
            entropy=self._entropy,
            chunks=chunks,
            layouts=self._layouts,
            space=self._space,
            minter=Minter(keyring, cluster_id, self._clock),
            jobs=jobs,
            sync_jobs=sync_jobs,
            identity=_identity(self._config),
            owner=(os.getuid(), os.getgid()),
            service=self._incarnation,
            is_gone=self._peers.is_gone if self._kv.shared else lambda service: True,
            leadership=self._leadership,
            may_change=self._pulse.holds_lease if self._kv.shared else lambda: True,
        )
        pool = futures.ThreadPoolExecutor(GC_THREADS, thread_name_prefix="fs3-gc")
        self._gc = GarbageCollector(
            self._store,
            chunks,
            self._clock,
            delay_s=self._config.gc_delay_s,
            parallel=pool.map,
            guard=self._leadership.guard,
        )
        self._inspector = Inspector(
            self._store, keyring, cluster_id, clock=self._clock, entropy=self._entropy
        )
        check_jobs = ThreadJobs(self._clock, threads=CHECK_THREADS, name="meta-check")
        self._service = MetaService(
            self._server,
            self._store,
            on_failure=self._fail,
            inspector=self._inspector,
            jobs=check_jobs,
        )
        self._service.start()
        self._closers += [
            self._inspector.close,
            check_jobs.stop,
            lambda: pool.shutdown(cancel_futures=True),
            jobs.stop,
            sync_jobs.stop,
            self._service.stop,
        ]

    def _listen_grpc(self) -> None:
        pool = futures.ThreadPoolExecutor(GRPC_THREADS, thread_name_prefix="fs3-grpc")
        server = grpc.server(pool, options=SERVER_OPTIONS)
        meta_service_pb2_grpc.add_MetaServicer_to_server(MetaServicer(self._service), server)
        try:
            self._grpc_port = server.add_insecure_port(self._config.grpc)
        except RuntimeError:
            detail = f"cannot listen on {self._config.grpc}: in use? Name another with --grpc"
            raise Refused(errno.EADDRINUSE, "meta", detail) from None
        server.start()
        self._closers.append(lambda: server.stop(STOP_S).wait())

    def _join_cluster(self, cluster_id: bytes) -> None:
        config = self._config
        node = common_pb2.Node(
            id=config.node_id,
            role="meta",
            name=config.name or f"meta-{config.node_id}",
            addresses=self._addresses,
            admin_address=self.grpc_address,
            incarnation=self._incarnation,
        )
        membership = Membership(
            config.mgmtd,
            node,
            cluster_id=cluster_id,
            clock=self._clock,
            report=tuple,
            on_routing=self._take_routing,
            on_lease=self._take_lease if self._kv.shared else lambda until_ns: None,
            on_refused=self._fail,
        )
        membership.start(MANAGER_WAIT_S)
        self._closers.append(membership.stop)

    def _take_lease(self, until_ns: int) -> None:
        if self._pulse.take_lease(until_ns):
            self._client.set_server_lease(until_ns)

    def _beat(self) -> None:
        while not self._clock.wait(self._stopping, BEAT_S):
            if not self._pulse.beat():
                self._fail("this process slept; what its clients asked before may be done by now")
                return

    def _take_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self._layouts.set_routing(routing)
        self._peers.set_routing(routing)
        self._client.update_routing(routing.SerializeToString())

    def _keep_house(self) -> None:
        """Sync of the KV bounds what a power loss takes; the other clocks of the store turn as
        well."""
        space_due_ns = 0
        pause_s = min(HOUSEKEEPING_S, self._config.sync_interval_s)
        while not self._clock.wait(self._stopping, pause_s):
            try:
                self._leadership.tick()
                self._store.tick()
                self._inspector.expire()
                self._kv.sync()
            except OSError as error:
                if not self._goes_on(error):
                    return
            if self._clock.monotonic_ns() >= space_due_ns:
                self._space.refresh()
                space_due_ns = self._clock.monotonic_ns() + int(SPACE_S * 1e9)

    def _collect(self) -> None:
        term = 0
        while not self._stopping.is_set():
            removed = 0
            try:
                if self._leadership.leads:
                    if term != self._leadership.term:
                        term = self._leadership.term
                        self._gc.begin_term()
                    removed = self._gc.step()
            except Fenced:
                log.debug("another service collects garbage now")
            except OSError as error:
                if not self._goes_on(error):
                    return
            if not removed:
                pause_s = GC_PAUSE_S if self._gc.at_end else GC_PAGE_PAUSE_S
                self._clock.wait(self._stopping, pause_s)

    def _goes_on(self, error: OSError) -> bool:
        """After the store failed: a shared one may answer the next time."""
        if not self._kv.shared:
            self._fail(str(error))
            return False
        log.warning("the store did not answer; going on: %s", error)
        return True

    def _start_thread(self, name: str, target: Any) -> None:
        thread = threading.Thread(target=target, name=f"fs3-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fail(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._stop_signal.fail(reason)


def _ask_cluster_id(managers: Managers) -> bytes:
    """From the manager, which may start at the same time as this process."""
    try:
        status = managers.ask(
            lambda stub: stub.Status(mgmtd_pb2.StatusRequest(), timeout=MANAGER_CALL_S),
            timeout_s=MANAGER_WAIT_S,
            what="meta",
        )
    except grpc.RpcError as error:
        detail = f"the cluster manager at {managers} refuses: {call_reason(error)}"
        raise Denied(Status.WRONG_CLUSTER, "meta", detail) from None
    cluster_id: bytes = status.routing.cluster_id
    return cluster_id


def _keyring(config: MetaConfig) -> Keyring:
    if not config.keyring:
        detail = "keyring: the metadata service signs capabilities; name the file with --keyring"
        raise BadRequest(Status.BAD_REQUEST, "meta", detail)
    return Keyring.load(pathlib.Path(config.keyring))


def run(config: MetaConfig) -> int:
    """`fs3 serve meta`: the exit status of the process."""

    def make(stop: StopSignal) -> MetaDaemon:
        return MetaDaemon(config, clock=RealClock(), entropy=SystemEntropy(), stop=stop)

    return run_process(config, "meta", make)


def _identity(config: MetaConfig) -> IdentityPolicy:
    hosts = tuple(HostRule.parse(rule) for rule in config.hosts) or ANY_HOST
    return IdentityPolicy(service_uid=os.getuid(), hosts=hosts)
