"""Many reads as one request: what to open, and what is open."""

from collections.abc import Iterable
from typing import Any

from fs3.client.calls import Buffer, Handle
from fs3.client.file import File
from fs3.client.paths import Path

__all__ = ["ReadIntoItem", "ReadItem", "plan_reads"]

ReadItem = tuple[Path | File, int, int]  # where, offset, length in bytes
ReadIntoItem = tuple[Path | File, int, Buffer]


def plan_reads(items: Iterable[ReadIntoItem]) -> tuple[dict[Any, Handle], list[Path]]:
    """Handles of the files given, and the paths to open, each once. Raises ValueError for a closed
    file or a negative offset."""
    files: dict[Any, Handle] = {}
    paths: dict[Path, None] = {}
    for where, offset, _ in items:
        if offset < 0:
            raise ValueError(f"offset must not be negative, is {offset}")
        if isinstance(where, File):
            where.readable()  # raises when it is closed
            files[where] = where._opened.handle
        else:
            paths[where] = None
    return files, list(paths)
