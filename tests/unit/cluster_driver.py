"""Drives the cluster state machine in tests: servers that report what a real one would report."""

from collections.abc import Iterable

from fs3.mgmtd.bootstrap import new_cluster
from fs3.mgmtd.cluster import (
    Effect,
    Event,
    Heartbeat,
    Moved,
    NodeExited,
    NodeRegistered,
    NumberDrawn,
    Refusal,
    Refused,
    RoutingChanged,
    Tick,
    apply,
)
from fs3.mgmtd.state import (
    LOCAL_OFFLINE,
    LOCAL_ONLINE,
    LOCAL_UPTODATE,
    ChainRecord,
    ClusterState,
    NodeIdentity,
    TargetReport,
)
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, ChainVersion, ClusterId, NodeId, TargetId

SECOND = 1_000_000_000
LEASE_S = 4.0


class Cluster:
    """A cluster under test: events in, state and effects out, rows executed counted in `rows`."""

    def __init__(
        self, nodes: int = 3, replicas: int = 3, chains: int = 1, lease_s: float = LEASE_S
    ) -> None:
        ids = [NodeId(number) for number in range(1, nodes + 1)]
        self.state: ClusterState = new_cluster(
            ClusterId(b"c" * 16), ids, replicas=replicas, chains=chains, lease_s=lease_s
        )
        self.now_ns = 0
        self.rows: list[str] = []
        self.effects: list[Effect] = []
        self._sequences: dict[int, int] = {}
        self.incarnations: dict[int, bytes] = {}
        self._starts = 0

    # ---- events

    def submit(self, event: Event) -> list[Effect]:
        self.state, self.effects = apply(self.state, event)
        self.rows += [effect.move.row.id for effect in self.effects if isinstance(effect, Moved)]
        return self.effects

    def start(self, *nodes: int, used_bytes: int = 0) -> None:
        """New processes register, with all their targets online."""
        for node in nodes:
            self._starts += 1
            self.incarnations[node] = self._starts.to_bytes(16, "big")
            self._sequences[node] = 0
            self.register(node, LOCAL_ONLINE, used_bytes=used_bytes)

    def register(self, node: int, local: int | None = None, used_bytes: int = 0) -> list[Effect]:
        """The present process of the node registers (again)."""
        reports = tuple(self.reports(node, local, used_bytes=used_bytes))
        return self.submit(self.registration(node, reports))

    def registration(
        self, node: int, reports: tuple[TargetReport, ...], incarnation: bytes = b""
    ) -> NodeRegistered:
        """What the process of the node is about to send, with a number that it drew for it."""
        self.submit(NumberDrawn())
        return NodeRegistered(
            NodeIdentity(NodeId(node), "storage", f"storage-{node}"),
            incarnation or self.incarnations[node],
            self.state.epoch,
            self.state.drawn,
            self._next(node),
            reports,
            self.now_ns,
        )

    def beat(
        self,
        *nodes: int,
        local: int | None = None,
        used_bytes: int = 0,
        stale: int = 0,
        missing: bool = False,
        silent: dict[int, float] | None = None,
    ) -> None:
        """Heartbeats. `local` None: what a healthy server says; `stale`: versions behind;
        `silent`: peer -> silent for, seconds."""
        for node in nodes:
            reports = self.reports(node, local, used_bytes=used_bytes, stale=stale)
            silences = {NodeId(peer): int(s * SECOND) for peer, s in (silent or {}).items()}
            self.submit(self.heartbeat(node, () if missing else tuple(reports), silences))

    def heartbeat(
        self,
        node: int,
        reports: tuple[TargetReport, ...],
        silent: dict[NodeId, int] | None = None,
    ) -> Heartbeat:
        """What the present process of the node is about to send."""
        return Heartbeat(
            NodeId(node),
            self.incarnations[node],
            self.state.epoch,
            self._next(node),
            reports,
            self.now_ns,
            silent or {},
        )

    def _next(self, node: int) -> int:
        self._sequences[node] = self._sequences.get(node, 0) + 1
        return self._sequences[node]

    def reports(
        self, node: int, local: int | None, used_bytes: int = 0, stale: int = 0
    ) -> Iterable[TargetReport]:
        for chain in self.state.chains.values():
            for target in chain.targets:
                if target.node == node:
                    serves = target.public in (Public.SERVING, Public.LASTSRV)
                    usual = LOCAL_UPTODATE if serves else LOCAL_ONLINE
                    yield TargetReport(
                        target.id,
                        usual if local is None else local,
                        chain.id,
                        ChainVersion(chain.version - stale),
                        used_bytes,
                    )

    def kill(self, node: int) -> list[Effect]:
        return self.submit(NodeExited(NodeId(node), self.incarnations[node], self.now_ns))

    def advance(self, seconds: float, beating: Iterable[int] = ()) -> None:
        """Time passes in ticks of 0.5 s; the named nodes go on with their heartbeats."""
        until_ns = self.now_ns + int(seconds * SECOND)
        while self.now_ns < until_ns:
            self.now_ns = min(until_ns, self.now_ns + SECOND // 2)
            self.beat(*beating)
            self.submit(Tick(self.now_ns))

    # ---- what to look at

    def chain(self, chain: int = 1) -> ChainRecord:
        return self.state.chains[ChainId(chain)]

    def public(self, node: int, chain: int = 1) -> Public:
        return next(t.public for t in self.chain(chain).targets if t.node == node)

    def publics(self, chain: int = 1) -> str:
        """The states of nodes 1, 2, ... as initials: "S L Y W O" (SYNCING is Y)."""
        letters = {
            Public.SERVING: "S",
            Public.LASTSRV: "L",
            Public.SYNCING: "Y",
            Public.WAITING: "W",
            Public.OFFLINE: "O",
        }
        targets = sorted(self.chain(chain).targets, key=lambda target: target.node)
        return "".join(letters[target.public] for target in targets)

    def target(self, node: int, chain: int = 1) -> TargetId:
        return next(t.id for t in self.chain(chain).targets if t.node == node)

    def refusal(self) -> Refusal | None:
        """Why the last event was refused."""
        return next((e.refusal for e in self.effects if isinstance(e, Refused)), None)

    def routing_changes(self) -> list[RoutingChanged]:
        return [effect for effect in self.effects if isinstance(effect, RoutingChanged)]


def serving(
    nodes: int = 3, chains: int = 1, replicas: int = 0, lease_s: float = LEASE_S
) -> Cluster:
    """A cluster whose chains all serve with every target, holding data."""
    cluster = Cluster(nodes, replicas or nodes, chains, lease_s)
    everybody = range(1, nodes + 1)
    cluster.start(*everybody)
    cluster.beat(*everybody, used_bytes=1)
    return cluster


__all__ = ["LEASE_S", "LOCAL_OFFLINE", "LOCAL_ONLINE", "LOCAL_UPTODATE", "Cluster", "serving"]
