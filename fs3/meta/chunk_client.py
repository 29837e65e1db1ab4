"""ChunkPort over the native client."""

from typing import Any

from fs3.meta.inode import Layout
from fs3.meta.ports import Measure

__all__ = ["ChunkClient"]


class ChunkClient:
    """`native`: fs3._native.NativeClient, made with the capability key of the cluster.
    Thread-safe."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def truncate_chunks(self, inode: int, layout: Layout, old_size: int, new_size: int) -> None:
        self._native.truncate_chunks(inode, _encoded(layout), old_size, new_size)

    def remove_chunks(self, inode: int, layout: Layout, size: int) -> None:
        self._native.remove_chunks(inode, _encoded(layout), size)

    def measure(self, inode: int, layout: Layout) -> Measure:
        return Measure(*self._native.measure(inode, _encoded(layout)))


def _encoded(layout: Layout) -> bytes:
    return layout.message().SerializeToString()
