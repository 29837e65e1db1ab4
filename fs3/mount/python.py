"""Start-up of the Python mount: fusepy (libfuse 2) over the public client.

    kernel ── /dev/fuse ── libfuse 2 ──> fusepy ──> Operations ──> fs3.Client ──> cluster

It proves that the client's API is complete and is the reference that the native mount is compared
with (tests/cluster/test_mount_python.py). The native mount is several times faster: requests here
are 128 KiB at most and take turns at the interpreter.
"""

import ctypes
import errno
import logging
import os
import pathlib
import threading
from typing import Any

from fs3.client import Client
from fs3.client.moments import Moment
from fs3.errors import error_for
from fs3.mount.cluster import ClusterWatch
from fs3.mount.mount_point import allow_other, check_mount_point
from fs3.mount.mounts import mounted_at
from fs3.mount.operations import ENCODING, Operations
from fs3.mount.serve import serve
from fs3.mount.umount import unmount
from fs3.runtime.clock import Clock, RealClock
from fs3.runtime.entropy import Entropy, SystemEntropy
from fs3.runtime.telemetry import setup_logging

try:
    import fuse
except OSError as missing:
    raise error_for(
        errno.ENOENT, "mount", "libfuse 2 is not installed; install libfuse2, or mount natively"
    ) from missing

__all__ = ["run"]

log = logging.getLogger(__name__)

END_JOIN_S = 10.0  # for what is still under way at the end
MNT_FORCE, MNT_DETACH = 1, 2  # umount2(2)
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # utimensat(2)

MOUNT_OPTIONS: dict[str, Any] = {
    "fsname": "fs3",
    "subtype": "fs3",  # so the mount table says fuse.fs3, as for the native mount
    "use_ino": True,
    "hard_remove": True,  # an open file may lose its name; no .fuse_hidden
    "atomic_o_trunc": True,
    "big_writes": True,
    # The kernel believes nothing: each step of a path is asked for, in the name of who asks, so
    # all permissions are the metadata service's and changes by others are seen at once.
    "entry_timeout": 0,
    "negative_timeout": 0,
    "attr_timeout": 0,
}


def run(
    mount_point: pathlib.Path,
    *,
    mgmtd: str,
    cluster_id: str = "",
    read_only: bool = False,
    ready_fd: int | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> None:
    """As native.run."""
    setup_logging("mount")
    check_mount_point(mount_point)
    front_end = _PythonMount(
        mount_point,
        mgmtd,
        cluster_id,
        read_only,
        clock or RealClock(),
        entropy or SystemEntropy(),
    )
    serve(front_end, ready_fd)


class _Session(fuse.FUSE):  # type: ignore[misc]
    """fusepy's entry points; where it would lose something, ours."""

    def utimens(self, path: bytes, times: Any) -> int:
        moments = (_moment(times.contents.actime), _moment(times.contents.modtime))
        self.operations("utimens", path.decode(ENCODING), moments)
        return 0


def _moment(time: Any) -> Moment:
    if time.tv_nsec == UTIME_NOW:
        return "now"
    if time.tv_nsec == UTIME_OMIT:
        return None
    return int(time.tv_sec) * 1_000_000_000 + int(time.tv_nsec)


class _PythonMount:
    """libfuse's loop in a thread of its own, the main one being for signals."""

    def __init__(
        self,
        mount_point: pathlib.Path,
        mgmtd: str,
        cluster_id: str,
        read_only: bool,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._place = os.path.realpath(mount_point)
        self._read_only = read_only
        self._entropy = entropy
        self._cluster = ClusterWatch(mgmtd, clock=clock, cluster_id=cluster_id)
        self._mounted = False
        self._decided = threading.Event()  # mounted, or failed
        self._ended = threading.Event()
        self._loop = threading.Thread(target=self._run_loop, name="fs3-fuse", daemon=True)

    def start(self) -> None:
        addresses = self._cluster.start()
        self._cluster.stop()  # the client asks for routing by itself
        self._client = Client(
            meta_addresses=addresses,
            cluster_id=self._cluster.routing.cluster_id,
            entropy=self._entropy,
        )
        self._operations = Operations(self._client, fuse.fuse_get_context, self._on_mounted)
        self._loop.start()
        self._decided.wait()
        if not self._mounted:
            self._client.close()
            raise error_for(errno.EIO, "mount", "libfuse could not mount; it says why above")
        log.info("mounted %s through fusepy", self._place)

    def wait_ended(self) -> None:
        self._ended.wait()

    def stop(self) -> None:
        if not self._ended.is_set() and mounted_at(self._place) is not None:
            _unmount(self._place)
        self._loop.join(END_JOIN_S)
        self._client.close()  # sends what open files still hold

    def statistics(self) -> dict[str, Any]:
        if not self._mounted:
            return {}
        return {
            "open_files": self._operations.open_files(),
            "client": self._client.statistics(),
        }

    def _on_mounted(self) -> None:
        self._mounted = True
        self._decided.set()

    def _run_loop(self) -> None:
        try:
            _Session(
                self._operations,
                os.fsencode(self._place).decode(ENCODING),
                raw_fi=True,
                encoding=ENCODING,
                foreground=True,  # the background is fs3's affair (background.py)
                allow_other=allow_other(),
                ro=self._read_only,
                **MOUNT_OPTIONS,
            )
        except RuntimeError as error:
            log.error("libfuse ended with status %s", error)
        finally:
            self._decided.set()
            self._ended.set()


def _unmount(place: str) -> None:
    """Out of the name space, whoever uses it."""
    try:
        unmount(pathlib.Path(place))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return  # somebody was faster
        if error.errno != errno.EBUSY:
            raise
        log.warning("%s", error)
        # Aborts the connection: calls on what is still open end with ECONNABORTED from now on, and
        # libfuse's loop ends. Only root can; for others the end of the process does it.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(place), MNT_FORCE | MNT_DETACH) != 0:
            unmount(pathlib.Path(place), lazy=True)
