"""The process of the cluster manager: store, terms as primary, gRPC server, two threads."""

import errno
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import asdict
from typing import Any

import grpc

from fs3._proto import mgmtd_pb2_grpc
from fs3.auth.access import AccessInterceptor, plaintext
from fs3.errors import BadRequest, Fs3Error, Refused, RetryElsewhere, Status
from fs3.kv.api import KeyValueStore, transact
from fs3.kv.election import MANAGER_KEY, Election
from fs3.kv.engine import open_engine
from fs3.limits import GRPC_MESSAGE_BYTES_MAX
from fs3.mgmtd import bootstrap, store
from fs3.mgmtd.manager import Manager, not_primary
from fs3.mgmtd.service import ACCESS, WATCHERS_MAX, MgmtdServicer
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.config import MgmtdConfig
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.process import run as run_process
from fs3.runtime.signals import StopSignal

__all__ = ["MgmtdDaemon", "run"]

log = logging.getLogger(__name__)

TICK_S = 0.1
WORKERS = 64  # for calls that end; watchers have threads of their own
PRIMARY_LEASE_SHARE = 0.4  # of T: a new primary within 0.5 T
STOP_S = 1.0

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # two managers on one port would share the clients
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class MgmtdDaemon:
    """Serves when start() returns: as primary, or as a standby that tells so and stands for
    election for as long as it lives. Fenced, it is a standby again.

    On a store of its own (an embedded engine) it is primary at once, and ends when it cannot go on.
    """

    def __init__(
        self,
        config: MgmtdConfig,
        kv: KeyValueStore,
        *,
        clock: Clock,
        entropy: Entropy,
        stop: StopSignal | None = None,
    ) -> None:
        self._config = config
        self._kv = kv
        self._clock = clock
        self._entropy = entropy
        self._stop_signal = stop
        self._incarnation = entropy.token(16)
        self._manager: Manager | None = None  # of the present term
        self._primary = ""  # address of another process's term
        self._stopping = threading.Event()
        self._server: grpc.Server | None = None
        self._port = 0
        self._threads = [
            threading.Thread(target=self._serve_forever, name="fs3-tick", daemon=True),
            threading.Thread(target=self._renew_forever, name="fs3-primary", daemon=True),
        ]

    @property
    def addresses(self) -> Sequence[str]:
        """No native RPC: the gRPC address stands here, for whoever prints it."""
        return [self.grpc_address]

    @property
    def grpc_address(self) -> str:
        """ "host:port" with the real port; known after start()."""
        return f"{self._config.grpc.rpartition(':')[0]}:{self._port}"

    @property
    def incarnation(self) -> bytes:
        return self._incarnation

    @property
    def manager(self) -> Manager:
        """Of the present term. Raises RetryElsewhere while this is a standby."""
        manager = self._manager
        if manager is None:
            raise not_primary(self._primary)
        return manager

    def start(self) -> None:
        """Serves when it returns. Raises BadRequest or Denied when there is no such cluster."""
        self._initialise()
        self._listen()
        self._election = self._stand()
        self._try_term()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        manager = self._manager
        if manager is not None:
            manager.close()
        if self._server is not None:
            self._server.stop(STOP_S).wait()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._kv.close()

    def statistics(self) -> Mapping[str, Any]:
        manager = self._manager
        return asdict(manager.statistics()) if manager is not None else {"epoch": 0}

    def health(self) -> tuple[bool, str]:
        manager = self._manager
        if manager is None:
            return True, f"stands by; the primary is {self._primary or 'not known'}"
        return manager.health()

    # -- terms -------------------------------------------------------------------------------------

    def _stand(self) -> Election:
        return Election(
            self._kv,
            self._clock,
            key=MANAGER_KEY,
            holder=self._incarnation.hex(),
            lease_s=self._config.lease_s * PRIMARY_LEASE_SHARE,
            exclusive=not self._kv.shared,
            address=self.grpc_address,
        )

    def _try_term(self) -> None:
        """Becomes primary when nobody is. What it publishes was read after it had been elected."""
        if not self._election.try_take():
            self._primary = self._election.primary
            return
        manager = Manager(
            self._kv,
            self._clock,
            self._election,
            lease_s=self._config.lease_s,
            on_ended=self._end_term,
        )
        state = manager.begin()
        self._manager = manager
        log.info("cluster %s, routing version %d", state.cluster_id.hex(), state.version)

    def _end_term(self) -> None:
        """From inside the manager of the term, which answers nobody any more."""
        self._manager = None
        if not self._kv.shared:
            self._fail("the store failed, or another process became primary")

    def _serve_forever(self) -> None:
        while not self._clock.wait(self._stopping, TICK_S):
            try:
                manager = self._manager
                if manager is not None:
                    manager.tick()
                    continue
                if self._election.epoch:
                    self._election = self._stand()  # the term is over
                self._try_term()
            except RetryElsewhere as error:
                log.debug("the term ended: %s", error)
            except Fs3Error as error:
                if not self._kv.shared:
                    self._fail(str(error))
                    return
                log.warning("the store did not answer; going on: %s", error)

    def _renew_forever(self) -> None:
        pause_s = self._config.lease_s * PRIMARY_LEASE_SHARE / 4
        while not self._clock.wait(self._stopping, pause_s):
            manager = self._manager
            if manager is None:
                continue
            try:
                manager.renew()
            except Fs3Error as error:
                log.warning("the primary's lease was not renewed: %s", error)

    # -- parts -------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        config = self._config
        held = transact(self._kv, store.read_cluster_id)
        wanted = config.cluster_id_bytes()
        if held is None and not config.storage_nodes:
            detail = (
                f"{config.data or 'the database'} holds no cluster; make one with `fs3 cluster "
                "init`, or name the storage servers of a new one: --storage-nodes 1,2,3"
            )
            raise BadRequest(Status.BAD_REQUEST, "mgmtd", detail)
        made = bootstrap.initialise(
            self._kv,
            cluster_id=wanted or held or self._entropy.token(16),
            storage_nodes=config.storage_nodes,
            replicas=config.replicas,
            chains=config.chains,
            disks_per_node=config.disks_per_node,
            lease_s=config.lease_s,
        )
        self._kv.claim(transact(self._kv, store.read_cluster_id) or b"")
        if made:
            log.info("new cluster with %d storage servers", len(config.storage_nodes))

    def _listen(self) -> None:
        pool = futures.ThreadPoolExecutor(WORKERS + WATCHERS_MAX, thread_name_prefix="fs3-grpc")
        authenticate = plaintext(beyond_this_host=self._config.insecure_network)
        access = AccessInterceptor(ACCESS, authenticate)
        self._server = grpc.server(pool, interceptors=[access], options=SERVER_OPTIONS)
        servicer = MgmtdServicer(
            lambda: self.manager, self._clock, heartbeat_s=self._config.heartbeat_s
        )
        mgmtd_pb2_grpc.add_MgmtdServicer_to_server(servicer, self._server)
        try:
            self._port = self._server.add_insecure_port(self._config.grpc)
        except RuntimeError:
            detail = f"cannot listen on {self._config.grpc}: in use? Name another with --grpc"
            raise Refused(errno.EADDRINUSE, "mgmtd", detail) from None
        self._server.start()
        if self._config.insecure_network:
            log.warning(
                "--insecure-network: whoever reaches %s can change this cluster", self._port
            )

    def _fail(self, reason: str) -> None:
        if self._stop_signal is not None and not self._stopping.is_set():
            self._stop_signal.fail(reason)


def run(config: MgmtdConfig) -> int:
    """`fs3 serve mgmtd`: the exit status of the process."""
    entropy = SystemEntropy()

    def make(stop: StopSignal) -> MgmtdDaemon:
        kv = open_engine(config.kv, config.data, owner=config.name or "mgmtd")
        return MgmtdDaemon(config, kv, clock=RealClock(), entropy=entropy, stop=stop)

    return run_process(config, "mgmtd", make)
