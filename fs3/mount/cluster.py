"""Finding the cluster that is to be mounted: the manager's stream of routing info."""

from collections.abc import Callable

from fs3._proto import common_pb2
from fs3.errors import Status, error_for
from fs3.runtime.clock import Clock
from fs3.runtime.membership import RoutingWatcher

__all__ = ["ClusterWatch", "check_cluster"]

FIRST_ROUTING_S = 60.0  # `fs3 up` starts everything at once: the manager may be a moment away
META_POLL_S = 0.05


class ClusterWatch:
    """The newest routing info, from start() to stop()."""

    def __init__(
        self,
        mgmtd: str,
        *,
        clock: Clock,
        cluster_id: str = "",
        on_routing: Callable[[common_pb2.RoutingInfo], None] = lambda routing: None,
    ) -> None:
        """`mgmtd`: gRPC address. `cluster_id`: hex; a manager of another cluster is refused.
        `on_routing` hears of every newer one, in a thread of its own."""
        self.routing = common_pb2.RoutingInfo()
        self._clock = clock
        self._cluster_id = cluster_id
        self._on_routing = on_routing
        self._watcher = RoutingWatcher(mgmtd, self._take, clock=clock, watcher="mount")

    def start(self) -> list[str]:
        """Addresses of the metadata services, which may register a moment later than the manager.
        Raises OutcomeUnknown when the manager or they cannot be reached, and OSError when the
        manager is of another cluster."""
        self._watcher.start(FIRST_ROUTING_S)
        try:
            check_cluster(self._cluster_id, self.routing)
        except OSError:
            self.stop()
            raise
        until_ns = self._clock.monotonic_ns() + int(FIRST_ROUTING_S * 1e9)
        while not (addresses := self._meta_addresses()):
            if self._clock.monotonic_ns() >= until_ns:
                self.stop()
                raise error_for(
                    Status.TIMED_OUT,
                    "mount",
                    f"no metadata service has registered in {FIRST_ROUTING_S:g} s; is it running?",
                )
            self._clock.sleep(META_POLL_S)
        return addresses

    def stop(self) -> None:
        self._watcher.stop()

    def _take(self, routing: common_pb2.RoutingInfo) -> None:
        self.routing = routing
        self._on_routing(routing)

    def _meta_addresses(self) -> list[str]:
        nodes = self.routing.nodes
        return [address for node in nodes if node.role == "meta" for address in node.addresses]


def check_cluster(wanted: str, routing: common_pb2.RoutingInfo) -> None:
    """Raises OSError when the manager that answered serves another cluster. An empty id: any."""
    if wanted and routing.cluster_id.hex() != wanted.lower():
        raise error_for(
            Status.WRONG_CLUSTER,
            "mount",
            f"the manager that answers there is of cluster {routing.cluster_id.hex()}, not "
            f"{wanted}; does something else use its port?",
        )
