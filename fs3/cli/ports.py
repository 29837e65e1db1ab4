"""TCP ports of a local cluster, reserved for as long as it runs: a process that dies comes back
where its clients look for it, and no other cluster has moved in meanwhile."""

import contextlib
import socket
from collections.abc import Iterator

import click

__all__ = ["FIRST_PORT", "PORTS_TRIED", "reserved_ports"]

FIRST_PORT = 7001
PORTS_TRIED = 400


@contextlib.contextmanager
def reserved_ports(count: int, first: int = FIRST_PORT) -> Iterator[list[int]]:
    """The first `count` ports of 127.0.0.1 from `first` on that are free and that no other
    `fs3 up` holds, of whatever user. Raises ClickException when PORTS_TRIED have not as many.

    A reservation is an abstract Unix socket with the port in its name: it lives in the network
    name space that the port lives in, and it goes with its process, however that ends.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(first, first + PORTS_TRIED):
            reservation = _reserve(port)
            if reservation is not None and _is_free(port):
                held.enter_context(reservation)
                found.append(port)
            elif reservation is not None:
                reservation.close()
            if len(found) == count:
                yield found
                return
        raise click.ClickException(
            f"fewer than {count} of the TCP ports {first} to {first + PORTS_TRIED - 1} are free on "
            "127.0.0.1; `ss -ltnp` shows who has them"
        )


def _reserve(port: int) -> socket.socket | None:
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0fs3-port-{port}")
    except OSError:  # another `fs3 up` has it
        reservation.close()
        return None
    return reservation


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
