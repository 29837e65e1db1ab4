"""The reading half of the `postgres` engine: one version of the store, on its own connection."""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fs3.errors import Fs3Error
from fs3.kv import postgres_schema as sql
from fs3.kv.api import CommitVersion
from fs3.kv.postgres_pool import Pool
from fs3.kv.transaction import OptimisticTransaction
from fs3.kv.writes import Pair

if TYPE_CHECKING:
    import psycopg

__all__ = ["Snapshot", "SnapshotTransaction", "roll_back"]

log = logging.getLogger(__name__)

_PAGE_MIN, _PAGE_MAX = 16, 1024  # pairs of one round trip of a range read, growing by four


class SnapshotTransaction(OptimisticTransaction):
    """One from begin(): gives its connection back when it ends."""

    __slots__ = ("_snapshot",)

    def __init__(
        self, snapshot: "Snapshot", apply: Callable[[OptimisticTransaction], CommitVersion]
    ) -> None:
        super().__init__(snapshot, snapshot.version, apply)
        self._snapshot = snapshot

    def cancel(self) -> None:
        if self.is_open:
            super().cancel()
            self._snapshot.release()

    def __del__(self) -> None:
        self.cancel()


class Snapshot:
    """A View of one version, on a connection inside a transaction. Values are kept: a batch asks
    for the same directory again and again."""

    def __init__(
        self, pool: Pool, connection: "psycopg.Connection[Any]", version: CommitVersion
    ) -> None:
        self.version = version
        self.failure: Fs3Error | None = None
        self._pool = pool
        self._connection = connection
        self._known: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        if key not in self._known:
            rows = self._ask(sql.GET, [key])
            self._known[key] = rows[0][0] if rows else None
        return self._known[key]

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]:
        page = _PAGE_MIN
        while True:
            rows = self._ask(sql.SCAN_REVERSE if reverse else sql.SCAN, [begin, end, page])
            yield from rows
            if len(rows) < page:
                return
            if reverse:
                end = rows[-1][0]
            else:
                begin = rows[-1][0] + b"\0"
            page = min(page * 4, _PAGE_MAX)

    def release(self) -> None:
        """Once."""
        driver = self._pool.driver
        if self._connection.info.transaction_status == driver.pq.TransactionStatus.INTRANS:
            try:
                # Nothing was written; after a ROLLBACK the driver would prepare everything anew.
                self._connection.execute(sql.COMMIT)
            except driver.Error as error:
                log.debug("a connection is given up: %s", error)
                self._connection.close()
        roll_back(self._connection, driver)
        self._pool.put(self._connection)

    def _ask(self, query: Any, values: list[Any]) -> list[Any]:
        if self.failure is not None:
            raise self.failure
        try:
            return self._connection.execute(query, values, prepare=True, binary=True).fetchall()
        except self._pool.driver.Error as error:
            self.failure = self._pool.failure(error)
            raise self.failure from error


def roll_back(connection: "psycopg.Connection[Any]", driver: Any) -> None:
    """To between two transactions; a connection that cannot go there is closed by the pool."""
    if connection.closed:
        return
    if connection.info.transaction_status == driver.pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute(sql.ROLLBACK)
    except driver.Error as error:
        log.debug("a connection is given up: %s", error)
        connection.close()
