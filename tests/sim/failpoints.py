"""The failpoints of production code (fs3/runtime/failpoint.py) inside simulated processes.

`pause:` calls the hook of the module, which here acts on whichever process runs: a number says what
happens to it. The module is left as it was when a run ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from fs3.runtime import failpoint

if TYPE_CHECKING:
    from tests.sim.manager import Manager

__all__ = ["MGMTD", "armed", "running"]

MGMTD = (
    "election.taken",
    "mgmtd.state_loaded",
    "mgmtd.old_epoch_fenced",
    "mgmtd.event_applied",
    "mgmtd.routing_written",
    "mgmtd.routing_published",
    "mgmtd.answer",
)
KILL = 0.0

_inside: list[Manager] = []


@contextmanager
def running(process: Manager) -> Iterator[None]:
    _inside.append(process)
    try:
        yield
    finally:
        _inside.pop()


@contextmanager
def armed() -> Iterator[None]:
    """Points armed inside act on simulated processes."""
    with mock.patch.object(failpoint, "_wait", _act):
        try:
            yield
        finally:
            failpoint.disarm()


def specification(point: str, action: str, lease_ns: int) -> str:
    """For failpoint.arm(): acts once."""
    seconds = {"kill": KILL, "pause": 2 * lease_ns / 1e9, "delay": 1.5}
    if action == "error":
        return f"{point}=error*1"
    return f"{point}=pause:{seconds[action]}*1"


def _act(seconds: float) -> None:
    process = _inside[-1]
    if seconds == KILL:
        process.die_inside()
    process.stop_inside(int(seconds * 1e9))
