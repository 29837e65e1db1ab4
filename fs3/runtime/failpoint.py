"""Named places where a test may let a process die, stop, fail or wait. Inert unless armed.

    FS3_FAILPOINTS="mgmtd.routing_written=kill;mgmtd.event_applied=pause:2"

Actions: kill (SIGKILL to this process), pause:SECONDS (SIGSTOP-like: the calling thread sleeps),
error (raises OSError EIO), each with an optional count: "error*3" acts on the first three passes.
"""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["arm", "armed", "disarm", "failpoint", "passed"]

ENVIRONMENT = "FS3_FAILPOINTS"


@dataclass
class _Armed:
    action: str
    argument: float
    left: int  # passes that still act; -1: all


_lock = threading.Lock()
_armed: dict[str, _Armed] = {}
_passed: dict[str, int] = {}  # how often each armed point acted
_wait: Callable[[float], None] = time.sleep


def failpoint(name: str, of: str = "") -> None:
    """The place itself; `of.name`, when several things pass there. One dictionary look-up when
    nothing is armed."""
    if _armed:
        _act(f"{of}.{name}" if of else name)


def arm(specification: str) -> None:
    """Adds points, as in the environment variable. Raises ValueError that names the part."""
    for part in filter(None, (text.strip() for text in specification.split(";"))):
        name, _, rest = part.partition("=")
        rest, _, count = rest.partition("*")
        action, _, argument = rest.partition(":")
        if not name or action not in ("kill", "pause", "error"):
            raise ValueError(f"{part!r}: want NAME=kill, NAME=pause:SECONDS or NAME=error")
        with _lock:
            _armed[name] = _Armed(action, float(argument or 0), int(count or -1))


def disarm() -> None:
    """Forgets every point."""
    with _lock:
        _armed.clear()
        _passed.clear()


def armed() -> list[str]:
    with _lock:
        return sorted(_armed)


def passed(name: str) -> int:
    """How often the point acted: a test must prove that its fault landed."""
    with _lock:
        return _passed.get(name, 0)


def _act(name: str) -> None:
    with _lock:
        point = _armed.get(name)
        if point is None or point.left == 0:
            return
        if point.left > 0:
            point.left -= 1
        _passed[name] = _passed.get(name, 0) + 1
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif point.action == "pause":
        _wait(point.argument)
    else:
        raise OSError(errno.EIO, f"failpoint {name}")


arm(os.environ.get(ENVIRONMENT, ""))
