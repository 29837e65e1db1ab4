"""Connections of the `postgres` engine: opened when needed, bounded, never given out broken; and
what the errors of the server mean to a caller.

What an error means depends on when it comes:
    before COMMIT was sent      nothing was applied: RetryLater, or what the server said
    with or after COMMIT        when the server answered, nothing was applied; when the connection
                                is gone, nobody knows: OutcomeUnknown
"""

import logging
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fs3.errors import BadRequest, Conflict, Damaged, Fs3Error, OutcomeUnknown, RetryLater, Status
from fs3.kv import postgres_schema as sql

if TYPE_CHECKING:
    import psycopg

__all__ = ["Pool", "import_driver", "is_passing"]

log = logging.getLogger(__name__)

CONNECT_S = 3
WAIT_S = 10.0  # for a connection that another thread uses
# A server that vanished without a word is noticed within seconds.
KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"


def import_driver() -> ModuleType:
    """psycopg, only when a store of this kind is opened."""
    try:
        import psycopg
    except ImportError as error:
        detail = (
            f"the engine `postgres` needs the driver psycopg 3 ({error}); install it with: "
            "pip install 'fs3-filesystem[postgres]'"
        )
        raise BadRequest(Status.BAD_REQUEST, "kv postgres", detail) from None
    return psycopg


class Pool:
    """Thread-safe. take() and put() in pairs; a broken connection is closed by put()."""

    def __init__(self, url: str, *, name: str, connections_max: int) -> None:
        self.driver = import_driver()
        self._url = url
        self._name = name
        self._idle: list[psycopg.Connection[Any]] = []
        self._changed = threading.Condition()
        self._open = 0
        self._connections_max = connections_max
        self._closed = False
        self.where = self._describe()

    def take(self, *, fresh: bool = False) -> "psycopg.Connection[Any]":
        """An idle connection, else a new one. `fresh`: the idle ones are believed to be dead, as
        after a restart of the server. Raises RetryLater when there is none to be had."""
        with self._changed:
            if fresh:
                while self._idle:
                    self._drop(self._idle.pop())
            if not self._changed.wait_for(self._has_room, WAIT_S):
                detail = f"all {self._connections_max} connections are in use; try again"
                raise RetryLater(Status.BUSY, self.where, detail)
            self._check_open()
            if self._idle:
                return self._idle.pop()
            self._open += 1
        try:
            return self._connect()
        except BaseException:
            with self._changed:
                self._open -= 1
                self._changed.notify()
            raise

    def put(self, connection: "psycopg.Connection[Any]") -> None:
        """Takes it back when it is between two transactions; else it is closed."""
        idle = self.driver.pq.TransactionStatus.IDLE
        with self._changed:
            if connection.closed or self._closed or connection.info.transaction_status != idle:
                self._drop(connection)
            else:
                self._idle.append(connection)
            self._changed.notify()

    def close(self) -> None:
        """Ends the idle ones now, the others when they come back."""
        with self._changed:
            self._closed = True
            while self._idle:
                self._drop(self._idle.pop())
            self._changed.notify_all()

    def failure(self, error: Exception, *, committing: bool = False) -> Fs3Error:
        """What `error` of the driver means."""
        state = getattr(error, "sqlstate", None)
        detail = f"{type(error).__name__}: {error}".strip().replace("\n", "; ")
        if state == sql.CONFLICT:
            return Conflict(Status.BUSY, self.where, "what was read has been written; run it again")
        if state == sql.TOO_OLD:
            return Conflict(Status.BUSY, self.where, "the transaction is too old; run it again")
        if state in (_SERIALIZATION_FAILURE, _DEADLOCK):
            return Conflict(Status.BUSY, self.where, f"{detail}; run it again")
        if state is not None and state.startswith(("XX", "42", "22")):
            return Damaged(
                Status.CHECKSUM_MISMATCH,
                self.where,
                f"{detail}; look at the log of the database server",
            )
        if committing and isinstance(error, self.driver.OperationalError) and _is_lost(state):
            text = f"the connection was lost in COMMIT ({detail}); ask again with the same id"
            return OutcomeUnknown(Status.CONNECTION_LOST, self.where, text)
        return RetryLater(Status.BUSY, self.where, f"{detail}; nothing was changed, try again")

    def _has_room(self) -> bool:
        return bool(self._idle) or self._open < self._connections_max or self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise RetryLater(Status.SHUTTING_DOWN, self.where, "the store is closed")

    def _drop(self, connection: "psycopg.Connection[Any]") -> None:
        connection.close()
        self._open -= 1

    def _connect(self) -> "psycopg.Connection[Any]":
        options = {"connect_timeout": CONNECT_S, "application_name": self._name, **KEEPALIVE}
        connection: psycopg.Connection[Any] | None = None
        try:
            connection = self.driver.connect(self._url, autocommit=True, **options)
            # Only where it is asked for: in a pipeline that fails, the driver would take statements
            # for prepared that the server has skipped.
            connection.prepare_threshold = 1 << 60
            connection.execute(sql.SESSION)
            off = connection.execute("SHOW synchronous_commit").fetchone()
            if off in (("off",), ("local",)):
                connection.execute("SET synchronous_commit = on")
        except self.driver.Error as error:
            if connection is not None:
                connection.close()
            raise self.failure(error) from error
        return connection

    def _describe(self) -> str:
        """For messages: where, never with which password."""
        try:
            parts = self.driver.conninfo.conninfo_to_dict(self._url)
        except self.driver.ProgrammingError as error:
            detail = f"kv: this is no address of a PostgreSQL database: {error}"
            raise BadRequest(Status.BAD_REQUEST, "kv postgres", detail) from None
        host = parts.get("host", parts.get("hostaddr", "local"))
        return f"kv postgres {host}/{parts.get('dbname', '')}"


def is_passing(error: Fs3Error) -> bool:
    """True for what another attempt may heal: the server restarts, a connection broke."""
    return isinstance(error, RetryLater) and error.code != Status.SHUTTING_DOWN


def _is_lost(state: str | None) -> bool:
    """No answer of the server, or the farewell of one that stops: COMMIT may have been done."""
    return state is None or state.startswith(("08", "57P"))
