"""The control half of a storage server: membership around the native data path.

    mgmtd ──routing──> Membership ──> StorageServer.update_routing    chain versions, roles
          <─heartbeat─            <── StorageServer.target_reports    states, space
                                  <── StorageServer.silences          neighbours out of reach
          ──ack──────>            ──> StorageServer.renew_lease       0.8 T from the send time

The data path runs on its own native thread and needs nothing of this process's Python, except that
the lease is renewed: when this half stalls, the targets stop answering by themselves.
"""

import logging
import os
import pathlib
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.auth.keyring import Keyring
from fs3.errors import BadRequest, Status
from fs3.limits import MIB
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.config import StorageConfig
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.membership import Membership, RoutingWatcher
from fs3.runtime.process import run as run_process
from fs3.runtime.signals import StopSignal
from fs3.runtime.telemetry import with_histograms

__all__ = ["NativeServer", "StorageDaemon", "run"]

log = logging.getLogger(__name__)

MANAGER_TIMEOUT_S = 30.0


class NativeServer(Protocol):
    """fs3._native.StorageServer, as far as this half uses it."""

    @property
    def addresses(self) -> list[str]: ...
    @property
    def notify_fd(self) -> int: ...
    def update_routing(self, routing: bytes) -> None: ...
    def renew_lease(self, until_boottime_ns: int) -> None: ...
    def target_reports(self) -> list[dict[str, Any]]: ...
    def silences(self) -> list[dict[str, Any]]: ...
    def statistics(self) -> dict[str, Any]: ...
    def latency_bounds_s(self) -> list[float]: ...
    def take_warnings(self) -> list[str]: ...
    def close(self) -> None: ...


class StorageDaemon:
    """start(), then stop(). `cluster_id`: 16 bytes; the disk belongs to it for ever.

    `on_refused`: mgmtd will not have this process any more (a newer one has its node id); it should
    end.
    """

    def __init__(
        self,
        config: StorageConfig,
        *,
        cluster_id: bytes,
        keyring: Keyring,
        clock: Clock,
        entropy: Entropy,
        on_refused: Callable[[str], None] | None = None,
        server_factory: Callable[..., NativeServer] | None = None,
    ) -> None:
        self._config = config
        self._name = config.name or f"storage-{config.node_id}"
        self._incarnation = entropy.token(16)
        self._stopping = threading.Event()
        factory = server_factory or _native_server
        self._server = factory(
            directory=_directory(config),
            cluster_id=cluster_id,
            node_id=config.node_id,
            incarnation=self._incarnation,
            keyring=keyring.serialize(),
            addresses=list(config.listen),
            capacity_bytes=config.capacity_bytes,
            scrub_period_s=config.scrub_period_s,
            scrub_bytes_per_s=int(config.scrub_mib_s * MIB),
            resync_bytes_per_s=int(config.resync_mib_s * MIB),
        )
        self._stop_pipe = os.pipe2(os.O_CLOEXEC)
        self._membership = Membership(
            config.mgmtd,
            self.node(),
            cluster_id=cluster_id,
            clock=clock,
            report=self.report,
            on_routing=self._apply_routing,
            on_lease=self._server.renew_lease,
            on_refused=on_refused,
            silent=self.silent,
        )
        self._notifier = threading.Thread(target=self._relay, name="fs3-notify", daemon=True)

    @property
    def addresses(self) -> Sequence[str]:
        """Of the native RPC, with the real ports."""
        return self._server.addresses

    @property
    def grpc_address(self) -> str:
        """None: tools ask over the native RPC (fs3/storage/admin.py)."""
        return ""

    @property
    def incarnation(self) -> bytes:
        return self._incarnation

    def node(self) -> common_pb2.Node:
        """What this process says of itself at mgmtd."""
        return common_pb2.Node(
            id=self._config.node_id,
            role="storage",
            name=self._name,
            addresses=self._server.addresses,
            incarnation=self._incarnation,
        )

    def start(self) -> None:
        """Registers and begins to serve. Raises what Membership.start raises; stop() is due then
        too."""
        self._notifier.start()
        self._membership.start()
        log.info("%s serves at %s", self._name, ", ".join(self.addresses))

    def stop(self) -> None:
        """No further heartbeat; ends all calls; closes the disk. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        os.write(self._stop_pipe[1], b"x")
        self._membership.stop()
        if self._notifier.ident is not None:
            self._notifier.join()
        self._server.close()
        for descriptor in self._stop_pipe:
            os.close(descriptor)

    def report(self) -> list[mgmtd_pb2.LocalTarget]:
        """One entry per target on the disk, for registration and heartbeat."""
        return [mgmtd_pb2.LocalTarget(**fields) for fields in self._server.target_reports()]

    def silent(self) -> list[mgmtd_pb2.SilentPeer]:
        """Servers of common chains that do not answer, for each heartbeat."""
        return [mgmtd_pb2.SilentPeer(**fields) for fields in self._server.silences()]

    def statistics(self) -> Mapping[str, Any]:
        """Counts, bytes and latency histograms for /metrics."""
        return with_histograms(self._server.statistics(), self._server.latency_bounds_s())

    def health(self) -> tuple[bool, str]:
        """Bad when the disk of a target failed."""
        offline = [
            report["target_id"]
            for report in self._server.target_reports()
            if report["state"] == common_pb2.LOCAL_OFFLINE
        ]
        if offline:
            return False, f"targets {offline} are offline: their disk failed"
        return True, "all targets are online"

    def _apply_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self._server.update_routing(routing.SerializeToString())

    def _relay(self) -> None:
        """Passes on what the data path has to say: a heartbeat that is due, warnings for the
        log."""
        poll = select.poll()
        poll.register(self._server.notify_fd, select.POLLIN)
        poll.register(self._stop_pipe[0], select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            if self._stopping.is_set():
                return
            os.read(self._server.notify_fd, 8)
            for warning in self._server.take_warnings():
                log.warning("%s", warning)
            self._membership.nudge()


def run(config: StorageConfig) -> int:
    """`fs3 serve storage`: the exit status of the process."""
    clock = RealClock()

    def make(stop: StopSignal) -> StorageDaemon:
        if not config.keyring:
            raise BadRequest(
                Status.BAD_REQUEST, "storage", "keyring: the cluster's key file is needed"
            )
        cluster_id = config.cluster_id_bytes() or _cluster_id_of(config.mgmtd, clock)
        return StorageDaemon(
            config,
            cluster_id=cluster_id,
            keyring=Keyring.load(pathlib.Path(config.keyring)),
            clock=clock,
            entropy=SystemEntropy(),
            on_refused=stop.fail,
        )

    return run_process(config, "storage", make)


def _cluster_id_of(manager_address: str, clock: Clock) -> bytes:
    """Asks the manager, because an empty disk must know its cluster before it is written."""
    seen: list[bytes] = []
    watcher = RoutingWatcher(
        manager_address, lambda routing: seen.append(routing.cluster_id), clock=clock
    )
    watcher.start(MANAGER_TIMEOUT_S)
    watcher.stop()
    return seen[0]


def _directory(config: StorageConfig) -> str:
    if len(config.disks) > 1:
        raise BadRequest(
            Status.BAD_REQUEST,
            "storage",
            f"disks: {len(config.disks)} are named, one server has one disk; "
            "start one server per disk, each with its own --node-id",
        )
    return config.disks[0] if config.disks else config.data


def _native_server(**options: Any) -> NativeServer:
    # Imported when the first server is made: tools read this package without the native module.
    from fs3 import _native

    server: NativeServer = _native.StorageServer(**options)
    return server
