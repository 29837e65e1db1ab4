"""A real manager on loopback gRPC, and servers that only report, for tests of both sides."""

import threading
from collections.abc import Callable

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.kv.api import KeyValueStore
from fs3.kv.memory import MemoryStore
from fs3.limits import LEASE_S_DEFAULT
from fs3.mgmtd.daemon import MgmtdDaemon
from fs3.runtime.clock import Clock, ManualClock
from fs3.runtime.config import MgmtdConfig
from fs3.runtime.entropy import SeededEntropy
from fs3.runtime.membership import Membership

CLUSTER = b"c" * 16
LIMIT_S = 30.0


def wait_for(condition: Callable[[], object], what: str = "condition") -> None:
    """Returns when it is true; fails the test after LIMIT_S of real time."""
    pause = threading.Event()
    for _ in range(int(LIMIT_S / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError(f"{what} did not come true in {LIMIT_S:g} s")


class Manager:
    """One mgmtd process, in this one. Restartable on the same store and port."""

    def __init__(
        self,
        clock: Clock,
        nodes: tuple[int, ...] = (1, 2, 3),
        chains: int = 2,
        port: int = 0,
        lease_s: float = LEASE_S_DEFAULT,
    ) -> None:
        self.kv: KeyValueStore = MemoryStore()
        self._clock = clock
        self._nodes = nodes
        self._chains = chains
        self._lease_s = lease_s
        self._seed = 0
        self.address = f"127.0.0.1:{port}"
        self.daemon = self._make()

    def _make(self) -> MgmtdDaemon:
        self._seed += 1
        config = MgmtdConfig(
            data="memory",
            grpc=self.address,
            cluster_id=CLUSTER.hex(),
            storage_nodes=self._nodes,
            replicas=len(self._nodes),
            chains=self._chains,
            lease_s=self._lease_s,
        )
        entropy = SeededEntropy(self._seed)
        return MgmtdDaemon(config, self.kv, clock=self._clock, entropy=entropy)

    def start(self) -> "Manager":
        self.daemon.start()
        self.address = self.daemon.grpc_address
        return self

    def stop(self) -> None:
        assert isinstance(self.kv, MemoryStore)
        self.kv = self.kv.copy()
        self.daemon.stop()

    def restart(self) -> None:
        self.stop()
        self.daemon = self._make()
        self.start()


class Server:
    """A storage server without storage: it does what routing says, at once."""

    def __init__(self, manager: str, node: int, clock: Clock, incarnation: bytes = b"") -> None:
        self.node = node
        self.clock = clock
        self.routing: common_pb2.RoutingInfo | None = None
        self.versions: list[int] = []
        self.leases_ns: list[int] = []
        self.log: list[str] = []
        self.refused: list[str] = []
        self.failed: set[int] = set()  # targets whose disk failed
        self.up_to_date: set[int] = set()  # targets that say UPTODATE though they sync
        self.silent: dict[int, float] = {}  # peers that do not answer; for how long, s
        self.membership = Membership(
            manager,
            common_pb2.Node(
                id=node,
                role="storage",
                name=f"storage-{node}",
                addresses=[f"tcp://127.0.0.1:{node}"],
                incarnation=incarnation or bytes([node]) * 16,
            ),
            cluster_id=CLUSTER,
            clock=clock,
            report=self.report,
            on_routing=self._on_routing,
            on_lease=self._on_lease,
            on_refused=self.refused.append,
            silent=self._silent,
        )

    def report(self) -> list[mgmtd_pb2.LocalTarget]:
        routing = self.routing
        if routing is None:
            return []
        return [
            mgmtd_pb2.LocalTarget(
                target_id=target.target_id,
                state=self._local(target),
                chain_id=chain.id,
                chain_version=chain.version,
            )
            for chain in routing.chains
            for target in chain.targets
            if target.node_id == self.node
        ]

    def _silent(self) -> list[mgmtd_pb2.SilentPeer]:
        return [mgmtd_pb2.SilentPeer(node_id=n, silent_s=s) for n, s in self.silent.items()]

    def _local(self, target: common_pb2.ChainTarget) -> common_pb2.LocalTargetState:
        if target.target_id in self.failed:
            return common_pb2.LOCAL_OFFLINE
        full = target.state in (common_pb2.SERVING, common_pb2.LASTSRV)
        if full or target.target_id in self.up_to_date:
            return common_pb2.UPTODATE
        return common_pb2.ONLINE

    def _on_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self.routing = routing
        self.versions.append(routing.version)
        self.log.append("routing")
        self.membership.nudge()

    def _on_lease(self, until_ns: int) -> None:
        self.leases_ns.append(until_ns)
        self.log.append("lease")

    def states(self, chain: int = 0) -> list[int]:
        """Public states of the chain's targets, as this server sees them."""
        routing = self.routing
        return [] if routing is None else [t.state for t in routing.chains[chain].targets]


def settle(clock: ManualClock, seconds: float, until: Callable[[], object], what: str) -> None:
    """Virtual time passes in small steps, with real time for the threads, until it is true."""
    pause = threading.Event()
    for _ in range(int(LIMIT_S / 0.005)):
        if until():
            return
        clock.advance(seconds)
        pause.wait(0.005)
    raise AssertionError(f"{what} did not come true")
