"""Start-up of the native mount: one process, one client, one FUSE session in C++.

    mgmtd ── routing watch ──> here ──> native client          (once per change)
    kernel ── /dev/fuse or io_uring ──> native/fuse ──> native client ──> cluster     (every call)

Python is not entered by any file operation; it waits for a signal or for the end of the mount.

A mount that survives its process has a keeper (keeper.py) beside it; then this process is told to
let go of the mount instead of ending it, or takes over one that is there.
"""

import errno
import logging
import os
import pathlib
import signal
import stat
import threading
from collections.abc import Sequence
from typing import Any

from fs3 import _native
from fs3._proto import common_pb2
from fs3.client import Client
from fs3.errors import error_for
from fs3.mount.cluster import ClusterWatch
from fs3.mount.descriptors import raise_descriptor_limit
from fs3.mount.keeper import KeptRing, Link
from fs3.mount.mount_point import allow_other, check_mount_point
from fs3.mount.options import MountOptions
from fs3.mount.serve import serve
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.telemetry import setup_logging
from fs3.types import ROOT_INODE

__all__ = ["run"]

log = logging.getLogger(__name__)

END_POLL_S = 3600.0
LET_GO_S = 10.0  # for requests under way; what is late is sent to the next process again


def run(
    mount_point: pathlib.Path,
    *,
    mgmtd: str,
    cluster_id: str = "",
    ready_fd: int | None = None,
    options: MountOptions | None = None,
    keeper: Link | None = None,
    inherited: Sequence[int] = (),
    kept_rings: Sequence[KeptRing] = (),
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> None:
    """Mounts and serves until SIGTERM, SIGINT or an unmount; call in the main thread.

    `mgmtd`: gRPC address of the manager; `cluster_id`: in hex, another cluster is refused.
    `ready_fd` gets one JSON line once the mount answers. `keeper`: the mount survives this process.
    `inherited`: the descriptors of the process before, whose mount is taken over.
    `kept_rings`: what programs have registered with it.
    Raises OSError when mounting fails, and OutcomeUnknown when the cluster cannot be reached.
    """
    setup_logging("mount")
    raise_descriptor_limit()
    options = options or MountOptions()
    if not inherited:  # looking at a mount that nobody serves would wait for this process
        check_mount_point(mount_point)
    front_end = _NativeMount(
        mount_point,
        mgmtd,
        cluster_id,
        options,
        keeper,
        inherited,
        kept_rings,
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
        keeper: Link | None,
        inherited: Sequence[int],
        kept_rings: Sequence[KeptRing],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._mount_point = mount_point
        self._options = options
        self._keeper = keeper
        self._inherited = list(inherited)
        self._kept_rings = [tuple(ring) for ring in kept_rings]
        self._client_id = entropy.token(16)
        self._mount: _native.ClusterMount | None = None
        self._cluster = ClusterWatch(
            mgmtd, clock=clock, cluster_id=cluster_id, on_routing=self._on_routing
        )

    def start(self) -> None:
        addresses = self._cluster.start()
        try:
            mount = self._make(addresses, self._root_inode(addresses))
            mount.start()
            self._mount = mount  # from here on it is passed routing info
        except BaseException:
            self._cluster.stop()
            raise
        self._on_routing(self._cluster.routing)
        log.info(
            "%s %s, %s",
            "took over" if self._inherited else "mounted",
            self._mount_point,
            "io_uring" if mount.over_uring() else "classic",
        )
        if self._keeper is not None:
            self._keeper.announce(mount.descriptors())
            threading.Thread(
                target=self._obey, args=(self._keeper, mount), name="fs3-keeper", daemon=True
            ).start()

    def _obey(self, keeper: Link, mount: _native.ClusterMount) -> None:
        if not keeper.wait():
            log.warning("the keeper of this mount is gone; the mount ends")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if not mount.let_go(LET_GO_S):
            log.warning("some requests are answered by the next process")
        log.info("let go of %s", self._mount_point)
        logging.shutdown()
        os._exit(0)  # nothing may be closed: the next process has the same files open

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

    def _root_inode(self, meta_addresses: list[str]) -> int:
        """Of the directory that is mounted; a mount that is taken over knows it."""
        if self._options.subdir.strip("/") == "" or self._inherited:
            return ROOT_INODE
        cluster_id = self._cluster.routing.cluster_id
        with Client(meta_addresses=meta_addresses, cluster_id=cluster_id) as client:
            info = client.stat(self._options.subdir)
        if not stat.S_ISDIR(info.st_mode):
            raise error_for(errno.ENOTDIR, "mount", f"{self._options.subdir} is not a directory")
        return info.st_ino

    def _make(self, meta_addresses: list[str], root_inode: int) -> _native.ClusterMount:
        chosen = self._options
        return _native.cluster_mount(
            str(self._mount_point.absolute()),
            meta_addresses,
            self._cluster.routing.cluster_id,
            self._client_id,
            subtype="hf3fs" if chosen.hf3fs else "fs3",
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
            survives=self._keeper is not None,
            inherited=self._inherited,
            root_inode=root_inode,
            keeper=-1 if self._keeper is None else self._keeper.fileno(),
            kept_rings=self._kept_rings,
        )
