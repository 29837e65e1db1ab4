"""Settings of the three daemons, as strict structures: an unknown key is refused by name.

The command line (fs3/cli/serve.py) fills them from options; a file holds the same names in TOML:

    [storage]
    data = "/var/lib/fs3/storage-1"
    node_id = 1
"""

import pathlib
import tomllib
from typing import Any, TypeVar

import msgspec

from fs3 import limits
from fs3.errors import BadRequest, Status

__all__ = ["DaemonConfig", "MetaConfig", "MgmtdConfig", "StorageConfig", "load", "parse"]

S = TypeVar("S", bound="DaemonConfig")

SECTIONS = ("mgmtd", "meta", "storage")


class DaemonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every daemon has. Paths are absolute or relative to the working directory."""

    data: str = ""  # directory that this process owns alone
    grpc: str = "127.0.0.1:0"  # where gRPC listens; port 0: any free one, told in the ready line
    cluster_id: str = ""  # 32 hex digits; empty: mgmtd makes one, others take the manager's
    node_id: int = 0
    name: str = ""  # for people: "storage-2"; empty: role and node id
    keyring: str = ""  # file with the capability keys (proto/CAPABILITY.md); empty: none
    metrics_port: int = -1  # HTTP /metrics and /healthz on loopback; 0: any free port; -1: off
    ready_fd: int = -1  # inherited descriptor that gets one JSON line once the daemon serves
    log_format: str = "text"  # text (key=value) or json
    log_level: str = "info"

    def cluster_id_bytes(self) -> bytes:
        """16 bytes, or none when not set."""
        return bytes.fromhex(self.cluster_id)

    def check(self) -> None:
        """Raises BadRequest that names the field."""
        digits = self.cluster_id.lower()
        is_hex = len(digits) == 32 and all(digit in "0123456789abcdef" for digit in digits)
        _require(not digits or is_hex, "cluster_id", "32 hex digits, or empty")
        _require(0 <= self.node_id < 1 << 32, "node_id", "an unsigned 32-bit number")
        _require(-1 <= self.metrics_port < 65536, "metrics_port", "a port, or -1 for off")
        _require(self.log_format in ("text", "json"), "log_format", "text or json")


class _StoreConfig(DaemonConfig, frozen=True, kw_only=True):
    """Of a daemon with a key-value store."""

    kv: str = ""  # postgres://.. for several processes on one store; empty: RocksDB in data/

    def check(self) -> None:
        has_place = bool(self.data) != bool(self.kv)
        _require(has_place, "data", "a directory is needed: --data DIR, or instead --kv ADDRESS")
        super().check()


class MgmtdConfig(_StoreConfig, frozen=True, kw_only=True):
    """`fs3 serve mgmtd`. storage_nodes .. chains shape a new cluster; an existing one keeps its
    shape."""

    lease_s: float = limits.LEASE_S_DEFAULT
    insecure_network: bool = False  # take plain text from other hosts: anybody may do anything
    heartbeat_s: float = limits.HEARTBEAT_S_DEFAULT
    storage_nodes: tuple[int, ...] = ()  # node ids of a new cluster; empty: refuse to make one
    disks_per_node: int = 1
    replicas: int = 3
    chains: int = 0  # 0: 2 per storage node

    def check(self) -> None:
        super().check()
        in_range = limits.LEASE_S_MIN <= self.lease_s <= limits.LEASE_S_MAX
        _require(in_range, "lease_s", f"{limits.LEASE_S_MIN} to {limits.LEASE_S_MAX} seconds")
        beats = 0 < self.heartbeat_s <= self.lease_s / 4
        _require(beats, "heartbeat_s", "above 0 and at most a quarter of lease_s")
        _require(1 <= self.replicas <= 16, "replicas", "1 to 16")


class MetaConfig(_StoreConfig, frozen=True, kw_only=True):
    """`fs3 serve meta`."""

    listen: tuple[str, ...] = ("tcp://127.0.0.1:0",)  # native RPC
    mgmtd: str = ""  # gRPC addresses of the cluster managers, with commas
    sync_interval_s: float = 1.0  # a power loss takes at most this much that was not fsynced
    gc_delay_s: float = 10.0  # from unlink to removal; clients have to tell first what they read
    hosts: tuple[str, ...] = ()  # "NETWORK [admin] [uids=LOW-HIGH]"; empty: any, as administrators

    def check(self) -> None:
        super().check()
        _require(
            bool(self.mgmtd), "mgmtd", "the manager's gRPC address is needed: --mgmtd HOST:PORT"
        )
        _require(bool(self.listen), "listen", "at least one native RPC address")
        _require(0 < self.sync_interval_s <= 60, "sync_interval_s", "above 0, at most 60 seconds")
        _require(0 <= self.gc_delay_s <= 86400, "gc_delay_s", "0 seconds to a day")


class StorageConfig(DaemonConfig, frozen=True, kw_only=True):
    """`fs3 serve storage`. Targets live under data/ (or on the disks, one directory each)."""

    listen: tuple[str, ...] = ("tcp://127.0.0.1:0",)
    mgmtd: str = ""
    disks: tuple[str, ...] = ()  # one directory per disk, in the order of disk numbers; empty: data
    capacity_bytes: int = 0  # of each disk; 0: what its file system has
    scrub_period_s: float = 14 * 86400.0  # every chunk is read and verified once in it; 0: never
    scrub_mib_s: float = 32.0  # at most
    resync_mib_s: float = 0.0  # at most, sent to targets that are brought level; 0: no bound

    def check(self) -> None:
        super().check()
        _require(
            bool(self.mgmtd), "mgmtd", "the manager's gRPC address is needed: --mgmtd HOST:PORT"
        )
        _require(bool(self.listen), "listen", "at least one native RPC address")
        _require(bool(self.data), "data", "a directory is needed: --data DIR")
        _require(self.capacity_bytes >= 0, "capacity_bytes", "bytes, or 0 for all there is")
        _require(0 <= self.scrub_period_s <= 10 * 365 * 86400, "scrub_period_s", "0 to ten years")
        _require(0 < self.scrub_mib_s <= 1 << 20, "scrub_mib_s", "MiB per second, above 0")
        _require(
            0 <= self.resync_mib_s <= 1 << 20, "resync_mib_s", "MiB per second, or 0: no bound"
        )
        _require(self.node_id > 0, "node_id", "a storage server needs its number: --node-id N")


def parse(kind: type[S], values: dict[str, Any], source: str) -> S:
    """Checked settings. Raises BadRequest that names `source` and the field."""
    try:
        config = msgspec.convert(values, kind)
        config.check()
    except (msgspec.ValidationError, BadRequest) as error:
        detail = error.detail if isinstance(error, BadRequest) else str(error)
        raise BadRequest(Status.BAD_REQUEST, source, detail) from None
    return config


def load(kind: type[S], path: pathlib.Path, section: str, **overrides: Any) -> S:
    """One section of a TOML file, and what is said beside it. Raises BadRequest naming the file and
    what is wrong in it."""
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise BadRequest(Status.BAD_REQUEST, str(path), "no such file") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested without end
        raise BadRequest(Status.BAD_REQUEST, str(path), f"not TOML: {error}") from None
    unknown = sorted(set(tables) - set(SECTIONS))
    if unknown:
        detail = f"section {unknown[0]!r} is unknown; there are {', '.join(SECTIONS)}"
        raise BadRequest(Status.BAD_REQUEST, str(path), detail)
    return parse(kind, {**tables.get(section, {}), **overrides}, f"{path}[{section}]")


def _require(condition: bool, field: str, detail: str) -> None:
    if not condition:
        raise BadRequest(Status.BAD_REQUEST, "config", f"{field}: {detail}")
