"""Start-up of the native mount: one process, one client, one FUSE session in C++.

    mgmtd ── routing watch ──> here ──> native client          (once per change)
    kernel ── /dev/fuse or io_uring ──> native/fuse ──> native client ──> cluster     (every call)

Python is not entered by any file operation; it waits for a signal or for the end of the mount.
"""

import dataclasses
import errno
import logging
import os
import pathlib
import stat
import threading
from typing import Any

from fs3 import _native
from fs3._proto import common_pb2
from fs3.errors import Status, error_for
from fs3.mount.mounts import TYPE, Mount, mounted_at
from fs3.mount.umount import unmount
from fs3.runtime import ready
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.membership import RoutingWatcher
from fs3.runtime.signals import StopSignal
from fs3.runtime.telemetry import setup_logging

__all__ = ["MountOptions", "check_mount_point", "run"]

log = logging.getLogger(__name__)

FIRST_ROUTING_S = 60.0  # `fs3 up` starts everything at once: the manager may be a moment away
META_POLL_S = 0.05
END_POLL_S = 3600.0
END_JOIN_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MountOptions:
    """What can be chosen about a native mount. Defaults are for everybody."""

    cluster_id: str = ""  # hex; the mount refuses a manager of another cluster
    read_only: bool = False
    uring: str = "auto"  # FUSE over io_uring: auto, off, required
    uring_depth: int = 16  # requests in flight per CPU
    reactors: int = 0  # threads; 0: one per core, at most 4
    ttl_max_s: float = 1.0  # the kernel believes names and attributes no longer than this
    direct_io: bool = False  # never use the page cache
    write_back_bytes: int = 4 << 20  # per open file; 0: every write waits for its chains
    allow_suid: bool = False
    allow_dev: bool = False


def check_mount_point(path: pathlib.Path) -> None:
    """Raises OSError with a sentence unless `path` is an empty directory with no mount on it.

    The remains of an fs3 mount whose process died are taken away: nobody can use them any more.
    """
    place = os.path.realpath(path)
    existing = mounted_at(place)
    if existing is not None:
        _clear_dead(place, existing)
    try:
        info = os.stat(place)
    except FileNotFoundError:
        raise error_for(errno.ENOENT, "mount", f"{path} does not exist; make it first") from None
    if not stat.S_ISDIR(info.st_mode):
        raise error_for(errno.ENOTDIR, "mount", f"{path} is not a directory")
    with os.scandir(place) as entries:
        names = [entry.name for entry, _ in zip(entries, range(3), strict=False)]
    if names:
        raise error_for(
            errno.ENOTEMPTY,
            "mount",
            f"{path} is not empty ({', '.join(names)}, ...): its content would be hidden; "
            "mount on an empty directory",
        )


def _clear_dead(place: str, existing: Mount) -> None:
    try:
        os.stat(place)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise
        if existing.type != TYPE:
            raise error_for(
                errno.ENOTCONN,
                "mount",
                f"{place} is a dead {existing.type} mount (transport endpoint is not connected); "
                f"take it away first: fs3 umount {place}",
            ) from None
        log.warning("taking away the dead fs3 mount at %s", place)
        unmount(pathlib.Path(place), lazy=True)
        return
    raise error_for(
        errno.EBUSY,
        "mount",
        f"{place} is mounted already ({existing.type} from {existing.source}); "
        f"choose another place or: fs3 umount {place}",
    )


def run(
    mount_point: pathlib.Path,
    *,
    mgmtd: str,
    read_only: bool = False,
    ready_fd: int | None = None,
    options: MountOptions | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> None:
    """Mounts and serves until SIGTERM, SIGINT or an unmount; call in the main thread.

    `mgmtd`: gRPC address of the manager. `ready_fd` gets one JSON line once the mount answers.
    Raises OSError when mounting fails, and OutcomeUnknown when the cluster cannot be reached.
    """
    setup_logging("mount")
    options = options or MountOptions()
    if read_only:
        options = dataclasses.replace(options, read_only=True)
    check_mount_point(mount_point)
    process = _MountProcess(
        mount_point, mgmtd, options, clock or RealClock(), entropy or SystemEntropy()
    )
    stop = StopSignal(process.statistics)
    process.start()
    end = threading.Thread(
        target=process.wait_ended, args=(stop,), name="fs3-mount-end", daemon=True
    )
    try:
        end.start()
        ready.notify(-1 if ready_fd is None else ready_fd, addresses=[])
        stop.wait()
    finally:
        process.stop()
        end.join(END_JOIN_S)


class _MountProcess:
    """The native mount and the routing watch that feeds it."""

    def __init__(
        self,
        mount_point: pathlib.Path,
        mgmtd: str,
        options: MountOptions,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._mount_point = mount_point
        self._options = options
        self._clock = clock
        self._client_id = entropy.token(16)
        self._routing = common_pb2.RoutingInfo()
        self._mount: _native.ClusterMount | None = None
        self._watcher = RoutingWatcher(mgmtd, self._on_routing, clock=clock, watcher="mount")

    def start(self) -> None:
        self._watcher.start(FIRST_ROUTING_S)
        try:
            check_cluster(self._options.cluster_id, self._routing)
            mount = self._make(self._wait_for_meta())
            mount.start()
            self._mount = mount  # from here on the watcher passes routing info to it
        except BaseException:
            self._watcher.stop()
            raise
        self._on_routing(self._routing)
        log.info(
            "mounted %s, %s",
            self._mount_point,
            "io_uring" if mount.over_uring() else "classic",
        )

    def wait_ended(self, stop: StopSignal) -> None:
        """Until the kernel has let go: somebody unmounted."""
        mount = self._mount
        while mount is not None and not mount.wait(END_POLL_S):
            pass
        stop.fail("")

    def stop(self) -> None:
        self._watcher.stop()
        if self._mount is not None:
            self._mount.stop(force=True)
            self._mount = None

    def statistics(self) -> dict[str, Any]:
        """For SIGUSR1."""
        mount = self._mount
        if mount is None:
            return {}
        return {"operations": mount.operations(), "client": mount.counts()}

    def _on_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self._routing = routing
        mount = self._mount
        if mount is not None and mount.running():
            mount.update_routing(routing.SerializeToString())

    def _wait_for_meta(self) -> list[str]:
        """Addresses of the metadata services, which may register a moment later than mgmtd."""
        until_ns = self._clock.monotonic_ns() + int(FIRST_ROUTING_S * 1e9)
        while True:
            addresses = [
                address
                for node in self._routing.nodes
                if node.role == "meta"
                for address in node.addresses
            ]
            if addresses:
                return addresses
            if self._clock.monotonic_ns() >= until_ns:
                raise error_for(
                    Status.TIMED_OUT,
                    "mount",
                    f"no metadata service has registered in {FIRST_ROUTING_S:g} s; is it running?",
                )
            self._clock.sleep(META_POLL_S)

    def _make(self, meta_addresses: list[str]) -> _native.ClusterMount:
        chosen = self._options
        return _native.cluster_mount(
            str(self._mount_point.absolute()),
            meta_addresses,
            self._routing.cluster_id,
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
            write_back_bytes=chosen.write_back_bytes,
        )


def check_cluster(wanted: str, routing: common_pb2.RoutingInfo) -> None:
    """Raises OSError when the manager that answered serves another cluster. An empty id: any."""
    if wanted and routing.cluster_id.hex() != wanted.lower():
        raise error_for(
            Status.WRONG_CLUSTER,
            "mount",
            f"the manager that answers there is of cluster {routing.cluster_id.hex()}, not "
            f"{wanted}; does something else use its port?",
        )


def allow_other() -> bool:
    """Others may use the mount: as root always, else where /etc/fuse.conf says so."""
    if os.geteuid() == 0:
        return True
    try:
        lines = pathlib.Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
