"""What became of the other metadata services, as the manager tells it: for whoever takes over."""

import threading

from fs3._proto import common_pb2
from fs3.auth.capability import EXPIRY_SLACK_MS
from fs3.runtime.clock import Clock

__all__ = ["Peers"]

# A service sends nothing after its lease, which is over before the manager declares it dead; what
# it sent carries a capability that ends with the lease, and storage grants that much more.
DRAIN_S = EXPIRY_SLACK_MS / 1000 + 5.0


class Peers:
    """Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known = False
        self._alive: frozenset[bytes] = frozenset()
        self._missed_since_ns: dict[bytes, int] = {}  # of services that somebody asked for

    def set_routing(self, routing: common_pb2.RoutingInfo) -> None:
        with self._lock:
            self._known = True
            self._alive = frozenset(
                node.incarnation for node in routing.nodes if node.role == "meta" and node.alive
            )
            for incarnation in self._alive:
                self._missed_since_ns.pop(incarnation, None)

    def is_gone(self, incarnation: bytes) -> bool:
        """True when nothing can come of that service any more. Asked again and again: the time
        counts from the first question that found it dead."""
        with self._lock:
            if not self._known or incarnation in self._alive:
                return False
            now_ns = self._clock.monotonic_ns()
            since_ns = self._missed_since_ns.setdefault(incarnation, now_ns)
            return now_ns - since_ns >= DRAIN_S * 1e9
