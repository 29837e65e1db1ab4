"""Sends `fs3 mount` to the background: the caller returns when the mount answers, or with the
reason why not."""

import json
import os
import pathlib
import sys


def detach(mount_point: pathlib.Path) -> int:
    """Forks. The parent waits for the ready line and exits (0, or 1 when the child died first);
    the child gets the descriptor to announce readiness on. No thread may run yet."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    if os.fork() == 0:
        os.close(read_end)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        return write_end
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        line = pipe.readline()
    ready = bool(line) and bool(json.loads(line).get("ready"))
    if ready:
        print(f"mounted at {mount_point}")
    sys.stdout.flush()
    os._exit(0 if ready else 1)
