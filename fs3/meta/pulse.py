"""May this service change the name space now? Where several share a store: within the lease that
the cluster manager grants, and never again after it has slept for long.

A service that is stopped (SIGSTOP, a frozen machine) keeps in its sockets what clients had asked.
They ask another service meanwhile, which records its replies for as long as GENERATION_S says; who
runs such a request after the record is gone applies it twice. So a request that changes something
is run within the lease only, and a process that slept for longer than SLEPT_S does not take a lease
any more: it ends, and with it what is in its sockets.
"""

import threading

from fs3.runtime.clock import Clock

__all__ = ["BEAT_S", "SLEPT_S", "Pulse"]

BEAT_S = 1.0
SLEPT_S = 20.0  # far below the 120 s that a reply is remembered


class Pulse:
    """Thread-safe. beat() about every BEAT_S, from a thread that does nothing else."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_ns = clock.boottime_ns()
        self._until_ns = 0
        self._slept = False

    def beat(self) -> bool:
        """False when the process has slept: it must end."""
        with self._lock:
            self._feel()
            self._beat_ns = self._clock.boottime_ns()
            return not self._slept

    def take_lease(self, until_boottime_ns: int) -> bool:
        """False, and there is no lease, when the process has slept."""
        with self._lock:
            self._feel()
            self._until_ns = 0 if self._slept else until_boottime_ns
            return not self._slept

    def holds_lease(self) -> bool:
        return self._clock.boottime_ns() < self._until_ns

    def _feel(self) -> None:
        silence_ns = self._clock.boottime_ns() - self._beat_ns
        self._slept = self._slept or silence_ns > SLEPT_S * 1e9
