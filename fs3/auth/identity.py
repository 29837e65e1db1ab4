"""Who sent a request, as far as the transport knows."""

from enum import IntEnum
from typing import NamedTuple

__all__ = ["Principal", "Role"]


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
