"""Who is primary among the processes on one store: a lease record with a fencing epoch in it.

    MGMT/primary    of the cluster managers          epoch, holder (name of the process),
    LEAD            of the metadata services         renewal (counts renewals), address

Safety does not come from clocks: every write of the state compares the epoch in the same
transaction (guard), so an old primary that wakes up changes nothing. Clocks bound only how long a
paused primary may still acknowledge heartbeats: a candidate takes over after it saw no renewal for
the whole lease, on its own monotonic clock, and the primary stops at 0.8 of it, counted from
before its renewal.
"""

import logging

import msgspec

from fs3.errors import Damaged, Denied, Status
from fs3.kv.api import KeyValueStore, Transaction, transact
from fs3.limits import LEASE_SERVER_SHARE
from fs3.runtime.clock import Clock
from fs3.runtime.failpoint import failpoint

__all__ = ["MANAGER_KEY", "Election", "Fenced"]

log = logging.getLogger(__name__)

MANAGER_KEY = b"MGMT/primary"


class Fenced(Denied):
    """Another process became primary; this one must not go on."""


class _Primary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    epoch: int
    holder: str
    renewal: int
    address: str = ""  # where the holder answers, for people who reached a standby


class Election:
    """One candidate, for one term. Not thread-safe but for guard() and held(). `holder` is unique
    per process.

    `exclusive`: the store admits one process at a time (an embedded engine with its lock), so
    whoever opened it knows that the former primary is gone and takes over without waiting.
    """

    def __init__(
        self,
        kv: KeyValueStore,
        clock: Clock,
        *,
        key: bytes,
        holder: str,
        lease_s: float,
        exclusive: bool,
        address: str = "",
    ) -> None:
        self._kv = kv
        self._clock = clock
        self._key = key
        self._holder = holder
        self._address = address
        self._lease_ns = int(lease_s * 1e9)
        self._exclusive = exclusive
        self._seen: _Primary | None = None  # of another holder, and since when it has not moved
        self._seen_since_ns = 0
        self._epoch = 0
        self._held_until_ns = 0

    @property
    def epoch(self) -> int:
        """0 until taken."""
        return self._epoch

    def try_take(self) -> bool:
        """One attempt; call it again until True."""
        now_ns = self._clock.monotonic_ns()
        record = transact(self._kv, self._read)
        if record is not None and not self._expired(record, now_ns):
            return False
        epoch = record.epoch + 1 if record is not None else 1
        try:
            transact(self._kv, lambda txn: self._write_if(txn, record, epoch, 0))
        except Fenced:
            return False
        failpoint("election.taken")
        self._epoch = epoch
        self._held_until_ns = now_ns + int(self._lease_ns * LEASE_SERVER_SHARE)
        log.info("primary with epoch %d", epoch)
        return True

    def renew(self) -> None:
        """Extends the lease. Raises Fenced when another took over."""
        if self._exclusive:
            return
        now_ns = self._clock.monotonic_ns()

        def write(txn: Transaction) -> None:
            record = self.guard(txn)
            self._write_if(txn, record, self._epoch, record.renewal + 1)

        transact(self._kv, write)
        self._held_until_ns = now_ns + int(self._lease_ns * LEASE_SERVER_SHARE)

    def guard(self, txn: Transaction) -> _Primary:
        """Call it in every transaction that writes the state. Raises Fenced."""
        record = self._read(txn)
        if record is None or record.epoch != self._epoch or record.holder != self._holder:
            now = "nobody" if record is None else f"{record.holder} with epoch {record.epoch}"
            detail = f"{self._holder} with epoch {self._epoch} was replaced by {now}"
            raise Fenced(Status.LEASE_EXPIRED, "election", detail)
        return record

    def held(self) -> bool:
        """May a heartbeat be acknowledged now? Ask after the work and before the reply."""
        if not self._epoch:
            return False
        return self._exclusive or self._clock.monotonic_ns() < self._held_until_ns

    @property
    def primary(self) -> str:
        """Address of the primary that try_take() saw; empty when it is not known."""
        return self._seen.address if self._seen is not None else ""

    def _expired(self, record: _Primary, now_ns: int) -> bool:
        if self._exclusive or record.holder == self._holder:
            return True  # nobody else's, or of an earlier term of this process, which has ended
        if record != self._seen:
            self._seen, self._seen_since_ns = record, now_ns
        return now_ns - self._seen_since_ns >= self._lease_ns

    def _write_if(
        self, txn: Transaction, expected: _Primary | None, epoch: int, renewal: int
    ) -> None:
        if self._read(txn) != expected:
            raise Fenced(Status.LEASE_EXPIRED, "election", "another candidate was faster")
        record = _Primary(1, epoch, self._holder, renewal, self._address)
        txn.set(self._key, msgspec.json.encode(record))

    def _read(self, txn: Transaction) -> _Primary | None:
        value = txn.get(self._key)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=_Primary)
        except msgspec.DecodeError as error:
            raise Damaged(Status.CHECKSUM_MISMATCH, "election", str(error)) from error
