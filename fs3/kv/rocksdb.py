"""The embedded engine: RocksDB under our own transactions. One process owns one directory.

    run_batch  ops ── SerialTransaction over one WriteSet ──┐
    begin      OptimisticTransaction over one version ──────┴── one WriteBatch = one log record

What is promised:
1. A commit is one WriteBatch, written to the log (the operating system has it) before commit() or
   run_batch() returns: a killed process loses nothing that returned, and no batch is ever there in
   part.
2. sync() flushes the log to the device. What was committed after the last sync may be lost with
   the power, from the end: what survives is a prefix of the commits.
3. After a failed write or sync the store refuses everything (fail-stop): later operations may have
   seen what is not on disk.

Files beside RocksDB's own:
    OWNER      JSON {pid, owner, host} of the process that holds the flock on it
    FORMAT     "fs3-kv 1\\n", written after the first open; with it, a missing or empty RocksDB is
               damage, not new
    DURABLE    u64 version and u32 CRC32 (little-endian): every commit up to this version was
               synced once. A store that comes back with less lost acknowledged commits, and says
               so instead of serving.
"""

import fcntl
import json
import os
import pathlib
import socket
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import rocksdict

from fs3.errors import Conflict, Damaged, Fs3Error, OutcomeUnknown, Refused, RetryElsewhere, Status
from fs3.kv.api import KEY_END, CommitVersion, Transaction
from fs3.kv.transaction import ConflictWindow, OptimisticTransaction, SerialTransaction
from fs3.kv.writes import Overlaid, Pair, WriteSet

__all__ = ["RocksStore"]

T = TypeVar("T")

_FORMAT = b"fs3-kv 1\n"
_VERSION_KEY = KEY_END + b"version"  # outside the key space of callers; in every WriteBatch
_VERSION = struct.Struct("<Q")
_DURABLE = struct.Struct("<QI")
_WRITE_BUFFER_BYTES = 32 << 20
_BLOCK_CACHE_BYTES = 64 << 20
_LOG_BYTES_MAX = 256 << 20
_PAGE = 256  # pairs read under one hold of the state lock
_UNDO_KEYS_MAX = 200_000  # old values kept for one open transaction


class RocksStore:
    """KeyValueStore (kv.api) in `directory`, made when it does not exist.

    Locks, in this order: `_commit_lock` (one commit or batch at a time) before `_state_lock` (a
    write and the version that names it change together, so a snapshot always knows its version).
    sync() takes neither while it waits for the device.
    """

    shared = False

    def __init__(self, directory: str | os.PathLike[str], *, owner: str) -> None:
        """`owner`: who this is, for the message that another process gets ("meta-1 incarnation
        9f3c").

        Raises Refused(EBUSY) naming the owner when another process has it, Damaged naming the
        directory when its content cannot be trusted.
        """
        self._directory = pathlib.Path(directory)
        self._where = f"kv {self._directory}"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._owner_file = self._take_ownership(owner)
        self._commit_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._window = ConflictWindow()
        self._open: weakref.WeakKeyDictionary[OptimisticTransaction, _PastView] = (
            weakref.WeakKeyDictionary()
        )
        self._failure: Fs3Error | None = None
        try:
            self._db = self._open_database()
            self._reader = _DatabaseView(self._db, self)
            self._version = self._recovered_version()
            self._durable_version = self._version
        except BaseException:
            os.close(self._owner_file)
            raise

    # -- contract ------------------------------------------------------------------------------

    def begin(self) -> Transaction:
        with self._state_lock:
            self._check_usable()
            past = _PastView(self._reader, self._state_lock)
            transaction = OptimisticTransaction(past, self._version, self._commit)
            self._open[transaction] = past
        return transaction

    def run_batch(
        self, operations: Sequence[Callable[[Transaction], T]]
    ) -> list[T | BaseException]:
        results: list[T | BaseException] = []
        with self._commit_lock:
            self._check_usable()
            batch = WriteSet()
            view = Overlaid(batch, self._reader)
            for operation in operations:
                transaction = SerialTransaction(view)
                try:
                    result = operation(transaction)
                    transaction.writes.check_limits()
                except Exception as error:
                    results.append(error)
                    continue
                batch.absorb(transaction.writes)
                results.append(result)
            self._check_usable()
            self._apply(batch)
        return results

    def claim(self, cluster_id: bytes) -> None:
        pass

    def sync(self) -> None:
        with self._sync_lock:
            self._check_usable()
            version = self._version  # committed before the flush begins, so the flush covers it
            if version == self._durable_version:
                return
            try:
                self._db.flush_wal(True)
                self._write_durable_mark(version)
            except Exception as error:
                raise self._fail(f"sync failed: {error}") from error
            self._durable_version = version

    def close(self) -> None:
        with self._sync_lock, self._commit_lock, self._state_lock:
            if self._failure is None:
                self._failure = RetryElsewhere(
                    Status.SHUTTING_DOWN, self._where, "the store is closed"
                )
                self._db.flush_wal(True)
                self._write_durable_mark(self._version)
            elif self._owner_file < 0:
                return
            for transaction in list(self._open):
                transaction.cancel()
            self._db.close()
            os.close(self._owner_file)
            self._owner_file = -1

    @property
    def version(self) -> CommitVersion:
        """Of the newest commit."""
        return self._version

    # -- commit --------------------------------------------------------------------------------

    def _commit(self, transaction: OptimisticTransaction) -> CommitVersion:
        with self._commit_lock:
            self._check_usable()
            self._window.check(transaction)
            return self._apply(transaction.writes)

    def _apply(self, writes: WriteSet) -> CommitVersion:
        """REQUIRES: _commit_lock."""
        if not writes and not writes.extra_conflicts:
            return self._version
        version = self._version + 1
        batch = rocksdict.WriteBatch(raw_mode=True)
        for begin, end in writes.cleared:
            batch.delete_range(begin, end)
        for key, value in writes.points.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_VERSION_KEY, _VERSION.pack(version))
        with self._state_lock:
            readers = [(t, past) for t, past in self._open.items() if t.is_open]
            if readers:
                _keep_old_values([past for _, past in readers], self._reader, writes)
            try:
                self._db.write(batch)
            except Exception as error:
                raise self._fail(f"commit failed: {error}") from error
            self._version = version
        oldest = min((t.read_version for t, _ in readers), default=version)
        self._window.add(version, writes)
        self._window.forget_before(oldest)
        return version

    def _fail(self, detail: str) -> Fs3Error:
        self._failure = OutcomeUnknown(
            Status.TIMED_OUT,
            self._where,
            f"{detail}; the store stopped: check the disk and start the service again",
        )
        return self._failure

    def _check_usable(self) -> None:
        if self._failure is not None:
            failure = self._failure
            raise type(failure)(failure.code, failure.where, failure.detail)

    def damaged(self, detail: str) -> Damaged:
        return Damaged(
            Status.CHECKSUM_MISMATCH,
            self._where,
            f"{detail}. The files of this directory are damaged or incomplete; "
            "restore the directory from a backup, do not delete single files",
        )

    # -- opening -------------------------------------------------------------------------------

    def _take_ownership(self, owner: str) -> int:
        path = self._directory / "OWNER"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = os.pread(file, 4096, 0).decode(errors="replace").strip()
            os.close(file)
            raise Refused(
                16,  # EBUSY
                self._where,
                f"in use by {record or 'another process'}; one process owns the directory: "
                "stop that one, or give this one another directory",
            ) from None
        text = json.dumps({"pid": os.getpid(), "owner": owner, "host": socket.gethostname()})
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode() + b"\n", 0)
        return file

    def _open_database(self) -> rocksdict.Rdict:
        marker = self._directory / "FORMAT"
        known = marker.exists()
        if known and marker.read_bytes() != _FORMAT:
            raise self.damaged(f"FORMAT says {marker.read_bytes()[:40]!r}, expected {_FORMAT!r}")
        database = self._directory / "db"
        if known and not (database / "CURRENT").exists():
            raise self.damaged("db/CURRENT is missing")
        try:
            db = rocksdict.Rdict(str(database), _options(create=not known))
        except Exception as error:
            raise self.damaged(f"RocksDB cannot open it: {error}") from error
        if not known:
            _write_synced(marker, _FORMAT)
        return db

    def _recovered_version(self) -> CommitVersion:
        record = self._reader.get(_VERSION_KEY)
        version: int = _VERSION.unpack(record)[0] if record is not None else 0
        self._durable_file = self._directory / "DURABLE"
        promised = 0
        if self._durable_file.exists():
            mark = self._durable_file.read_bytes()
            if len(mark) == _DURABLE.size:
                number, crc = _DURABLE.unpack(mark)
                if crc == zlib.crc32(mark[:8]):  # torn by a power loss: no promise to check
                    promised = number
        if version < promised:
            raise self.damaged(
                f"it came back with commit {version}, but commit {promised} was synced: "
                f"{promised - version} acknowledged commits are lost"
            )
        return version

    def _write_durable_mark(self, version: CommitVersion) -> None:
        number = _VERSION.pack(version)
        file = os.open(self._durable_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(file, number + struct.pack("<I", zlib.crc32(number)), 0)
        finally:
            os.close(file)


class _DatabaseView:
    """The View of what is committed now."""

    __slots__ = ("_db", "_store")

    def __init__(self, db: rocksdict.Rdict, store: RocksStore) -> None:
        self._db = db
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._store.damaged(f"key {key[:24]!r} cannot be read: {error}") from error
        return value

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]:
        """Steps the raw iterator: rocksdict's items() ends quietly at a damaged block, and crosses
        the lower bound when it goes backwards (both in 0.3.29)."""
        bounds = rocksdict.ReadOptions()
        bounds.set_iterate_lower_bound(begin)
        bounds.set_iterate_upper_bound(end)
        try:
            at = self._db.iter(bounds)
            (at.seek_for_prev if reverse else at.seek)(end if reverse else begin)
            step = at.prev if reverse else at.next
            while at.valid():
                key = at.key()
                if not begin <= key < end:
                    if key == end and reverse:
                        step()
                        continue
                    break
                yield key, at.value()
                step()
            at.status()
        except Exception as error:
            raise self._store.damaged(f"range {begin[:24]!r} cannot be read: {error}") from error


class _PastView:
    """The View of one version for ever: what is committed now, under the old values of what
    changed since.

    rocksdict 0.3.29 has snapshots, but their iterators read the newest state, so the old values are
    kept here, only while a transaction from begin() is open.
    """

    __slots__ = ("_lock", "_now", "undo")

    def __init__(self, now: _DatabaseView, state_lock: threading.Lock) -> None:
        self.undo = WriteSet()
        self._now = now
        self._lock = state_lock

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            self._check_complete()
            return Overlaid(self.undo, self._now).get(key)

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[Pair]:
        """Page by page: commits go on between two pages and change nothing that is seen here."""
        while True:
            with self._lock:
                self._check_complete()
                found = Overlaid(self.undo, self._now).scan(begin, end, reverse)
                page = list(islice(found, _PAGE))
            yield from page
            if len(page) < _PAGE:
                return
            if reverse:
                end = page[-1][0]
            else:
                begin = page[-1][0] + b"\0"

    def _check_complete(self) -> None:
        if len(self.undo.points) > _UNDO_KEYS_MAX:
            raise Conflict(Status.BUSY, "kv/read", "the transaction is too old; run it again")


def _keep_old_values(pasts: list[_PastView], now: _DatabaseView, writes: WriteSet) -> None:
    """Before `writes` go to the database. REQUIRES: the state lock."""
    old: dict[bytes, bytes | None] = {key: now.get(key) for key in writes.points}
    for begin, end in writes.cleared:
        old.update(now.scan(begin, end, False))
    for past in pasts:
        if len(past.undo.points) > _UNDO_KEYS_MAX:
            continue  # it cannot be read any more
        for key, value in old.items():
            if key not in past.undo.points:
                past.undo.put(key, value)


def _options(*, create: bool) -> rocksdict.Options:
    """Small: a laptop runs this beside everything else. About 100 MiB at most."""
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(_BLOCK_CACHE_BYTES))
    table.set_bloom_filter(10, False)  # most lookups of a create are for keys that do not exist
    table.set_cache_index_and_filter_blocks(True)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_max_total_wal_size(_LOG_BYTES_MAX)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(4)
    options.set_paranoid_checks(True)
    # What survives a power loss is a prefix of the commits; the DURABLE mark finds a prefix that
    # is too short.
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.point_in_time())
    return options


def _write_synced(path: pathlib.Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
