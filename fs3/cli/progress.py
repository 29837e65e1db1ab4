"""Progress of long copies: a bar on a terminal, one line every ten seconds elsewhere, nothing when
it is quick."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import click

from fs3.limits import MIB

LINE_EVERY_S = 10.0
SMALL_BYTES = 64 * MIB  # below this a copy is over before a bar could be read


class Progress(Protocol):
    def advance(self, size_bytes: int) -> None: ...


class _Lines:
    """One line every LINE_EVERY_S to standard error."""

    def __init__(self, label: str, total_bytes: int) -> None:
        self._label = label
        self._total = total_bytes
        self._done = 0
        self._last_s = time.monotonic()

    def advance(self, size_bytes: int) -> None:
        self._done += size_bytes
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            share = 100 * self._done // max(self._total, 1)
            click.echo(
                f"{self._label}: {self._done // MIB} MiB of {self._total // MIB} ({share} %)",
                err=True,
            )


class _Bar:
    """rich's progress bar."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar = bar
        self._task = task

    def advance(self, size_bytes: int) -> None:
        self._bar.advance(self._task, size_bytes)


@contextlib.contextmanager
def progress(label: str, total_bytes: int) -> Iterator[Progress]:
    """Shows how far a copy of total_bytes is."""
    if not sys.stderr.isatty() or total_bytes < SMALL_BYTES:
        yield _Lines(label, total_bytes)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(label, total=total_bytes))
