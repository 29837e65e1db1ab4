"""Which clients are alive, and what they hold open for reading. In memory: keepalives cost no
write. A client sends them to every service, so each knows all.

After a restart every client that has sessions in the KV gets the whole time-out again.

How many sessions a client has is a guess: another service may open one and close it, and what came
of a commit may be unknown. So nobody is refused by the guess alone: the rows are counted first.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fs3 import limits
from fs3.meta.faults import refuse

PERIOD_MS = 3000  # several keepalives before gc's delay or the time-out are over
SILENT_S = 60.0
RECOUNT_S = 10.0  # between two counts for one client: 65,536 rows are 0.1 s that others wait


@dataclass(slots=True)
class _Client:
    seen_ns: int
    reading: frozenset[int] = field(default_factory=frozenset)
    sessions: int = 0
    counted_ns: int | None = None  # when the rows were counted


@dataclass(frozen=True)
class ClientStatistics:
    clients: int
    inodes_read: int


class ClientTable:
    """Not thread-safe: guarded by the lock of the store."""

    def __init__(self, monotonic_ns: Callable[[], int], *, silent_s: float = SILENT_S) -> None:
        self._monotonic_ns = monotonic_ns
        self._silent_ns = int(silent_s * 1e9)
        self._clients: dict[bytes, _Client] = {}
        self._readers: Counter[int] = Counter()

    def seen(self, client: bytes) -> None:
        entry = self._clients.get(client)
        if entry is None:
            self._clients[client] = _Client(self._monotonic_ns())
        else:
            entry.seen_ns = self._monotonic_ns()

    def keepalive(self, client: bytes, reading: Iterable[int]) -> None:
        self.seen(client)
        entry = self._clients[client]
        now_reading = frozenset(reading)
        self._readers.update(now_reading - entry.reading)
        self._forget_readers(entry.reading - now_reading)
        entry.reading = now_reading

    def admit_session(self, client: bytes, count: Callable[[], int]) -> None:
        """EMFILE when the client has too many files open for writing. `count` counts the rows."""
        entry = self._clients.get(client)
        if entry is None or entry.sessions < limits.SESSIONS_PER_CLIENT_MAX:
            return
        now_ns = self._monotonic_ns()
        if entry.counted_ns is None or now_ns - entry.counted_ns >= RECOUNT_S * 1e9:
            entry.sessions, entry.counted_ns = count(), now_ns
        if entry.sessions >= limits.SESSIONS_PER_CLIENT_MAX:
            detail = f"the client has {entry.sessions} files open for writing"
            raise refuse(errno.EMFILE, "open", detail)

    def sessions_of(self, client: bytes) -> int:
        entry = self._clients.get(client)
        return entry.sessions if entry is not None else 0

    def count_sessions(self, client: bytes, change: int) -> None:
        """After the commit that opened or closed."""
        self.seen(client)
        entry = self._clients[client]
        entry.sessions = max(entry.sessions + change, 0)

    def session_ended(self, client: bytes) -> None:
        """Without the client, which is no nearer to life by it."""
        entry = self._clients.get(client)
        if entry is not None:
            entry.sessions = max(entry.sessions - 1, 0)

    def is_silent(self, client: bytes) -> bool:
        entry = self._clients.get(client)
        return entry is None or self._monotonic_ns() - entry.seen_ns > self._silent_ns

    def unknown(self, clients: Iterable[bytes]) -> list[bytes]:
        return [client for client in clients if client not in self._clients]

    def silent(self) -> list[bytes]:
        return [client for client in self._clients if self.is_silent(client)]

    def forget(self, client: bytes) -> None:
        """Its sessions are gone; what it held open for reading is released."""
        entry = self._clients.pop(client, None)
        if entry is not None:
            self._forget_readers(entry.reading)

    def is_read(self, inode: int) -> bool:
        return inode in self._readers

    def _forget_readers(self, inodes: Iterable[int]) -> None:
        for inode in inodes:
            self._readers[inode] -= 1
            if self._readers[inode] <= 0:
                del self._readers[inode]

    def statistics(self) -> ClientStatistics:
        return ClientStatistics(len(self._clients), len(self._readers))
