"""The durable part of the cluster state in the KV. This text is the canon of its keys.

    MGMT/cluster            cluster id, longest lease, routing version, chain tables      (JSON,
    one record) MGMT/node/<id %010d>    one node: identity, incarnation, alive, retired
    incarnations MGMT/chain/<id %010d>   one chain: version, forming, targets in order MGMT/primary
    the lease of the primary and its fencing epoch (kv/election.py)

Each record carries `schema`; one of another schema is refused. Every write of the state compares
the epoch in MGMT/primary in the same transaction, so an old primary cannot change anything.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from fs3.errors import Damaged, Status
from fs3.kv.api import Transaction
from fs3.mgmtd.state import (
    ChainRecord,
    ChainTableRecord,
    ClusterState,
    NodeIdentity,
    NodeRecord,
    TargetRecord,
)
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, ChainVersion, ClusterId, NodeId, RoutingVersion, TargetId

__all__ = ["read_all", "read_cluster_id", "write_all", "write_changes"]

PREFIX = b"MGMT/"
CLUSTER_KEY = PREFIX + b"cluster"
NODE_PREFIX = PREFIX + b"node/"
CHAIN_PREFIX = PREFIX + b"chain/"
SCHEMA = 1


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: int = SCHEMA


R = TypeVar("R", bound=_Record)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    version: int
    chains: tuple[int, ...]


class _Cluster(_Record, frozen=True):
    cluster_id: str
    lease_longest_ns: int
    routing_version: int
    tables: tuple[_Table, ...]


class _Node(_Record, frozen=True):
    id: int
    role: str
    name: str
    addresses: tuple[str, ...]
    admin_address: str
    incarnation: str
    alive: bool
    retired: tuple[str, ...]


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    node: int
    state: int
    leaving: bool
    cut_from: int | None = None


class _Chain(_Record, frozen=True):
    id: int
    version: int
    forming: bool
    targets: tuple[_Target, ...]


def read_cluster_id(txn: Transaction) -> ClusterId | None:
    value = txn.get(CLUSTER_KEY)
    if value is None:
        return None
    return _cluster_id(_decode(_Cluster, CLUSTER_KEY, value))


def read_all(txn: Transaction) -> ClusterState | None:
    """The state as last written, with nothing in its memory-only parts; None: no cluster yet."""
    value = txn.get(CLUSTER_KEY)
    if value is None:
        return None
    cluster = _decode(_Cluster, CLUSTER_KEY, value)
    nodes = [_node(key, value) for key, value in _records(txn, NODE_PREFIX)]
    chains = [_chain(key, value) for key, value in _records(txn, CHAIN_PREFIX)]
    return ClusterState(
        cluster_id=_cluster_id(cluster),
        lease_ns=cluster.lease_longest_ns,
        lease_longest_ns=cluster.lease_longest_ns,
        version=RoutingVersion(cluster.routing_version),
        nodes={node.identity.id: node for node in nodes},
        chains={chain.id: chain for chain in chains},
        tables=tuple(
            ChainTableRecord(table.id, table.version, tuple(ChainId(i) for i in table.chains))
            for table in cluster.tables
        ),
    )


def write_all(txn: Transaction, state: ClusterState) -> None:
    write_changes(txn, state, state.nodes, state.chains)


def write_changes(
    txn: Transaction, state: ClusterState, nodes: Iterable[NodeId], chains: Iterable[ChainId]
) -> None:
    """The named records as they stand in `state`, and its routing version."""
    txn.set(CLUSTER_KEY, _encode_cluster(state))
    for node_id in nodes:
        txn.set(NODE_PREFIX + b"%010d" % node_id, _encode_node(state.nodes[node_id]))
    for chain_id in chains:
        txn.set(CHAIN_PREFIX + b"%010d" % chain_id, _encode_chain(state.chains[chain_id]))


def _records(txn: Transaction, prefix: bytes) -> list[tuple[bytes, bytes]]:
    return txn.get_range(prefix, prefix[:-1] + bytes([prefix[-1] + 1]))


def _encode_cluster(state: ClusterState) -> bytes:
    tables = tuple(_Table(table.id, table.version, table.chains) for table in state.tables)
    return msgspec.json.encode(
        _Cluster(
            cluster_id=state.cluster_id.hex(),
            lease_longest_ns=state.lease_longest_ns,
            routing_version=state.version,
            tables=tables,
        )
    )


def _encode_node(node: NodeRecord) -> bytes:
    return msgspec.json.encode(
        _Node(
            id=node.identity.id,
            role=node.identity.role,
            name=node.identity.name,
            addresses=node.identity.addresses,
            admin_address=node.identity.admin_address,
            incarnation=node.incarnation.hex(),
            alive=node.alive,
            retired=tuple(incarnation.hex() for incarnation in node.retired),
        )
    )


def _encode_chain(chain: ChainRecord) -> bytes:
    targets = tuple(
        _Target(target.id, target.node, target.public, target.leaving, target.cut_from)
        for target in chain.targets
    )
    return msgspec.json.encode(
        _Chain(id=chain.id, version=chain.version, forming=chain.forming, targets=targets)
    )


def _node(key: bytes, value: bytes) -> NodeRecord:
    record = _decode(_Node, key, value)
    return NodeRecord(
        identity=NodeIdentity(
            NodeId(record.id), record.role, record.name, record.addresses, record.admin_address
        ),
        incarnation=_unhex(key, "incarnation", record.incarnation),
        alive=record.alive,
        retired=tuple(_unhex(key, "retired", incarnation) for incarnation in record.retired),
    )


def _chain(key: bytes, value: bytes) -> ChainRecord:
    record = _decode(_Chain, key, value)
    targets = tuple(
        TargetRecord(
            TargetId(target.id),
            NodeId(target.node),
            _public(key, target.state),
            target.leaving,
            NodeId(target.cut_from) if target.cut_from else None,
        )
        for target in record.targets
    )
    return ChainRecord(ChainId(record.id), ChainVersion(record.version), targets, record.forming)


def _cluster_id(record: _Cluster) -> ClusterId:
    cluster_id = _unhex(CLUSTER_KEY, "cluster_id", record.cluster_id)
    if len(cluster_id) != 16:
        raise _damaged(CLUSTER_KEY, f"cluster_id: {len(cluster_id)} bytes, not 16")
    return ClusterId(cluster_id)


def _unhex(key: bytes, field: str, digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise _damaged(key, f"{field}: {digits[:40]!r} are no hex digits") from None


def _public(key: bytes, state: int) -> Public:
    try:
        return Public(state)
    except ValueError:
        raise _damaged(key, f"state: {state} is none of a target") from None


def _damaged(key: bytes, detail: str) -> Damaged:
    return Damaged(Status.CHECKSUM_MISMATCH, "mgmtd/store", f"{key!r}: {detail}")


def _decode(kind: type[R], key: bytes, value: bytes) -> R:
    try:
        record = msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(key, str(error)) from error
    if record.schema != SCHEMA:
        detail = f"schema {record.schema}, and this program knows {SCHEMA}; upgrade it"
        raise _damaged(key, detail)
    return record
