"""The ceiling: a directory on the same disk. One copy, no network, no FUSE."""

import pathlib
import shutil

from bench.systems.base import drop_caches

__all__ = ["Local"]


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
