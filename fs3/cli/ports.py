"""TCP ports of a local cluster: chosen once per start, so that a process that dies comes back
where its clients look for it."""

import contextlib
import fcntl
import socket
from collections.abc import Iterator

import click

from fs3.cli.cluster_dir import registry

__all__ = ["FIRST_PORT", "PORTS_TRIED", "choosing_ports", "free_ports"]

FIRST_PORT = 7001
PORTS_TRIED = 400


@contextlib.contextmanager
def choosing_ports() -> Iterator[None]:
    """Held from the choice until the ports are in use: two `fs3 up` at once take different ones."""
    with (registry() / ".ports").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_ports(count: int, first: int = FIRST_PORT) -> list[int]:
    """The first `count` free ports of 127.0.0.1 from `first` on. Raises ClickException when
    PORTS_TRIED do not have as many."""
    found: list[int] = []
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise click.ClickException(
        f"fewer than {count} of the TCP ports {first} to {first + PORTS_TRIED - 1} are free on "
        "127.0.0.1; `ss -ltnp` shows who has them"
    )
