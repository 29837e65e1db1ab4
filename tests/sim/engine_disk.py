"""The chunk engine itself under the servers of the simulation: native/engine, its block files on a
simulated medium and its RocksDB in memory, step by step (native/engine/sim_engine.h).

Each call of a block file, each batch of the committer, each background job of RocksDB is an event
of the loop, so the seed decides their order, and what of them is done when the process dies or the
power goes: torn writes, files cut in the middle of a record, orders that the model does not have.

Bytes are larger here than in the rest of the simulation: each stands for `scale` bytes of the
engine, so that chunks of 48 bytes become copies and appends over many blocks, or patches. What the
engine returns is compared with what was written, byte by byte, at every read, after every recovery
and at the end; damage that nobody made is a violation.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from fs3._native import SimEngine, wire

from fs3.errors import Fs3Error, Status
from tests.sim.disk import (
    EIO,
    REMOVE,
    REPLACE,
    WRITE,
    Chunk,
    ChunkKey,
    Disk,
    Identity,
    Position,
    Row,
    Version,
)
from tests.sim.ledger import Violation
from tests.sim.loop import Process

__all__ = ["EngineDisk", "Shape"]

CAPACITY_BYTES = 1 << 30
RESERVE_BYTES = 64 << 20  # what the engine keeps of such a disk for its metadata
SPARE_SCALE = 4096  # a spare byte of the model; a group of blocks is 1 MiB
ROOM = 8  # chunks there must be room for: what may be on its way when one more is admitted
CHUNK_BYTES = 48
ALWAYS = 1 << 62
KINDS = ("read", "write", "sync")

Outcome = tuple[int, int, str, int, int, int, int, bytes]
"""call, code, what, chain version, version, length, checksum, data."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the engine of a world is set up."""

    scale: int
    patch_bytes: int
    patches: int
    fold_bytes: int
    patch_bytes_max: int

    @classmethod
    def draw(cls, seed: int) -> Shape:
        random = Random(f"engine {seed}")
        scale = random.choice((1, 100, 512, 1000, 5000))
        limits = random.choice(
            (
                (16 << 10, 64, 4 << 20, 32 << 20),  # of the product: hardly ever put into blocks
                (16 << 10, 6, 4 << 10, 96 << 10),  # the folder is always at work
                (0, 0, 4 << 10, 96 << 10),  # no patches: every write copies or appends
            )
        )
        return cls(scale, *limits)


@dataclass(frozen=True, slots=True)
class _Known:
    version: Version
    checksum: int

    def fits(self, held: Any, scale: int) -> bool:
        """Of a committed version the engine does not say which update made it."""
        update = self.version.kind, self.version.identity
        same = held[2:4] == (len(self.version.data) * scale, self.checksum)
        return same and (held[4] == 0 or held[4:6] == update)


class EngineDisk(Disk):
    def __init__(
        self,
        process: Process,
        landed: Counter[str],
        quirks: frozenset[str],
        shape: Shape,
        seed: str,
    ) -> None:
        super().__init__(process, landed, quirks)
        self._shape = shape
        self._seed = Random(seed)
        # Several of one position: an update, and what took its place when nobody could make it.
        self._known: dict[tuple[ChunkKey, Position], list[_Known]] = {}
        self._calls: dict[int, tuple[Callable[[Outcome], None], Callable[[Outcome], None]]] = {}
        self._next = 0
        self._removing: dict[ChunkKey, Position] = {}  # a removal may be on its way
        self._spoiled: set[ChunkKey] = set()  # damage of it has a reason
        self._armed = (0, 0, 0)
        self._engine = self._make()
        self._start()

    def _make(self) -> Any:
        shape = self._shape
        return SimEngine(
            seed=self._seed.randrange(1 << 60),
            capacity_bytes=CAPACITY_BYTES,
            patch_bytes=shape.patch_bytes,
            patches=shape.patches,
            fold_bytes=shape.fold_bytes,
            patch_bytes_max=shape.patch_bytes_max,
        )

    # ---- bytes

    def checksum(self, data: bytes) -> int:
        return _checksum(data, self._shape.scale)

    def _small(self, large: bytes) -> bytes:
        small = large[:: self._shape.scale]
        if _large(small, self._shape.scale) != large:
            raise Violation("engine", "read: bytes of one cell differ")
        return small

    # ---- what is there

    def _found(self, key: ChunkKey) -> Chunk:
        state = self._engine.get(key)
        if state is None:
            return Chunk()
        return Chunk(self._version(key, state[0]), self._version(key, state[1]))

    def _version(self, key: ChunkKey, held: Any) -> Version | None:
        if held is None:
            return None
        staged = self._known.get((key, held[:2]), [])
        for known in reversed(staged):
            if known.fits(held, self._shape.scale):
                return known.version
        raise Violation("engine", f"{key} has {held}; staged were {staged}")

    def _keys(self) -> list[ChunkKey]:
        return [key for key, _ in self._engine.list()]

    def rows(self) -> list[Row]:
        scale = self._shape.scale
        return [
            (who, key, version, n // scale, s) for who, key, version, n, s in self._engine.rows()
        ]

    def used_bytes(self) -> int:
        return int(self._engine.used_bytes)

    def full(self) -> bool:
        return not self._engine.has_room(CHUNK_BYTES * self._shape.scale, ROOM)

    def set_capacity(self, spare_bytes: int | None) -> None:
        if spare_bytes is None:
            self._engine.set_capacity(CAPACITY_BYTES)
        else:
            there = self._engine.allocated_bytes + RESERVE_BYTES
            self._engine.set_capacity(there + spare_bytes * SPARE_SCALE)

    @property
    def failed(self) -> bool:
        return bool(self._engine.failed)

    # ---- operations

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
        sum_ = 0 if kind == REMOVE else self.checksum(made.data)
        self._known.setdefault((key, position), []).append(_Known(made, sum_))
        if lost:
            self._spoiled.add(key)
        if commit and kind == REMOVE and position != (0, 0):
            self._removing[key] = position

        def note(result: Outcome) -> None:
            self._note(key, result)
            if result[1] == 0 and commit:
                self._note_committed(key, made)

        bytes_ = b"" if lost else _large(data, self._shape.scale)
        chain, version = position
        self._engine.stage(
            call=self._begin(note, lambda result: outcome(result[1], made)),
            chunk=key,
            kind=kind,
            chain_version=chain,
            version=version,
            offset=offset * self._shape.scale if kind == WRITE else 0,
            length=length * self._shape.scale,
            data=bytes_ if kind in (WRITE, REPLACE) else b"",
            checksum=self.checksum(data),
            identity=identity,
            commit=commit,
            lost=lost,
        )
        self._pump()

    def commit(
        self, key: ChunkKey, version: int, synced: bool, outcome: Callable[[int], None]
    ) -> None:
        pending = self.chunk(key).pending
        if pending is None or pending.position[1] != version:
            raise AssertionError(f"commit of version {version} of {key}, pending is {pending}")
        made = pending
        if made.kind == REMOVE:
            self._removing[key] = made.position

        def note(result: Outcome) -> None:
            self._note(key, result)
            if result[1] == 0:
                self._note_committed(key, made)

        call = self._begin(note, lambda result: outcome(result[1]))
        self._engine.commit(call, key, version, synced)
        self._pump()

    def discard(self, key: ChunkKey) -> None:
        self._engine.discard(self._begin(_nothing, _nothing), key)
        self._pump()

    def put_rows(self, rows: list[Row], replace: bool) -> None:
        scale = self._shape.scale
        large = [(who, key, version, n * scale, s) for who, key, version, n, s in rows]
        self._engine.put_rows(self._begin(_nothing, _nothing), large, replace)
        self._pump()

    def read(
        self, key: ChunkKey, pending: bool, outcome: Callable[[int, Version | None, Chunk], None]
    ) -> None:
        chunk = self.chunk(key)  # the engine reads what is there now
        version = chunk.pending if pending else chunk.committed

        def note(result: Outcome) -> None:
            self._note(key, result)
            if result[1] == 0:
                self._compare(key, version, result)

        call = self._begin(note, lambda result: outcome(result[1], version, chunk))
        self._engine.read(call, key, pending)
        self._pump()

    def _compare(self, key: ChunkKey, version: Version | None, result: Outcome) -> None:
        position = result[3:5] if result[4] != 0 else None
        if position != (version.position if version else None):
            raise Violation("engine", f"read of {key} brings {position}, there is {version}")
        if version is not None and self._small(result[7]) != version.data:
            raise Violation("engine", f"read of {key} brings other bytes than {version}")

    def _note(self, key: ChunkKey, result: Outcome) -> None:
        code = result[1]
        if code == EIO:
            self._landed["eio"] += 1
        if code != Status.CHECKSUM_MISMATCH:
            return
        self.reported += 1
        if key not in self._spoiled:
            raise Violation(
                "I13", f"the engine reports damage that nobody made: {key}: {result[2]}"
            )

    def _note_committed(self, key: ChunkKey, made: Version) -> None:
        if made.kind != REMOVE:
            return
        self._removing.pop(key, None)
        # Resync removes under position (0, 0): the history of the chunk is the predecessor's.
        if made.position != (0, 0):
            self._removed[key] = made.position

    # ---- steps

    def _begin(self, note: Callable[[Outcome], None], tell: Callable[[Outcome], None]) -> int:
        """`note` when it has happened; `tell` the server about it."""
        self._next += 1
        self._calls[self._next] = note, tell
        return self._next

    def _pump(self) -> None:
        """What began to wait waits for a while; what ended is told."""
        for step in self._engine.take_steps():
            self._process.after(self._delay_ns(), functools.partial(self._run, step))
        for outcome in self._engine.take_outcomes():
            self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        note, tell = self._calls.pop(outcome[0])
        note(outcome)
        self._process.after(0, lambda: tell(outcome))  # never from inside the call that it answers

    def _run(self, step: int) -> None:
        self._arm()
        before = self._engine.faults_hit
        self._engine.run(step)
        for kind, was, now in zip(KINDS, before, self._engine.faults_hit, strict=True):
            if now > was and kind in self.fail_once:
                self.fail_once.discard(kind)
                self._landed[f"eio once: {kind}"] += 1
        self._pump()

    def _arm(self) -> None:
        once = tuple(int(kind in self.fail_once) for kind in KINDS)
        wanted = (ALWAYS, ALWAYS, ALWAYS) if self.failing else once
        if wanted[0]:  # a block that could not be read once counts as damaged
            self._spoiled.update(self._keys())
        if wanted != self._armed:
            self._engine.set_faults(*wanted)
            self._armed = wanted

    # ---- what happens to disks

    def damage(self, key: ChunkKey) -> bool:
        if not self._engine.rot(key):
            return False
        self._spoiled.add(key)
        return True

    def damaged(self) -> bool:
        return any(
            self.is_damaged(key, version)
            for key, chunk in self.chunks()
            for version in (chunk.committed, chunk.pending)
        )

    def is_damaged(self, key: ChunkKey, version: Version | None) -> bool:
        which = self._which(key, version)
        return which is not None and not self._engine.sound(key, which == 1)

    def found_damaged(self, key: ChunkKey, version: Version | None) -> bool:
        which = self._which(key, version)
        return which is not None and bool(self._engine.get(key)[2 + which])

    def _which(self, key: ChunkKey, version: Version | None) -> int | None:
        """0: it is the committed one; 1: the pending one."""
        state = self._engine.get(key)
        if state is None or version is None:
            return None
        places = [held and held[:2] for held in state[:2]]
        return places.index(version.position) if version.position in places else None

    def image(self) -> object:
        copy = self._make()
        copy.replace(self._engine)
        return copy

    def replace_with(self, image: object | None) -> None:
        self.present = image is not None
        self._engine.stop(False)
        self._engine.replace(image)
        self._calls = {}
        self._removed = {}
        self._removing = {}
        self._start()

    # ---- beginnings and endings of a life

    def open(self) -> None:
        """Recovered when the former process died, so that the checks can see what is there."""

    def crash(self, power_loss: bool) -> None:
        self._count_work()
        cut = self._engine.files_cut
        self._engine.stop(power_loss)
        self._calls = {}
        self._start()
        if self._engine.files_cut > cut:
            self._landed["unsynced lost"] += 1

    def _start(self) -> None:
        self._counted: Counter[str] = Counter()
        self._armed = (0, 0, 0)
        self._engine.set_faults(0, 0, 0)
        self._engine.lie_about_sync("data-sync-lies" in self.quirks, "sync-lies" in self.quirks)
        try:
            self._engine.start()
        except Fs3Error as error:
            raise Violation("engine", f"recovery: {error}") from error
        for key, position in self._removing.items():
            if self._found(key).committed is None:
                self._removed[key] = position
        self._removing = {}
        self.verify()

    def _count_work(self) -> None:
        """The engine counts for one life."""
        now = Counter(self._engine.statistics())
        self.work += now - self._counted
        self._counted = now

    def verify(self) -> None:
        self._count_work()
        self._armed = (0, 0, 0)
        self._engine.set_faults(*self._armed)
        self._engine.run_all()
        self._pump()
        for key in self._keys():
            state = self._found(key)
            for which, version in enumerate((state.committed, state.pending)):
                if version is None or version.kind == REMOVE:
                    continue
                if self._engine.sound(key, which == 1):
                    self._read_now(key, which == 1, version)
                elif key not in self._spoiled:
                    raise Violation("I13", f"{key}: the bytes of {version} are damaged")
        if not self._engine.failed:
            try:
                self._engine.audit()
            except Fs3Error as error:
                raise Violation("engine", f"audit: {error}") from error

    def _read_now(self, key: ChunkKey, pending: bool, version: Version) -> None:
        self._engine.read(0, key, pending)
        self._engine.run_all()
        for outcome in self._engine.take_outcomes():
            if outcome[0] != 0:
                self._ended(outcome)
            elif outcome[1] != 0:
                raise Violation("engine", f"{key}: {outcome[2]}")
            else:
                self._compare(key, version, outcome)


@functools.lru_cache(maxsize=4096)
def _large(data: bytes, scale: int) -> bytes:
    return b"".join(bytes((byte,)) * scale for byte in data) if scale > 1 else data


@functools.lru_cache(maxsize=4096)
def _checksum(data: bytes, scale: int) -> int:
    return int(wire.crc32c(_large(data, scale)))


def _nothing(_result: Outcome) -> None:
    """Nobody waits for it."""
