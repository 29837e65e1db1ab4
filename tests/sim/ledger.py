"""What really happened, written down by the simulated disks and servers as it happens.

A position (chain version, version) names the content of a chunk for ever. The ledger keeps, for
each position, its content, the position it was built on, and who asked for it. From the final
position of a chunk the parents lead back through its one history; every check is a question about
that history.
"""

from dataclasses import dataclass, field

from tests.sim.disk import ChunkKey, Identity, Position

__all__ = ["CELL", "CELLS", "NOTHING", "Entry", "Ledger", "Operation", "Violation"]

NOTHING: Identity = (bytes(16), 0, 0)  # of a version that changes nothing
NEVER = 1 << 62
CELL, CELLS = 8, 6  # bytes; cells of a chunk: each write fills some with its number


class Violation(Exception):
    """An invariant does not hold. `rule`: its number in the list of promises, such as "I3"."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Entry:
    content: bytes | None  # None: removed
    parent: Position | None
    identity: Identity


@dataclass(slots=True)
class Operation:
    """One call of a client, for the checks. Times are virtual ns."""

    number: int
    kind: str  # write, truncate, remove, read
    chunk: ChunkKey
    identity: Identity | None
    began_ns: int
    first: int = 0  # of a write: the cells that it fills with its number
    count: int = 0  # of a truncate: how many cells stay
    ended_ns: int | None = None
    ok: bool = False
    attempts: int = 0
    version: int = 0  # that the acknowledgement of an update named; 0: nothing was there to remove
    position: Position | None = None  # what a read saw; None: the chunk was never there
    data: bytes = b""
    floor: Position = (0, 0)  # of a read: what was acknowledged before it began
    code: int = 0
    expires_ns: int = NEVER  # of the capability that it carries
    held_ns: int = 0  # how long its requests are under way, longer than the client waits
    opened_ns: int = -1  # of a write to a file: when the open began whose session it has

    @property
    def payload(self) -> bytes:
        return self.number.to_bytes(CELL, "big") * self.count if self.kind == "write" else b""

    def applied_to(self, content: bytes) -> bytes:
        """What the chunk holds after this update."""
        if self.kind == "remove":
            return b""
        if self.kind == "truncate":
            return content[: self.count * CELL].ljust(self.count * CELL, b"\0")
        begin, end = self.first * CELL, (self.first + self.count) * CELL
        return content[:begin].ljust(begin, b"\0") + self.payload + content[end:]

    def __str__(self) -> str:
        end = f"{self.ended_ns / 1e9:.3f}" if self.ended_ns is not None else "never"
        state = "ok" if self.ok else f"code {self.code}"
        return (
            f"{self.kind} #{self.number} of {self.chunk} [{self.began_ns / 1e9:.3f}, {end}] {state}"
        )


@dataclass(slots=True)
class Ledger:
    entries: dict[tuple[ChunkKey, Position], Entry] = field(default_factory=dict)
    positions: dict[Identity, list[Position]] = field(default_factory=dict)
    given_up: dict[tuple[ChunkKey, Position], Entry] = field(default_factory=dict)
    void_held: set[tuple[ChunkKey, Position]] = field(default_factory=set)
    acknowledged: dict[ChunkKey, Position] = field(default_factory=dict)
    promised: set[tuple[ChunkKey, Position]] = field(default_factory=set)
    died_ns: dict[int, int] = field(default_factory=dict)  # chain -> when nobody served, last
    operations: list[Operation] = field(default_factory=list)

    def made(
        self,
        chunk: ChunkKey,
        position: Position,
        parent: Position | None,
        content: bytes | None,
        identity: Identity,
    ) -> None:
        """A head made a new version."""
        entry = Entry(content, parent, identity)
        known = self.entries.setdefault((chunk, position), entry)
        if known is not entry and known == entry:
            return  # staged again after the bytes below were repaired
        if known is not entry:
            raise Violation("I5", f"{chunk}: position {position} was made twice")
        self.positions.setdefault(identity, []).append(position)

    def unmade(self, chunk: ChunkKey, identity: Identity) -> None:
        """The head gave the update up before any other replica was told of it."""
        for position in self.positions.pop(identity, []):
            del self.entries[chunk, position]

    def voided(self, chunk: ChunkKey, position: Position, content: bytes, parent: Position) -> None:
        """The head gave up the update at `position`, which nobody could stage; a version that
        changes nothing has its place."""
        given_up = self.entries.pop((chunk, position), None)
        if given_up is not None and given_up.identity != NOTHING:
            self.given_up[chunk, position] = given_up
            known = self.positions.get(given_up.identity, [])
            self.positions[given_up.identity] = [p for p in known if p != position]
        self.entries[chunk, position] = Entry(content, parent, NOTHING)

    def came_back(self, chunk: ChunkKey, position: Position, content: bytes) -> None:
        """A disk still has the update that was given up: its head died before the void version
        was durable, and then nobody else may have heard of that."""
        given_up = self.given_up.pop((chunk, position), None)
        here = given_up is not None and given_up.content == content
        if given_up is not None and here and (chunk, position) not in self.void_held:
            self.entries[chunk, position] = given_up
            self.positions.setdefault(given_up.identity, []).append(position)

    def held(self, chunk: ChunkKey, position: Position, content: bytes | None, who: str) -> None:
        """A replica holds this content under this name."""
        entry = self.entries.get((chunk, position))
        if entry is None:
            raise Violation("I5", f"{who}: {chunk} at {position}, which no head made")
        if entry.content != content:
            raise Violation(
                "I5", f"{who}: {chunk} at {position} has other content than its head made"
            )
        if entry.identity == NOTHING:
            self.void_held.add((chunk, position))

    def acknowledge(self, chunk: ChunkKey, identity: Identity, version: int) -> None:
        """A server told a client that its update is done."""
        known = [p for p in self.positions.get(identity, []) if p[1] == version]
        if not known:
            raise Violation("I1", f"{chunk}: version {version} was acknowledged, never made")
        self.promised.add((chunk, known[-1]))
        if known[-1] > self.acknowledged.get(chunk, (0, 0)):
            self.acknowledged[chunk] = known[-1]

    def history(self, chunk: ChunkKey, tip: Position | None) -> list[Position]:
        """From the first version to `tip`."""
        line: list[Position] = []
        while tip is not None:
            line.append(tip)
            if (chunk, tip) not in self.entries:
                raise Violation("I5", f"{chunk}: {tip} is in the history, and no head made it")
            tip = self.entries[chunk, tip].parent
        line.reverse()
        return line
