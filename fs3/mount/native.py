"""Start-up of the native mount: one process, one client, one FUSE session in C++.

    mgmtd ── routing watch ──> here ──> native client          (once per change)
    kernel ── /dev/fuse or io_uring ──> native/fuse ──> native client ──> cluster     (every call)

Python is not entered by any file operation; it waits for a signal or for the end of the mount.
"""

import dataclasses
import logging
import pathlib
from typing import Any

from fs3 import _native
from fs3._proto import common_pb2
from fs3.mount.cluster import ClusterWatch
from fs3.mount.mount_point import allow_other, check_mount_point
from fs3.mount.serve import serve
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.telemetry import setup_logging

__all__ = ["MountOptions", "run"]

log = logging.getLogger(__name__)

END_POLL_S = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MountOptions:
    """What can be chosen about a native mount. Defaults are for everybody."""

    read_only: bool = False
    uring: str = "auto"  # FUSE over io_uring: auto, off, required
    uring_depth: int = 16  # requests in flight per CPU
    reactors: int = 0  # threads; 0: one per core, at most 4
    ttl_max_s: float = 1.0  # the kernel believes names and attributes no longer than this
    direct_io: bool = False  # never use the page cache
    write_back_bytes: int = 4 << 20  # per open file; 0: every write waits for its chains
    allow_suid: bool = False
    allow_dev: bool = False
    atime: str = "relatime"  # relatime, noatime, strictatime: which reads are noted
    squash_root: bool = False  # the root of this host is nobody


def run(
    mount_point: pathlib.Path,
    *,
    mgmtd: str,
    cluster_id: str = "",
    read_only: bool = False,
    ready_fd: int | None = None,
    options: MountOptions | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> None:
    """Mounts and serves until SIGTERM, SIGINT or an unmount; call in the main thread.

    `mgmtd`: gRPC address of the manager; `cluster_id`: in hex, another cluster is refused.
    `ready_fd` gets one JSON line once the mount answers.
    Raises OSError when mounting fails, and OutcomeUnknown when the cluster cannot be reached.
    """
    setup_logging("mount")
    options = options or MountOptions()
    if read_only:
        options = dataclasses.replace(options, read_only=True)
    check_mount_point(mount_point)
    front_end = _NativeMount(
        mount_point,
        mgmtd,
        cluster_id,
        options,
        clock or RealClock(),
        entropy or SystemEntropy(),
    )
    serve(front_end, ready_fd)


class _NativeMount:
    """The native mount and the routing watch that feeds it."""

    def __init__(
        self,
        mount_point: pathlib.Path,
        mgmtd: str,
        cluster_id: str,
        options: MountOptions,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._mount_point = mount_point
        self._options = options
        self._client_id = entropy.token(16)
        self._mount: _native.ClusterMount | None = None
        self._cluster = ClusterWatch(
            mgmtd, clock=clock, cluster_id=cluster_id, on_routing=self._on_routing
        )

    def start(self) -> None:
        addresses = self._cluster.start()
        try:
            mount = self._make(addresses)
            mount.start()
            self._mount = mount  # from here on it is passed routing info
        except BaseException:
            self._cluster.stop()
            raise
        self._on_routing(self._cluster.routing)
        log.info(
            "mounted %s, %s",
            self._mount_point,
            "io_uring" if mount.over_uring() else "classic",
        )

    def wait_ended(self) -> None:
        mount = self._mount
        while mount is not None and not mount.wait(END_POLL_S):
            pass

    def stop(self) -> None:
        self._cluster.stop()
        if self._mount is not None:
            self._mount.stop(force=True)
            self._mount = None

    def statistics(self) -> dict[str, Any]:
        mount = self._mount
        if mount is None:
            return {}
        return {"operations": mount.operations(), "client": mount.counts()}

    def _on_routing(self, routing: common_pb2.RoutingInfo) -> None:
        mount = self._mount
        if mount is not None and mount.running():
            mount.update_routing(routing.SerializeToString())

    def _make(self, meta_addresses: list[str]) -> _native.ClusterMount:
        chosen = self._options
        return _native.cluster_mount(
            str(self._mount_point.absolute()),
            meta_addresses,
            self._cluster.routing.cluster_id,
            self._client_id,
            uring=chosen.uring,
            uring_depth=chosen.uring_depth,
            reactors=chosen.reactors,
            ttl_max_s=chosen.ttl_max_s,
            direct_io=chosen.direct_io,
            allow_other=allow_other(),
            read_only=chosen.read_only,
            allow_suid=chosen.allow_suid,
            allow_dev=chosen.allow_dev,
            atime=chosen.atime,
            squash_root=chosen.squash_root,
            write_back_bytes=chosen.write_back_bytes,
        )
