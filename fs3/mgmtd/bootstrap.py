"""The first state of a cluster."""

from collections.abc import Sequence

from fs3.errors import Denied, Status
from fs3.kv.api import KeyValueStore, Transaction, transact
from fs3.limits import LEASE_S_DEFAULT
from fs3.mgmtd import placement, store
from fs3.mgmtd.state import ChainRecord, ChainTableRecord, ClusterState, TargetRecord
from fs3.mgmtd.transitions import Public
from fs3.types import (
    ChainId,
    ChainVersion,
    ClusterId,
    NodeId,
    RoutingVersion,
    TargetId,
    target_node,
)

__all__ = ["FIRST_TABLE", "initialise", "new_cluster"]

FIRST_TABLE = 1


def new_cluster(
    cluster_id: ClusterId,
    nodes: Sequence[NodeId],
    *,
    replicas: int,
    chains: int = 0,
    disks_per_node: int = 1,
    lease_s: float = LEASE_S_DEFAULT,
) -> ClusterState:
    """Chains 1..n in table 1, version 1, all targets OFFLINE until each disk was seen empty.

    `chains` = 0: two per server. Raises BadRequest when there are fewer servers than replicas.
    """
    count = chains or placement.default_chains(len(nodes), replicas)
    placed = placement.place(nodes, disks_per_node, replicas, count)
    records = {
        ChainId(number): _forming(ChainId(number), targets)
        for number, targets in enumerate(placed, start=1)
    }
    return ClusterState(
        cluster_id=cluster_id,
        lease_ns=int(lease_s * 1e9),
        lease_longest_ns=int(lease_s * 1e9),
        version=RoutingVersion(1),
        nodes={},
        chains=records,
        tables=(ChainTableRecord(FIRST_TABLE, 1, tuple(records)),),
    )


def initialise(
    kv: KeyValueStore,
    *,
    cluster_id: bytes,
    storage_nodes: Sequence[int],
    replicas: int,
    chains: int = 0,
    disks_per_node: int = 1,
    lease_s: float = LEASE_S_DEFAULT,
) -> bool:
    """Writes the first state; False when the store holds this cluster already.

    Raises Denied when it holds another cluster, BadRequest when the shape is impossible.
    """

    def write_first(txn: Transaction) -> bool:
        held = store.read_cluster_id(txn)
        if held is not None and held != cluster_id:
            detail = f"the store holds cluster {held.hex()}, not {cluster_id.hex()}"
            raise Denied(Status.WRONG_CLUSTER, "mgmtd", detail)
        if held is not None:
            return False
        state = new_cluster(
            ClusterId(cluster_id),
            [NodeId(node) for node in storage_nodes],
            replicas=replicas,
            chains=chains,
            disks_per_node=disks_per_node,
            lease_s=lease_s,
        )
        store.write_all(txn, state)
        return True

    return transact(kv, write_first)


def _forming(chain: ChainId, targets: Sequence[TargetId]) -> ChainRecord:
    members = tuple(TargetRecord(target, target_node(target), Public.OFFLINE) for target in targets)
    return ChainRecord(chain, ChainVersion(1), members, forming=True)
