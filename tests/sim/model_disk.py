"""The model of a disk: the promises of native/engine, atomic and in memory."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fs3.errors import Status
from tests.sim.disk import (
    EIO,
    EMPTY,
    NOBODY,
    REMOVE,
    REPLACE,
    TRUNCATE,
    WRITE,
    Chunk,
    ChunkKey,
    Disk,
    Identity,
    Position,
    Row,
    Version,
)
from tests.sim.loop import Process

__all__ = ["ModelDisk"]

RESERVE_BYTES = 2048  # kept free of client writes, for what is already on its way


@dataclass(slots=True)
class _State:
    chunks: dict[ChunkKey, Chunk] = field(default_factory=dict)
    rows: dict[tuple[bytes, int], Row] = field(default_factory=dict)
    quirks: frozenset[str] = frozenset()  # planted bugs

    def copy(self) -> _State:
        return _State(dict(self.chunks), dict(self.rows), self.quirks)


Change = Callable[[_State], None]


class ModelDisk(Disk):
    def __init__(
        self, process: Process, landed: Counter[str], quirks: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(process, landed, quirks)
        self._capacity_bytes: int | None = None  # None: endless
        self._seen = _State(quirks=quirks)
        self._durable = _State(quirks=quirks)
        self._journal: list[Change] = []
        self._under_way: dict[int, Change] = {}
        self._damaged: set[tuple[ChunkKey, Position]] = set()
        self._next = 0

    def _found(self, key: ChunkKey) -> Chunk:
        return self._seen.chunks.get(key, EMPTY)

    def _keys(self) -> list[ChunkKey]:
        return list(self._seen.chunks)

    def rows(self) -> list[Row]:
        return list(self._seen.rows.values())

    def used_bytes(self) -> int:
        return sum(
            len(version.data)
            for chunk in self._seen.chunks.values()
            for version in (chunk.committed, chunk.pending)
            if version is not None
        )

    def full(self) -> bool:
        if self._capacity_bytes is None:
            return False
        return self.used_bytes() + RESERVE_BYTES > self._capacity_bytes

    def set_capacity(self, spare_bytes: int | None) -> None:
        self._capacity_bytes = None if spare_bytes is None else self.used_bytes() + spare_bytes

    def checksum(self, data: bytes) -> int:
        return zlib.crc32(data)

    # ---- operations: outcome(code)

    def stage(
        self,
        key: ChunkKey,
        kind: int,
        position: Position,
        offset: int,
        length: int,
        data: bytes,
        identity: Identity,
        commit: bool,
        lost: bool,
        outcome: Callable[[int, Version], None],
    ) -> None:
        made = Version(position, self.content(key, kind, offset, length, data), kind, identity)
        base = self.chunk(key).committed
        damaged = base is not None and (key, base.position) in self._damaged
        if lost and (kind == REPLACE or damaged):
            self._damaged.add((key, position))
        else:
            self._damaged.discard((key, position))  # the bytes are new
        keeps = base is not None and not lost and _keeps_bytes(kind, offset, length, base.data)
        damaged = damaged and keeps

        def change(state: _State) -> None:
            if commit:
                self._commit_in(state, key, made)
            else:
                before = state.chunks.get(key, EMPTY)
                state.chunks[key] = Chunk(before.committed, made)

        if damaged and "no-checksum" not in self.quirks:
            # What is kept of the old version is verified before it is copied.
            self.reported += 1
            self._process.after(self._delay_ns(), lambda: outcome(Status.CHECKSUM_MISMATCH, made))
            return
        if commit and "answers-early" in self.quirks:
            self._write(change, True, lambda code: None)
            self._process.after(50_000, lambda: outcome(0, made))
            return
        self._write(change, True, lambda code: outcome(code, made))

    def commit(
        self, key: ChunkKey, version: int, synced: bool, outcome: Callable[[int], None]
    ) -> None:
        pending = self.chunk(key).pending
        if pending is None or pending.position[1] != version:
            raise AssertionError(f"commit of version {version} of {key}, pending is {pending}")
        made = pending
        self._write(lambda state: self._commit_in(state, key, made), synced, outcome)

    def _commit_in(self, state: _State, key: ChunkKey, made: Version) -> None:
        _commit(state, key, made)
        # Resync removes under position (0, 0): the history of the chunk is the predecessor's.
        if state is self._seen and made.kind == REMOVE and made.position != (0, 0):
            self._removed[key] = made.position

    def discard(self, key: ChunkKey) -> None:
        if "keeps-discarded" in self.quirks:
            return

        def change(state: _State) -> None:
            before = state.chunks.get(key, EMPTY)
            state.chunks[key] = Chunk(before.committed)

        self._apply(change, synced=False)

    def put_rows(self, rows: list[Row], replace: bool) -> None:
        def change(state: _State) -> None:
            if replace:
                state.rows = {}
            for row in rows:
                _put_row(state, row)

        self._apply(change, synced=False)

    def read(
        self, key: ChunkKey, pending: bool, outcome: Callable[[int, Version | None, Chunk], None]
    ) -> None:
        early = self.chunk(key) if self._loop.random.random() < 0.5 else None

        def finish() -> None:
            chunk = early if early is not None else self.chunk(key)
            version = chunk.pending if pending else chunk.committed
            if "serves-pending" in self.quirks and chunk.pending is not None:
                version = chunk.pending
            code = EIO if self.failing or self._fails_now("read") else 0
            if code == 0 and version is not None and (key, version.position) in self._damaged:
                if "no-checksum" in self.quirks:
                    version = replace(version, data=bytes(len(version.data)))
                else:
                    self.reported += 1
                    code = Status.CHECKSUM_MISMATCH
            outcome(code, version, chunk)

        self._process.after(self._delay_ns(), finish)

    # ---- what happens to disks

    def damage(self, key: ChunkKey) -> bool:
        committed = self.chunk(key).committed
        if committed is None or not committed.data:
            return False
        self._damaged.add((key, committed.position))
        return True

    def damaged(self) -> bool:
        return bool(self._damaged)

    def is_damaged(self, key: ChunkKey, version: Version | None) -> bool:
        return version is not None and (key, version.position) in self._damaged

    def image(self) -> object:
        return self._durable.copy()

    def replace_with(self, image: object | None) -> None:
        self.present = image is not None
        self._durable = image if isinstance(image, _State) else _State(quirks=self.quirks)
        self._seen = self._durable.copy()
        self._journal = []
        self._damaged.clear()
        self._removed = {}

    def verify(self) -> None:
        """It is what it is."""

    def _fails_now(self, kind: str) -> bool:
        if kind not in self.fail_once:
            return False
        self.fail_once.discard(kind)
        self._landed[f"eio once: {kind}"] += 1
        return True

    # ---- beginnings and endings of a life

    def open(self) -> None:
        """Recovery syncs what it found, also what a killed process had left unsynced."""
        for change in self._journal:
            change(self._durable)
        self._journal = []

    def crash(self, power_loss: bool) -> None:
        for change in self._under_way.values():
            if self._loop.random.random() < 0.5:
                self._apply(change, synced=True)
        self._under_way = {}
        if not power_loss:
            return
        kept = self._loop.random.randrange(len(self._journal) + 1)
        if kept < len(self._journal):
            self._landed["unsynced lost"] += 1
        for change in self._journal[:kept]:
            change(self._durable)
        self._journal = []
        self._seen = self._durable.copy()

    def _write(self, change: Change, synced: bool, outcome: Callable[[int], None]) -> None:
        self._next += 1
        number = self._next
        self._under_way[number] = change

        def finish() -> None:
            landing = self._under_way.pop(number)
            if self.failing or self._fails_now("write") or (synced and self._fails_now("sync")):
                self._landed["eio"] += 1
                if self._loop.random.random() < 0.5:
                    self._apply(landing, synced=False)
                outcome(0 if "ignores-eio" in self.quirks else EIO)
                return
            self._apply(landing, synced and "sync-lies" not in self.quirks)
            outcome(0)

        self._process.after(self._delay_ns(), finish)

    def _apply(self, change: Change, synced: bool) -> None:
        change(self._seen)
        self._journal.append(change)
        if not synced:
            return
        for earlier in self._journal:
            earlier(self._durable)
        self._journal = []


def _keeps_bytes(kind: int, offset: int, length: int, old: bytes) -> bool:
    """Of the version before."""
    if kind == WRITE:
        return offset > 0 or length < len(old)
    return kind == TRUNCATE and length > 0


def _commit(state: _State, key: ChunkKey, made: Version) -> None:
    if made.kind == REMOVE:
        state.chunks.pop(key, None)
    else:
        state.chunks[key] = Chunk(committed=made)
    if made.identity[0] != NOBODY and "no-dedup-row" not in state.quirks:
        row = (made.identity, key, made.position[1], len(made.data), _row_checksum(made))
        _put_row(state, row)


def _row_checksum(made: Version) -> int:
    return 0 if made.kind == REMOVE else zlib.crc32(made.data)


def _put_row(state: _State, row: Row) -> None:
    identity = row[0]
    channel = identity[0], identity[1]
    known = state.rows.get(channel)
    if known is None or known[0][2] <= identity[2]:
        state.rows[channel] = row
