"""Clients that keep in touch, for people to see and for those who clean up after them."""

from dataclasses import dataclass

from fs3.errors import RetryLater, Status
from fs3.types import ClientId

__all__ = ["CLIENTS_MAX", "SESSION_TTL_S", "ClientRecord", "Sessions"]

SESSION_TTL_S = 60.0
CLIENTS_MAX = 65_536
DESCRIPTION_BYTES_MAX = 255


@dataclass(frozen=True, slots=True)
class ClientRecord:
    client_id: ClientId
    description: str
    since_ns: int
    seen_ns: int


class Sessions:
    """In memory; after a restart of mgmtd clients are learnt again. Not thread-safe."""

    def __init__(self) -> None:
        self._clients: dict[ClientId, ClientRecord] = {}

    def extend(self, client_id: ClientId, description: str, now_ns: int) -> None:
        """Raises RetryLater when there are too many clients."""
        known = self._clients.get(client_id)
        if known is None and len(self._clients) >= CLIENTS_MAX:
            detail = f"{CLIENTS_MAX} clients are connected; try again when some have left"
            raise RetryLater(Status.BUSY, "mgmtd/sessions", detail)
        since_ns = known.since_ns if known is not None else now_ns
        text = description[:DESCRIPTION_BYTES_MAX]
        self._clients[client_id] = ClientRecord(client_id, text, since_ns, now_ns)

    def expire(self, now_ns: int) -> list[ClientRecord]:
        """Forgets and returns those not seen for SESSION_TTL_S."""
        limit_ns = now_ns - int(SESSION_TTL_S * 1e9)
        gone = [record for record in self._clients.values() if record.seen_ns < limit_ns]
        for record in gone:
            del self._clients[record.client_id]
        return gone

    def all(self) -> list[ClientRecord]:
        return list(self._clients.values())
