"""The failpoints of production code (fs3/runtime/failpoint.py) inside simulated processes.

`pause:` calls the hook of the module, which here acts on whichever process runs: a number says what
happens to it. The module is left as it was when a run ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol
from unittest import mock

from fs3.runtime import failpoint

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
KILL, DELAY = 0.0, 1.5


class Inside(Protocol):
    """A process in whose code a point may be passed."""

    def die_inside(self) -> NoReturn: ...

    def stop_inside(self, duration_ns: int) -> None:
        """Nothing of the process runs meanwhile."""

    def delay_inside(self) -> None:
        """What was under way goes on past its deadline."""


_inside: list[Inside] = []


@contextmanager
def running(process: Inside) -> Iterator[None]:
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
    seconds = {"kill": KILL, "pause": 2 * lease_ns / 1e9, "delay": DELAY}
    if action == "error":
        return f"{point}=error*1"
    return f"{point}=pause:{seconds[action]}*1"


def _act(seconds: float) -> None:
    process = _inside[-1]
    if seconds == KILL:
        process.die_inside()
    elif seconds == DELAY:
        process.delay_inside()
    else:
        process.stop_inside(int(seconds * 1e9))
