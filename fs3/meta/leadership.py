"""Which of several metadata services does what has to be done once: garbage, silent clients, the
truncates of services that died. The lease record is LEAD (kv/election.py); every transaction of
these chores compares the epoch, so a former leader that wakes up changes nothing."""

import logging

from fs3.errors import Fs3Error
from fs3.kv import keys
from fs3.kv.api import KeyValueStore, Transaction
from fs3.kv.election import Election, Fenced
from fs3.runtime.clock import Clock

__all__ = ["Leadership"]

log = logging.getLogger(__name__)

# Nobody waits for the chores, and every client has told its readings before a new leader starts.
LEASE_S = 10.0


class Leadership:
    """tick() about once a second, from one thread; the rest from any. On a store of one owner
    that owner leads always."""

    def __init__(self, kv: KeyValueStore, clock: Clock, *, holder: str) -> None:
        self._kv = kv
        self._clock = clock
        self._holder = holder
        self._election = self._stand()
        self.term = 0  # grows; whoever keeps something for a term compares it

    def tick(self) -> None:
        if not self._kv.shared:
            return
        try:
            if self._election.epoch:
                self._election.renew()
            elif self._election.try_take():
                self.term += 1
                log.info("does the chores of the metadata services, epoch %d", self._election.epoch)
        except Fenced as error:
            log.info("another service does the chores: %s", error)
            self._election = self._stand()
        except Fs3Error as error:
            log.warning("the lease on the chores was not renewed: %s", error)

    @property
    def leads(self) -> bool:
        return not self._kv.shared or self._election.held()

    def guard(self, txn: Transaction) -> None:
        """In every transaction of the chores. Raises Fenced."""
        if self._kv.shared:
            self._election.guard(txn)

    def _stand(self) -> Election:
        return Election(
            self._kv,
            self._clock,
            key=keys.LEADER,
            holder=self._holder,
            lease_s=LEASE_S,
            exclusive=not self._kv.shared,
        )
