"""The life of a daemon process: logs, start, metrics, readiness, signals, stop."""

import faulthandler
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fs3.errors import Fs3Error
from fs3.runtime import ready
from fs3.runtime.config import DaemonConfig
from fs3.runtime.signals import StopSignal
from fs3.runtime.telemetry import MetricsServer, StatisticsCollector, setup_logging

__all__ = ["Daemon", "run"]

log = logging.getLogger(__name__)


class Daemon(Protocol):
    """What the process needs of a service. start() returns when it serves; stop() is idempotent."""

    def start(self) -> None: ...
    def stop(self) -> None: ...

    @property
    def addresses(self) -> Sequence[str]:
        """Native RPC, with the real ports."""

    @property
    def grpc_address(self) -> str: ...

    @property
    def incarnation(self) -> bytes: ...
    def statistics(self) -> Mapping[str, Any]: ...
    def health(self) -> tuple[bool, str]: ...


def run(config: DaemonConfig, role: str, make: Callable[[StopSignal], Daemon]) -> int:
    """Returns the exit status: 0 after a signal, 1 when it could not start or may not go on.

    `make` gets the StopSignal, so that a service which may not go on can call fail(reason).
    """
    name = config.name or f"{role}-{config.node_id}"
    setup_logging(name, as_json=config.log_format == "json", level=config.log_level)
    faulthandler.enable()
    daemons: list[Daemon] = []
    stop = StopSignal(lambda: daemons[0].statistics() if daemons else {})
    metrics: MetricsServer | None = None
    try:
        daemon = make(stop)
        daemons.append(daemon)
        daemon.start()
        if config.metrics_port >= 0:
            collector = StatisticsCollector(role, daemon.statistics, {"process": name})
            metrics = MetricsServer(config.metrics_port, collector, daemon.health)
            metrics.start()
        ready.notify(
            config.ready_fd,
            addresses=daemon.addresses,
            grpc=daemon.grpc_address,
            metrics=metrics.address if metrics is not None else "",
            incarnation=daemon.incarnation,
            node_id=config.node_id,
        )
        stop.wait()
    except (Fs3Error, OSError) as error:
        log.error("cannot go on: %s", error)
        log.debug("because of", exc_info=True)
        stop.fail(str(error))
    finally:
        if metrics is not None:
            metrics.stop()
        for daemon in daemons:
            daemon.stop()
    log.info("stopped%s", f": {stop.failure}" if stop.failure else "")
    return 1 if stop.failure else 0
