"""The handles that are open for writing, so that a change by path can flush them first."""

import threading

from fs3.client.calls import Handle

__all__ = ["Writers"]


class Writers:
    """By inode, of one native client: shared by all who act through it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[int, list[Handle]] = {}

    def add(self, inode: int, handle: Handle) -> None:
        with self._lock:
            self._handles.setdefault(inode, []).append(handle)

    def remove(self, inode: int, handle: Handle) -> None:
        """Nothing happens for a handle that is not there."""
        with self._lock:
            handles = self._handles.get(inode, [])
            if handle in handles:
                handles.remove(handle)
            if not handles:
                self._handles.pop(inode, None)

    def of(self, inode: int) -> list[Handle]:
        with self._lock:
            return list(self._handles.get(inode, ()))
