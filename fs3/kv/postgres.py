"""The engine for several processes on one store: PostgreSQL under our own optimistic transactions.

    begin      BEGIN REPEATABLE READ READ ONLY on a connection of its own; reads are recorded here
    run_batch  the same once for the whole batch, whose operations run one after another
    commit     one message, SERIALIZABLE, all of it in the server:
               take the turn -> nothing that was read was written since? -> version + 1 -> writes

Why not the server's own serializability alone: it may order a transaction before another one that
has committed, which the contract forbids (kv/api.py: what was read and has been written since is
a Conflict), and it aborts by pages of an index, so two clients whose rows are neighbours abort
each other for ever. Here a conflict is exactly a key or range of both. The turn (a table lock,
waited for in order) makes commits queue instead of failing; SERIALIZABLE keeps them right whatever
else somebody runs on these tables.

What is promised:
1. A commit that returned is on the server's stable storage (synchronous_commit; sync() has nothing
   left to do). A killed server or client loses nothing that returned.
2. When the connection is lost in COMMIT the outcome is unknown, and OutcomeUnknown says so. The
   store goes on; the caller repeats the request under the same id and finds its record or not.
3. A batch ends: after OPTIMISTIC_ATTEMPTS conflicts it takes the turn first and then runs, with
   nothing beside it. Who falls asleep holding the turn is thrown out by the server after 1 s.

Tables and their invariants: postgres_schema.py. Errors and connections: postgres_pool.py. Reading:
postgres_snapshot.py.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fs3.errors import Conflict, Damaged, Denied, Fs3Error, Refused, RetryElsewhere, Status
from fs3.kv import postgres_schema as sql
from fs3.kv.api import CommitVersion, Transaction
from fs3.kv.optimistic_batch import Batch
from fs3.kv.postgres_pool import Pool, is_passing
from fs3.kv.postgres_snapshot import Snapshot, SnapshotTransaction, roll_back
from fs3.kv.transaction import Reads
from fs3.kv.writes import WriteSet

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresStatistics", "PostgresStore"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTIONS_MAX = 16  # per process; a server takes 100 by default
OPTIMISTIC_ATTEMPTS = 3
COMMIT_ATTEMPTS = 20  # when the server itself asks for a repetition
_KEY_BYTES_MAX = 2048  # an index entry is at most a third of a page
_ALREADY_THERE = {"42P06", "42P07", "23505"}


class _Attempt(Reads, Protocol):
    """What commit needs: a Batch or an OptimisticTransaction."""

    @property
    def read_version(self) -> CommitVersion: ...
    @property
    def writes(self) -> WriteSet: ...


@dataclass(frozen=True)
class PostgresStatistics:
    commits: int
    conflicts: int
    turns_first: int  # batches that conflicted too often and ran with the turn taken


class PostgresStore:
    """KeyValueStore (kv.api). Thread-safe: a connection belongs to one transaction at a time.

    Locks: `_lock` guards the counters and the set of open transactions, and is never held while
    the server is asked.
    """

    shared = True

    def __init__(self, url: str, *, owner: str, connections_max: int = CONNECTIONS_MAX) -> None:
        """`url`: postgres://user@host:port/database, or whatever libpq takes. `owner`: who this
        is, for the administrator of the server.

        Raises RetryLater when the server does not answer, Refused or Damaged when the database
        cannot serve as a store.
        """
        self._pool = Pool(url, name=f"fs3 {owner}"[:63], connections_max=connections_max)
        self._driver = self._pool.driver
        self._where = self._pool.where
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[SnapshotTransaction] = weakref.WeakSet()
        self._closed = False
        self._writer = blake2b(owner.encode(), digest_size=1).digest()[0]
        self._commits = self._conflicts = self._turns_first = 0
        try:
            self._prepare_schema()
        except BaseException:
            self._pool.close()
            raise

    # -- contract ------------------------------------------------------------------------------

    def begin(self) -> Transaction:
        self._check_open()
        transaction = SnapshotTransaction(self._snapshot(), self._commit)
        with self._lock:
            self._open.add(transaction)
        return transaction

    def run_batch(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        self._check_open()
        for _ in range(OPTIMISTIC_ATTEMPTS):
            snapshot = self._snapshot()
            try:
                batch = Batch(snapshot, snapshot.version, self._writer)
                results = batch.run(operations)
            finally:
                snapshot.release()
            if snapshot.failure is not None:
                raise snapshot.failure
            try:
                if batch.writes or batch.writes.extra_conflicts:
                    self._commit(batch)
                return results
            except Conflict:
                continue
        return self._run_alone(operations)

    def claim(self, cluster_id: bytes) -> None:
        connection = self._pool.take()
        try:
            connection.execute(sql.CLAIM, [cluster_id])
            row = connection.execute(sql.READ_STORE, binary=True).fetchone()
        except self._driver.Error as error:
            raise self._pool.failure(error) from error
        finally:
            self._pool.put(connection)
        if row is not None and row[1] != cluster_id:
            detail = (
                f"the database belongs to cluster {row[1].hex()}, this is {cluster_id.hex()}; "
                "give each cluster a database of its own"
            )
            raise Denied(Status.WRONG_CLUSTER, self._where, detail)

    def sync(self) -> None:
        """Every commit is on stable storage when it returns."""
        self._check_open()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            transactions = list(self._open)
        for transaction in transactions:
            transaction.cancel()
        self._pool.close()

    def statistics(self) -> PostgresStatistics:
        with self._lock:
            return PostgresStatistics(self._commits, self._conflicts, self._turns_first)

    # -- reading -------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        """A view of the newest version. The first connection may be one to a server that has
        restarted since: then once more, with a new one."""
        for fresh in (False, True):
            connection = self._pool.take(fresh=fresh)
            try:
                with connection.pipeline():
                    connection.execute(sql.BEGIN_READ)
                    version = connection.execute(sql.READ_VERSION, binary=True)
                row = version.fetchone()
                assert row is not None
                return Snapshot(self._pool, connection, row[0])
            except self._driver.Error as error:
                failure = self._pool.failure(error)
                self._pool.put(connection)
                if fresh or not is_passing(failure):
                    raise failure from error
        raise AssertionError("unreachable")

    # -- committing ----------------------------------------------------------------------------

    def _commit(self, attempt: _Attempt) -> CommitVersion:
        """Raises Conflict, OutcomeUnknown, or RetryLater when nothing was applied for sure."""
        self._check_open()
        _check_keys(attempt.writes)
        for _ in range(COMMIT_ATTEMPTS):
            connection = self._pool.take()
            try:
                cursor = self._driver.ClientCursor(connection)
                cursor.execute(sql.TAKE_TURN_AND_WRITE, _arguments(attempt))
                return self._committed(_number(cursor, behind=sql.TURN_RESULTS))
            except self._driver.Error as error:
                failure = self._pool.failure(error, committing=True)
                roll_back(connection, self._driver)
                if getattr(error, "sqlstate", None) == "40001":
                    continue  # somebody else changed these tables; what was read is compared again
                self._note(failure)
                raise failure from error
            finally:
                self._pool.put(connection)
        raise Conflict(Status.BUSY, self._where, "the server refuses every attempt; try again")

    def _run_alone(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        """The turn first, then the operations: nothing can come between."""
        with self._lock:
            self._turns_first += 1
        connection = self._pool.take()
        committing = False
        try:
            cursor = self._driver.ClientCursor(connection)
            cursor.execute(sql.TAKE_TURN_AND_LOOK)
            version = _number(cursor, behind=sql.TURN_RESULTS)
            view = Snapshot(self._pool, connection, version)
            batch = Batch(view, view.version, self._writer)
            results = batch.run(operations)
            if view.failure is not None:
                raise view.failure
            _check_keys(batch.writes)
            if batch.writes or batch.writes.extra_conflicts:
                committing = True
                cursor.execute(sql.WRITE, _arguments(batch))
                self._committed(_number(cursor, behind=0))
            return results
        except self._driver.Error as error:
            failure = self._pool.failure(error, committing=committing)
            self._note(failure)
            raise failure from error
        finally:
            roll_back(connection, self._driver)
            self._pool.put(connection)

    def _committed(self, version: CommitVersion) -> CommitVersion:
        with self._lock:
            self._commits += 1
        return version

    def _note(self, failure: Fs3Error) -> None:
        if isinstance(failure, Conflict):
            with self._lock:
                self._conflicts += 1

    def _check_open(self) -> None:
        if self._closed:
            raise RetryElsewhere(Status.SHUTTING_DOWN, self._where, "the store is closed")

    # -- opening -------------------------------------------------------------------------------

    def _prepare_schema(self) -> None:
        connection = self._pool.take()
        try:
            self._check_server(connection)
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [sql.CREATION_LOCK])
                if connection.execute(sql.EXISTS).fetchone() == (False,):
                    connection.execute(sql.CREATE)
                    log.info("made the tables of a new store in %s", self._where)
            row = connection.execute(sql.READ_STORE).fetchone()
        except self._driver.Error as error:
            if getattr(error, "sqlstate", None) in _ALREADY_THERE:
                detail = f"its schema `fs3` is not a store of fs3 ({error}); use another database"
                raise Refused(17, self._where, detail.replace("\n", "; ")) from error  # EEXIST
            raise self._pool.failure(error) from error
        finally:
            self._pool.put(connection)
        schema = row[0] if row is not None else None
        if schema != sql.SCHEMA:
            detail = f"schema {schema}, and this program knows {sql.SCHEMA}; upgrade it"
            raise Damaged(Status.CHECKSUM_MISMATCH, self._where, detail)

    def _check_server(self, connection: "psycopg.Connection[Any]") -> None:
        if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            detail = "this server is a standby and cannot be written to; name the primary, or all "
            detail += "servers with target_session_attrs=read-write"
            raise Refused(30, self._where, detail)  # EROFS
        if connection.execute("SHOW fsync").fetchone() == ("off",):
            log.warning("%s runs with fsync = off: a power loss will lose the store", self._where)


def _arguments(attempt: _Attempt) -> list[Any]:
    """Of fs3.commit()."""
    writes = attempt.writes
    return [
        attempt.read_version,
        list(attempt.read_keys),
        *_columns(attempt.read_ranges),
        *_columns(writes.cleared),
        *_columns(writes.cleared + writes.extra_conflicts),
        # In order: two commits never wait for each other's rows, should the turn ever be shared.
        *_columns(sorted(writes.points.items(), key=_key_of)),
    ]


def _number(cursor: "psycopg.Cursor[Any]", *, behind: int) -> CommitVersion:
    """The one value of the result behind so many others."""
    for _ in range(behind):
        cursor.nextset()
    row = cursor.fetchone()
    assert row is not None
    number: CommitVersion = row[0]
    return number


def _key_of(pair: tuple[bytes, bytes | None]) -> bytes:
    return pair[0]


def _columns(pairs: Sequence[tuple[bytes, bytes | None]]) -> list[list[bytes | None]]:
    return [[first for first, _ in pairs], [second for _, second in pairs]]


def _check_keys(writes: WriteSet) -> None:
    for key in writes.points:
        if len(key) > _KEY_BYTES_MAX:
            raise ValueError(f"key {key[:40]!r}.. of {len(key)} bytes, at most {_KEY_BYTES_MAX}")
