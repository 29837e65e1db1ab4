"""Who sent a request, as far as the transport knows."""

import ipaddress
import re
from enum import IntEnum
from typing import NamedTuple

__all__ = ["Principal", "Role", "host_of"]

Host = ipaddress.IPv4Address | ipaddress.IPv6Address
_HERE = ipaddress.IPv4Address("127.0.0.1")


class Role(IntEnum):
    """The roles of the hello frame (proto/WIRE.md)."""

    CLIENT = 1
    STORAGE = 2
    META = 3
    MGMTD = 4


class Principal(NamedTuple):
    """Made by the native RPC server for each request. A claim unless `authenticated`: rights come
    from capabilities, identity from what the transport proved."""

    role: int  # Role, as said in the hello
    authenticated: bool  # by peer credentials of a Unix socket, or by certificate
    uid: int | None  # of the peer process on a Unix socket, else None
    node_id: int  # 0 for clients
    instance_id: bytes  # 16 bytes: client id, or the node's incarnation
    address: str  # for messages to people

    @property
    def is_server(self) -> bool:
        return self.role != Role.CLIENT


def host_of(address: str) -> Host | None:
    """The host of a peer, from what a transport says: "10.0.0.1:5", "[::1]:5", and as gRPC writes
    it, "ipv4:10.0.0.1:5", "ipv6:%5B::1%5D:5", "unix:..". A peer on a Unix socket is on this host;
    an IPv4 address that was mapped into IPv6 is itself. None: no address is to be seen.

    >>> host_of("ipv6:%5B::ffff:10.0.0.1%5D:5")
    IPv4Address('10.0.0.1')
    """
    if address.startswith("unix"):
        return _HERE
    found = re.fullmatch(r"(?:ipv[46]:)?(?:\[|%5B)?([0-9a-fA-F.:]+?)(?:\]|%5D)?:\d+", address)
    try:
        host = ipaddress.ip_address(found.group(1)) if found is not None else None
    except ValueError:
        return None
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host
