"""GlusterFS, from Debian (glusterfs-server): one daemon, three bricks, replica 3, FUSE mount.

Its own management daemon, whose state is below one directory; one that runs already is in its way.
"""

import contextlib
import pathlib
import shutil
import socket
import subprocess

from bench.systems.base import Unavailable, drop_caches, end, run, wait_for

__all__ = ["GlusterFs"]

PORT = 24007  # bricks look for their daemon nowhere else

VOLUME_FILE = """volume management
    type mgmt/glusterd
    option working-directory {root}/glusterd
    option run-directory {root}/run
    option glusterd-sockfile {root}/glusterd.socket
    option transport-type socket
    option transport.socket.listen-port {port}
    option ping-timeout 0
    option event-threads 1
end-volume
"""


class GlusterFs:
    """Three copies, flushed to the device when the application asks."""

    name = "glusterfs"
    description = "GlusterFS, three bricks, replica 3, flushed on fsync"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._mount = root / "mount"
        self._host = socket.gethostname()  # it refuses "localhost"
        self._daemon: subprocess.Popen[bytes] | None = None

    def _gluster(self, *arguments: str) -> str:
        sock = f"--glusterd-sock={self._root}/glusterd.socket"
        return run("gluster", "--mode=script", sock, *arguments)

    def start(self) -> pathlib.Path:
        if shutil.which("glusterd") is None:
            raise Unavailable("glusterd is not installed: apt-get install glusterfs-server")
        with socket.socket() as probe:
            if probe.connect_ex((self._host, PORT)) == 0:
                raise Unavailable(f"a glusterd runs here already (port {PORT}): stop it first")
        for name in ("glusterd", "run", "mount", "brick1", "brick2", "brick3"):
            (self._root / name).mkdir(parents=True)
        volume_file = self._root / "glusterd.vol"
        volume_file.write_text(VOLUME_FILE.format(root=self._root, port=PORT))
        log, pid = f"{self._root}/glusterd.log", f"{self._root}/glusterd.pid"
        command = ["glusterd", "-N", "-f", str(volume_file), "-p", pid, "-l", log]
        self._daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(self._answers, f"glusterd answers (its log: {log})")
        bricks = [f"{self._host}:{self._root}/brick{number}" for number in (1, 2, 3)]
        self._gluster("volume", "create", "bench", "replica", "3", *bricks, "force")
        self._gluster("volume", "start", "bench")
        self._do_mount()
        return self._mount

    def _answers(self) -> bool:
        with contextlib.suppress(Unavailable):
            return "State" in self._gluster("peer", "status") or True
        return False

    def _do_mount(self) -> None:
        server = [f"--volfile-server={self._host}", f"--volfile-server-port={PORT}"]
        log = f"--log-file={self._root}/mount.log"
        run("glusterfs", "--volfile-id=bench", *server, log, str(self._mount))
        wait_for(self._mount.is_mount, "the mount of GlusterFS")

    def make_cold(self) -> None:
        run("umount", str(self._mount))
        drop_caches()
        self._do_mount()

    def stop(self) -> None:
        with contextlib.suppress(Unavailable):
            run("umount", "-l", str(self._mount))
        with contextlib.suppress(Unavailable):
            self._gluster("volume", "stop", "bench", "force")
        if self._daemon is not None:
            end(self._daemon)
        shutil.rmtree(self._root, ignore_errors=True)
