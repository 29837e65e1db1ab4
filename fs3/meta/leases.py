"""Who may cache what, until when: the seam for recalls.

Every reply with an entry or attributes grants the client a lease on the inode. The table knows the
holders of the present, in memory only: a lease is never longer than ttl_ms, so after a restart all
are over before the first conflict could be answered from this table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fs3._proto import meta_pb2

TTL_MS_DEFAULT = 1000


@dataclass(frozen=True)
class LeaseStatistics:
    inodes: int
    granted: int


class LeaseTable:
    """Two generations, each as long as a lease: forgetting is dropping the older one whole, and
    memory is bounded by the grants of 2 ttl. Not thread-safe: guarded by the lock of the store."""

    def __init__(self, monotonic_ns: Callable[[], int], *, ttl_ms: int = TTL_MS_DEFAULT) -> None:
        self._monotonic_ns = monotonic_ns
        self._ttl_ms = ttl_ms
        self._turned_ns = monotonic_ns()
        self._young: dict[int, set[bytes]] = {}
        self._old: dict[int, set[bytes]] = {}
        self._granted = 0

    def grant(self, inode: int, client: bytes) -> meta_pb2.Lease:
        self._granted += 1
        holders = self._young.get(inode)
        if holders is None:
            self._young[inode] = {client}
        else:
            holders.add(client)
        return meta_pb2.Lease(id=self._granted, ttl_ms=self._ttl_ms)

    def turn(self) -> None:
        """Called now and then; a generation ends when it is older than a lease."""
        now_ns = self._monotonic_ns()
        if now_ns - self._turned_ns >= self._ttl_ms * 1_000_000:
            self._old, self._young = self._young, {}
            self._turned_ns = now_ns

    def holders(self, inode: int) -> set[bytes]:
        """Clients that may cache the inode now; perhaps some whose lease has just ended."""
        return self._young.get(inode, set()) | self._old.get(inode, set())

    def statistics(self) -> LeaseStatistics:
        return LeaseStatistics(len(self._young.keys() | self._old.keys()), self._granted)
