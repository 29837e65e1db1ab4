"""Ends the sessions of clients that are silent: their files get the length that storage knows.

    look()    finds silent clients (under the store's lock)      one job per client
    job       for each session: ask storage for the length, then one transaction settles and
              removes it

A client that comes back meanwhile keeps what is left; a close of a session that was pruned is
settled by measuring (ops/sync.py), so bytes that storage acknowledged are never lost.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import session
from fs3.meta.inode import HAS_DATA, Inode
from fs3.meta.ports import ChunkPort, Jobs, Measure
from fs3.runtime.failpoint import failpoint

if TYPE_CHECKING:
    from fs3.meta.store import MetaStore

__all__ = ["ClientPruner"]

log = logging.getLogger(__name__)

SESSIONS_PER_STEP = 256
PAGE = 1000  # sessions looked at in one transaction
RETRY_S = 5.0


class ClientPruner:
    def __init__(self, store: "MetaStore", chunks: ChunkPort, jobs: Jobs) -> None:
        self._store = store
        self._chunks = chunks
        self._jobs = jobs
        self._busy: set[bytes] = set()
        self._cursor = keys.CLIENT_SESSION

    def look(self, silent: Sequence[bytes]) -> None:
        """REQUIRES: the lock of the store."""
        for client in silent:
            if client not in self._busy:
                self._busy.add(client)
                self._jobs.spawn(partial(self._prune, client))

    def find_clients(self) -> None:
        """Clients whose sessions another service opened, and who died before they told this one
        that they live: they are silent from now on. One page of the index per call."""
        end = keys.prefix_end(keys.CLIENT_SESSION)
        (rows,) = self._store.transact(
            [lambda txn: txn.get_range(self._cursor, end, limit=PAGE, snapshot=True)]
        )
        self._cursor = rows[-1][0] + b"\0" if len(rows) == PAGE else keys.CLIENT_SESSION
        clients = {keys.client_session_fields(key)[0] for key, _ in rows}
        with self._store.lock:
            for client in self._store.env.clients.unknown(clients):
                self._store.env.clients.seen(client)

    def _prune(self, client: bytes) -> None:
        try:
            done = self._step(client)
        except OSError as error:
            log.info("client %s is pruned later: %s", client.hex(), error)
            self._jobs.later(RETRY_S, partial(self._prune, client))
            return
        if done:
            self._busy.discard(client)
        else:
            self._jobs.spawn(partial(self._prune, client))

    def _step(self, client: bytes) -> bool:
        """A bounded part of the work; True when there is nothing left to do."""
        clients = self._store.env.clients
        (held,) = self._store.transact([partial(_sessions_of, client)])
        for inode, session_id in held:
            if not clients.is_silent(client):
                return True
            self._end(client, inode, session_id)
        if held:
            return False
        if clients.is_silent(client):
            clients.forget(client)
            log.info("client %s was silent and is forgotten", client.hex())
        return True

    def _end(self, client: bytes, number: int, session_id: bytes) -> None:
        (inode,) = self._store.transact([lambda txn: inodes.find(txn, number)])
        measure = Measure(0, 0)
        if inode is not None:
            measure = self._chunks.measure(number, inode.layout)
            failpoint("prune.measured")
        epoch = inode.truncate_epoch if inode is not None else 0
        now_ns = self._store.wall_ns()

        def settle(txn: Transaction) -> bool:
            self._store.guard(txn)
            row = keys.session(number, session_id)
            if txn.get(keys.intent(number)) is not None or txn.get(row) is None:
                return False  # the length is in motion: the next step comes back to it; or closed
            found = inodes.find(txn, number)
            if found is not None:
                if found.truncate_epoch != epoch:
                    return False
                _settle(found, measure, now_ns)
                inodes.store(txn, found)
            txn.clear(row)
            txn.clear(keys.client_session(client, number, session_id))
            return True

        (ended,) = self._store.transact([settle])
        if ended:
            with self._store.lock:
                self._store.env.clients.session_ended(client)
        failpoint("prune.settled")


def _sessions_of(client: bytes, txn: Transaction) -> list[tuple[int, bytes]]:
    return session.of_client(txn, client, SESSIONS_PER_STEP)


def _settle(inode: Inode, measure: Measure, now_ns: int) -> None:
    """What the client wrote is not known: the content counts as changed."""
    inode.size = max(inode.size, measure.length)
    inode.note_stored(measure.stored)
    inode.data_version += 1
    inode.ctime_ns = now_ns
    if measure.length:
        inode.flags |= HAS_DATA
