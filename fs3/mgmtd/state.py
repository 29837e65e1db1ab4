"""Records of the cluster: frozen values, replaced and never changed.

Durable parts (nodes' identity, chains, tables) go to the KV; what comes from heartbeats lives in
memory only and is learnt again after a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, ChainVersion, ClusterId, NodeId, RoutingVersion, TargetId

__all__ = [
    "ChainRecord",
    "ChainTableRecord",
    "ClusterState",
    "NodeIdentity",
    "NodeRecord",
    "Silence",
    "TargetRecord",
    "TargetReport",
]

LOCAL_UPTODATE = 1
LOCAL_ONLINE = 2
LOCAL_OFFLINE = 3


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One LocalTarget of a heartbeat. `local`: a LOCAL_ number (fs3.proto.LocalTargetState)."""

    target: TargetId
    local: int
    chain: ChainId
    chain_version: ChainVersion
    used_bytes: int = 0
    capacity_bytes: int = 0
    free_bytes: int = 0
    damaged_chunks: int = 0  # now; the rest since the server started
    repaired_chunks: int = 0
    scrub_passes: int = 0
    scrub_age_s: float = 0.0  # since the last pass ended; 0 before the first


@dataclass(frozen=True, slots=True)
class Silence:
    """A heartbeat said that a peer had not answered for so long. mgmtd's monotonic clock."""

    for_ns: int
    told_ns: int


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a process says of itself when it registers."""

    id: NodeId
    role: str
    name: str
    addresses: tuple[str, ...] = ()
    admin_address: str = ""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    identity: NodeIdentity
    incarnation: bytes
    alive: bool
    retired: tuple[bytes, ...] = ()  # incarnations that may never come back, newest last
    # Memory only:
    number: int = 0  # drawn for its registration; 0: it registered in an earlier term
    sequence: int = 0  # of the last registration or heartbeat taken
    last_seen_ns: int = 0  # mgmtd's monotonic clock
    reported: bool = False  # false: no report since mgmtd started, so absence means nothing
    reports: Mapping[TargetId, TargetReport] = field(default_factory=dict)
    steady_since_ns: int = 0  # heartbeats have come without a long pause since then; 0: none came
    silences: Mapping[NodeId, Silence] = field(default_factory=dict)  # told within T, by peer


@dataclass(frozen=True, slots=True)
class TargetRecord:
    id: TargetId
    node: NodeId
    public: Public
    leaving: bool = False  # an operator wants it out
    cut_from: NodeId | None = None  # it is to stay out while it and this server miss each other

    @property
    def unwanted(self) -> bool:
        """It goes, and stays out for now."""
        return self.leaving or self.cut_from is not None


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """Targets are sorted: serving head to tail, then LASTSRV, SYNCING, WAITING, OFFLINE."""

    id: ChainId
    version: ChainVersion
    targets: tuple[TargetRecord, ...]
    forming: bool = False  # never served yet


@dataclass(frozen=True, slots=True)
class ChainTableRecord:
    id: int
    version: int
    chains: tuple[ChainId, ...]


@dataclass(frozen=True, slots=True)
class ClusterState:
    cluster_id: ClusterId
    lease_ns: int  # T that servers get now
    lease_longest_ns: int  # the longest T that any of them may still hold
    version: RoutingVersion
    nodes: Mapping[NodeId, NodeRecord]
    chains: Mapping[ChainId, ChainRecord]
    tables: tuple[ChainTableRecord, ...] = ()
    # Memory only:
    last_tick_ns: int = 0
    epoch: int = 0  # of the primary's term
    drawn: int = 0  # numbers for registrations given out in this term
