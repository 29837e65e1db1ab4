"""The disk of one target as the servers of the simulation see it, with the durability that
native/engine promises and nothing more.

stage() that was answered survives power loss; so does commit(synced=True). commit(synced=False),
discards and dedup rows become durable with the next sync, in order. What was under way at a crash
may or may not be there. A killed process loses nothing that its disk had answered, and the next
one begins with a sync of all that it finds.

Bytes at rest carry a checksum that every read verifies: damaged ones (a flipped bit, a write that
the device acknowledged and lost) are reported, never returned.

There are two: a model of these promises (model_disk.py), and the engine itself on a simulated
medium (engine_disk.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.loop import MS, Process, S

__all__ = ["EIO", "Chunk", "Disk", "DiskFaults", "Position", "Version"]

EIO = 5
WRITE, TRUNCATE, REMOVE, REPLACE = 1, 2, 3, 4

Position = tuple[int, int]
"""(chain version under which it was made, version): names the content of a chunk."""
ChunkKey = tuple[int, int]
Identity = tuple[bytes, int, int]
Row = tuple[Identity, ChunkKey, int, int, int]

NOBODY = bytes(16)


@dataclass(frozen=True, slots=True)
class Version:
    position: Position
    data: bytes
    kind: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class Chunk:
    """`removed`: where the chunk was removed, when it is not there. The replica does not know it;
    it ties the history of a chunk together for the checks."""

    committed: Version | None = None
    pending: Version | None = None
    removed: Position | None = None


@dataclass(frozen=True, slots=True)
class DiskFaults:
    stall: float = 0.0  # share of operations that take up to stall_ns
    stall_ns: int = 3 * S


EMPTY = Chunk()


class Disk(ABC):
    def __init__(self, process: Process, landed: Counter[str], quirks: frozenset[str]) -> None:
        self.faults = DiskFaults()
        self.failing = False
        self.fail_once: set[str] = set()  # read, write, sync: the next one fails
        self.slowness = 1  # every operation takes this many times longer
        self.away = False  # taken out, to be put back as it was
        self.present = True  # False: a blank disk in its place, the target was not made on it yet
        self.reported = 0  # reads that met damage
        self.quirks = quirks  # planted bugs
        self.work: Counter[str] = Counter()  # what an engine did, by kind
        self._process = process
        self._loop = process.loop
        self._landed = landed
        self._removed: dict[ChunkKey, Position] = {}  # for the checks: no disk keeps that

    # ---- what is there

    def chunk(self, key: ChunkKey) -> Chunk:
        found = self._found(key)
        if found.committed is None and key in self._removed:
            return Chunk(None, found.pending, self._removed[key])
        return found

    def chunks(self) -> list[tuple[ChunkKey, Chunk]]:
        return [(key, self.chunk(key)) for key in sorted({*self._keys(), *self._removed})]

    @abstractmethod
    def _found(self, key: ChunkKey) -> Chunk:
        """Without what the checks know of removals."""

    @abstractmethod
    def _keys(self) -> list[ChunkKey]: ...

    @abstractmethod
    def rows(self) -> list[Row]: ...

    @abstractmethod
    def used_bytes(self) -> int: ...

    @abstractmethod
    def full(self) -> bool:
        """Down to the reserve: the server admits no more writes."""

    @abstractmethod
    def set_capacity(self, spare_bytes: int | None) -> None:
        """Room for so much beyond what is there; None: endless."""

    @abstractmethod
    def checksum(self, data: bytes) -> int:
        """As the disk computes it; equal on all disks of a world."""

    @property
    def failed(self) -> bool:
        """It gave up after a failed write, in this life."""
        return False

    # ---- operations: outcome(code)

    @abstractmethod
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
        """`lost`: a replacement whose bytes are not there, a cut that changes nothing."""

    def content(self, key: ChunkKey, kind: int, offset: int, length: int, data: bytes) -> bytes:
        """Of the version that this update makes on top of the committed one."""
        base = self.chunk(key).committed
        old = base.data if base is not None else b""
        if kind == REPLACE:
            return data
        if kind == REMOVE:
            return b""
        if kind == TRUNCATE:
            return old[:length].ljust(length, b"\0")
        return old[:offset].ljust(offset, b"\0") + data + old[offset + length :]

    @abstractmethod
    def commit(
        self, key: ChunkKey, version: int, synced: bool, outcome: Callable[[int], None]
    ) -> None: ...

    @abstractmethod
    def discard(self, key: ChunkKey) -> None: ...

    @abstractmethod
    def put_rows(self, rows: list[Row], replace: bool) -> None: ...

    @abstractmethod
    def read(
        self, key: ChunkKey, pending: bool, outcome: Callable[[int, Version | None, Chunk], None]
    ) -> None:
        """The version at some instant while the operation ran."""

    def note_removed(self, removed: dict[ChunkKey, Position]) -> None:
        """The predecessor's history of removals, for the checks; no operation of the real disk."""
        self._removed = dict(removed)

    def removed(self) -> dict[ChunkKey, Position]:
        return {
            key: position
            for key, position in self._removed.items()
            if self.chunk(key).committed is None
        }

    # ---- what happens to disks

    @abstractmethod
    def damage(self, key: ChunkKey) -> bool:
        """The bytes of the committed version rot where they lie. False: there are none."""

    @abstractmethod
    def damaged(self) -> bool: ...

    @abstractmethod
    def is_damaged(self, key: ChunkKey, version: Version | None) -> bool:
        """Whether it is so, known to the disk or not."""

    def found_damaged(self, key: ChunkKey, version: Version | None) -> bool:
        """What the disk itself knows of it."""
        return self.is_damaged(key, version)

    @abstractmethod
    def image(self) -> object:
        """What is durable now."""

    @abstractmethod
    def replace_with(self, image: object | None) -> None:
        """Another disk in its place: an older image of this one, or (None) a blank one. The
        process is dead."""

    # ---- beginnings and endings of a life

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def crash(self, power_loss: bool) -> None:
        """The process is gone. What was under way lands or not."""

    @abstractmethod
    def verify(self) -> None:
        """At the end of a run: raises Violation when what is stored is not what should be."""

    def _delay_ns(self) -> int:
        if self.faults.stall and self._loop.random.random() < self.faults.stall:
            self._landed["disk stall"] += 1
            return self._loop.random.randrange(self.faults.stall_ns)
        return self._loop.random.randrange(50_000, 3 * MS) * self.slowness
