"""What every system under comparison is, and what setting one up needs."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["System", "Unavailable", "drop_caches", "end", "free_port", "run", "wait_for"]


class Unavailable(Exception):
    """A system cannot run here; the text says what is missing."""


class System(Protocol):
    name: str
    description: str

    def start(self) -> pathlib.Path:
        """Sets up and mounts; the directory to work in."""

    def make_cold(self) -> None:
        """Drops what the mount and the kernel have cached."""

    def stop(self) -> None: ...


def run(*command: str, timeout_s: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def drop_caches() -> None:
    """Only root may; without it cold reads would be warm, so we refuse."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        raise Unavailable("dropping the kernel's caches needs root: run this as root") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            raise Unavailable(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes], patience_s: float = 20) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    process.kill()
    process.wait()
