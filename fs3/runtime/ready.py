"""Tells a supervisor that the daemon serves: one JSON line on an inherited descriptor."""

import json
import os
from collections.abc import Sequence

__all__ = ["notify"]


def notify(
    ready_fd: int,
    *,
    addresses: Sequence[str],
    grpc: str = "",
    metrics: str = "",
    incarnation: bytes = b"",
    node_id: int = 0,
) -> None:
    """Does nothing when `ready_fd` is -1; a supervisor that went away is no error.

    The line: {"ready": true, "addresses": [...], "grpc": "...", "metrics": "...",
    "incarnation": hex, "node_id": n, "pid": n}. The incarnation lets the supervisor report the
    exit.
    """
    if ready_fd < 0:
        return
    line = json.dumps(
        {
            "ready": True,
            "addresses": list(addresses),
            "grpc": grpc,
            "metrics": metrics,
            "incarnation": incarnation.hex(),
            "node_id": node_id,
            "pid": os.getpid(),
        }
    )
    try:
        os.write(ready_fd, line.encode() + b"\n")
    except BrokenPipeError:
        pass
    finally:
        os.close(ready_fd)
