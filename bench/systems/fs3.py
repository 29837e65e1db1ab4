"""fs3 as `fs3 up` makes it."""

import pathlib
import sys

from bench.systems.base import drop_caches, run

__all__ = ["Fs3"]


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
