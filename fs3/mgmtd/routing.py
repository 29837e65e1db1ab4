"""Routing info: the public view of the cluster state, and its delivery to watchers.

Invariant: a watcher gets versions that only grow. A slow one skips some: it gets the newest.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.mgmtd.state import ClusterState, NodeIdentity, NodeRecord, TargetReport
from fs3.types import ChainId, ChainVersion, NodeId, TargetId

__all__ = [
    "Board",
    "encode",
    "encode_node",
    "encode_status",
    "identity_of",
    "reports_of",
    "silent_of",
]


_LOCAL_STATES = frozenset(common_pb2.LocalTargetState.values())


def encode(state: ClusterState) -> common_pb2.RoutingInfo:
    return common_pb2.RoutingInfo(
        version=state.version,
        cluster_id=state.cluster_id,
        nodes=[encode_node(state.nodes[node_id]) for node_id in sorted(state.nodes)],
        chains=[
            common_pb2.Chain(
                id=chain.id,
                version=chain.version,
                targets=[
                    common_pb2.ChainTarget(
                        target_id=target.id, node_id=target.node, state=target.public.name
                    )
                    for target in chain.targets
                ],
            )
            for chain in state.chains.values()
        ],
        tables=[
            common_pb2.ChainTable(id=table.id, version=table.version, chains=table.chains)
            for table in state.tables
        ],
    )


def encode_node(node: NodeRecord) -> common_pb2.Node:
    return common_pb2.Node(
        id=node.identity.id,
        role=node.identity.role,
        name=node.identity.name,
        addresses=node.identity.addresses,
        admin_address=node.identity.admin_address,
        alive=node.alive,
        incarnation=node.incarnation,
    )


def encode_status(node: NodeRecord, now_ns: int) -> mgmtd_pb2.NodeStatus:
    return mgmtd_pb2.NodeStatus(
        node=encode_node(node),
        last_heartbeat_age_s=max(0, now_ns - node.last_seen_ns) / 1e9,
        targets=[
            mgmtd_pb2.LocalTarget(
                target_id=report.target,
                state=common_pb2.LocalTargetState.Name(report.local),
                chain_id=report.chain,
                chain_version=report.chain_version,
                capacity_bytes=report.capacity_bytes,
                used_bytes=report.used_bytes,
                free_bytes=report.free_bytes,
                damaged_chunks=report.damaged_chunks,
                repaired_chunks=report.repaired_chunks,
                scrub_passes=report.scrub_passes,
                scrub_age_s=report.scrub_age_s,
            )
            for report in node.reports.values()
        ],
    )


def identity_of(node: common_pb2.Node) -> NodeIdentity:
    return NodeIdentity(
        NodeId(node.id), node.role, node.name, tuple(node.addresses), node.admin_address
    )


def reports_of(targets: Iterable[mgmtd_pb2.LocalTarget]) -> tuple[TargetReport, ...]:
    return tuple(
        TargetReport(
            TargetId(target.target_id),
            int(target.state) if target.state in _LOCAL_STATES else 0,
            ChainId(target.chain_id),
            ChainVersion(target.chain_version),
            target.used_bytes,
            target.capacity_bytes,
            target.free_bytes,
            target.damaged_chunks,
            target.repaired_chunks,
            target.scrub_passes,
            target.scrub_age_s,
        )
        for target in targets
    )


def silent_of(peers: Iterable[mgmtd_pb2.SilentPeer]) -> Mapping[NodeId, int]:
    """Peer -> ns."""
    return {NodeId(peer.node_id): int(peer.silent_s * 1e9) for peer in peers}


class Board:
    """The newest routing info, and the threads that wait for a newer one. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: common_pb2.RoutingInfo | None = None
        self._closed = False
        self._watchers = 0
        self._beats = 0

    def publish(self, routing: common_pb2.RoutingInfo) -> None:
        """Takes ownership. An older or equal version is a bug of the caller."""
        with self._changed:
            if self._newest is not None and routing.version <= self._newest.version:
                raise AssertionError(f"routing {routing.version} after {self._newest.version}")
            self._newest = routing
            self._changed.notify_all()

    def newest(self) -> common_pb2.RoutingInfo:
        """Shared; not to be changed."""
        with self._changed:
            if self._newest is None:
                raise AssertionError("nothing was published yet")
            return self._newest

    def watch(
        self, gone: threading.Event, known_version: int = 0
    ) -> Iterator[common_pb2.RoutingInfo | None]:
        """Each one newer than known_version, and None at each beat() without one, until close() or
        `gone`; wake() after `gone`."""
        sent = known_version
        with self._changed:
            self._watchers += 1
            beats = self._beats
        try:
            while self._wait(sent, beats, gone):
                with self._changed:
                    newest, beats = self._newest, self._beats
                if newest is not None and newest.version > sent:
                    sent = newest.version
                    yield newest
                else:
                    yield None
        finally:
            with self._changed:
                self._watchers -= 1

    def beat(self) -> None:
        """Every watcher hears that this manager lives, and is still primary."""
        with self._changed:
            self._beats += 1
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every watch."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def watchers(self) -> int:
        with self._changed:
            return self._watchers

    def _wait(self, sent: int, beats: int, gone: threading.Event) -> bool:
        """For something to yield; False at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed or gone.is_set() or self._version() > sent or self._beats != beats
                )
            )
            return not (self._closed or gone.is_set())

    def _version(self) -> int:
        return -1 if self._newest is None else self._newest.version
