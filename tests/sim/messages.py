"""What travels between the processes of the simulation; the fields of proto/, as plain values."""

from dataclasses import dataclass

from fs3.mgmtd.state import ClusterState, NodeIdentity, TargetReport
from fs3.types import NodeId, TargetId
from tests.sim.disk import ChunkKey, Identity, Position, Row

__all__ = [
    "Ask",
    "DrawNumber",
    "Exit",
    "Fetch",
    "Forwarded",
    "GetRouting",
    "Heartbeat",
    "Leave",
    "MetaCall",
    "PushRouting",
    "QueryLast",
    "ReadRequest",
    "Register",
    "TellDone",
    "UpdateRequest",
]


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    target: int
    chunk: ChunkKey
    kind: int
    offset: int
    length: int
    data: bytes
    chain_version: int
    identity: Identity
    expires_ns: int  # of the capability that it carries


@dataclass(frozen=True, slots=True)
class ReadRequest:
    target: int
    chunk: ChunkKey
    chain_version: int


@dataclass(frozen=True, slots=True)
class Forwarded:
    target: int
    from_target: int
    chunk: ChunkKey
    kind: int
    version: int
    offset: int
    length: int
    chunk_size: int
    checksum: int
    chain_version: int
    update_chain: int
    identity: Identity
    resync: bool
    lost: bool
    data: bytes  # of what is lost for the checks only


@dataclass(frozen=True, slots=True)
class Ask:
    target: int
    from_target: int
    chain_version: int
    after: ChunkKey | None
    dedup: tuple[Row, ...]
    removed: dict[ChunkKey, Position]  # for the checks only


@dataclass(frozen=True, slots=True)
class TellDone:
    target: int
    from_target: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class Fetch:
    target: int
    from_target: int
    chunk: ChunkKey
    chain_version: int
    settled: bool


@dataclass(frozen=True, slots=True)
class DrawNumber:
    """Of a registration."""


@dataclass(frozen=True, slots=True)
class Register:
    identity: NodeIdentity
    incarnation: bytes
    epoch: int
    number: int
    sequence: int
    reports: tuple[TargetReport, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    node: NodeId
    incarnation: bytes
    epoch: int
    sequence: int
    reports: tuple[TargetReport, ...]
    silent: dict[NodeId, int]


@dataclass(frozen=True, slots=True)
class Exit:
    node: NodeId
    incarnation: bytes


@dataclass(frozen=True, slots=True)
class QueryLast:
    """The highest chunk of an inode on a chain."""

    target: int
    inode: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class MetaCall:
    """A frame to the metadata service: method and protobuf body, as in proto/meta.proto."""

    method: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """An operator wants a target out of its chain, or back in."""

    target: TargetId
    leaving: bool


@dataclass(frozen=True, slots=True)
class GetRouting:
    pass


@dataclass(frozen=True, slots=True)
class PushRouting:
    routing: ClusterState
