"""One target: the compiled replica, its disk, and the operations that were not answered yet.

The twin of native/storage/target: requests become events, effects become operations of the disk and
the network, their outcomes become events again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fs3._native import craq

from fs3.errors import Status
from fs3.mgmtd.state import ChainRecord
from fs3.mgmtd.transitions import Public
from tests.sim import messages
from tests.sim.disk import EIO, REPLACE, Chunk, ChunkKey, Disk, Position, Version
from tests.sim.ledger import Violation
from tests.sim.loop import MS, S
from tests.sim.network import Reply
from tests.sim.target_books import Books
from tests.sim.target_values import Peer, listed, load_event, seen, sum_of, view

if TYPE_CHECKING:
    from tests.sim.node import StorageNode

__all__ = ["CHUNK_SIZE", "Target"]

CHUNK_SIZE = 256  # bytes
OF_OP, PENDING, COMMITTED, NONE = 0, 1, 2, 3
PAGE = 3  # chunks of a SyncStart answer: several pages even for small targets
FORWARD_TIMEOUT_NS = 1500 * MS
LOCAL_UPTODATE = 1
READS = (messages.ReadRequest, messages.Fetch)


@dataclass(slots=True)
class Open:
    """A request that was not answered yet."""

    reply: Reply
    data: bytes = b""
    request: object = None
    seen: Version | None = None  # of a read
    chunk: Chunk | None = None


class Target:
    """One life of it: made when its node starts."""

    def __init__(self, node: StorageNode, target: int, chain: int, disk: Disk) -> None:
        self.node = node
        self.id = target
        self.chain = chain
        self.disk = disk
        self.replica = node.world.bugs.replica(craq.Replica(target))
        self.books = Books(self)
        self._open: dict[int, Open] = {}
        self._fetched: dict[int, bytes] = {}
        self._next_op = 1
        self._feeding = False
        self._waiting: list[object] = []
        self.view_successor: Peer | None = None
        self.view_predecessor: Peer | None = None
        self.staging: dict[ChunkKey, Position] = {}  # the newest that began
        self.lease_until_ns = 0
        self._synced_in = 0  # the chain version in which the predecessor's history was taken over
        self._full = False
        self._load()

    def _load(self) -> None:
        bugs = self.node.world.bugs
        for key, chunk in self.disk.chunks():
            if chunk.committed is not None or chunk.pending is not None:
                damaged = self.disk.found_damaged(key, chunk.committed)
                loaded = bugs.loaded(chunk)
                self.feed(load_event(key, loaded, self.disk.checksum, damaged=damaged))
            if chunk.pending is not None:
                ledger = self.node.world.ledger
                ledger.came_back(key, chunk.pending.position, chunk.pending.data)
        for row in self.disk.rows():
            self.feed(craq.LoadDedup(row=row))

    # ---- events

    def feed(self, event: object) -> None:
        """One after the other: what happens inside an effect waits until all effects began."""
        self._waiting.append(event)
        if self._feeding:
            return
        self._feeding = True
        while self._waiting:
            following = self._waiting.pop(0)
            for effect in self.replica.step(self.node.clock_ns(), following):
                EXECUTE[type(effect)](self, effect)
            if isinstance(following, craq.Fetched):
                self._fetched.pop(following.op, None)
        self._feeding = False

    def set_chain(self, chain: ChainRecord) -> None:
        if chain.version <= self.replica.chain_version:
            return
        state, before, after = view(chain, self.id)
        self.view_successor = after
        self.view_predecessor = before
        self.node.world.loop.note(
            self.id, "chain", chain.version, state.name, before and before[0], after and after[0]
        )
        known = self.replica.chain_version
        state = self.node.world.bugs.state(state)
        self.feed(craq.SetChain(chain.id, chain.version, int(state), before, after))
        if self.replica.chain_version < known:
            raise Violation("I6", f"target {self.id}: {known} -> {self.replica.chain_version}")

    def _note_space(self) -> None:
        full = self.disk.full() and not self.node.world.bugs.ignores_space
        if full != self._full:
            self._full = full
            self.node.world.landed["disk full" if full else "space back"] += 1
            self.feed(craq.SetSpace(full))

    def tick(self) -> None:
        self._note_space()
        self.feed(craq.Tick())

    def update(self, request: messages.UpdateRequest, reply: Reply) -> None:
        request = self.node.world.bugs.arriving(self, request)

        def go() -> None:
            self._note_space()
            event = craq.ClientUpdate(
                op=self._begin(reply, request.data, request),
                chunk=request.chunk,
                kind=request.kind,
                offset=request.offset,
                length=request.length,
                chunk_size=CHUNK_SIZE,
                checksum=self.disk.checksum(request.data),
                chain_version=request.chain_version,
                identity=request.identity,
            )
            self._at("write.data_pulled", lambda: self.feed(event))

        self._at("write.received", go, lambda: reply(Status.BUSY, "injected"))

    def read(self, request: messages.ReadRequest, reply: Reply) -> None:
        request = self.node.world.bugs.arriving(self, request)
        op = self._begin(reply, b"", request)
        deadline_ns = self.node.clock_ns() + 500 * MS
        self.feed(craq.Read(op, request.chunk, request.chain_version, False, deadline_ns))

    def fetch(self, request: messages.Fetch, reply: Reply) -> None:
        op = self._begin(reply, b"", request)
        deadline_ns = self.node.clock_ns() + 500 * MS
        self.feed(
            craq.Read(
                op,
                request.chunk,
                request.chain_version,
                not request.settled,
                deadline_ns,
                request.from_target,
            )
        )

    def _note_damage(self, chunk: ChunkKey) -> None:
        """What the disk holds of the chunk could not be read."""
        held = self.disk.chunk(chunk)
        if held.committed is not None and self.disk.found_damaged(chunk, held.committed):
            self.feed(craq.Damaged(chunk, held.committed.position[1], False))
        if held.pending is not None and self.disk.found_damaged(chunk, held.pending):
            self.feed(craq.Damaged(chunk, held.pending.position[1], True))

    def forwarded(self, request: messages.Forwarded, reply: Reply) -> None:
        request = self.node.world.bugs.arriving(self, request)

        def go() -> None:
            self._note_space()
            event = craq.Forwarded(
                op=self._begin(reply, request.data, request),
                from_target=request.from_target,
                chunk=request.chunk,
                kind=request.kind,
                version=request.version,
                offset=request.offset,
                length=request.length,
                chunk_size=request.chunk_size,
                checksum=request.checksum,
                chain_version=request.chain_version,
                update_chain=request.update_chain,
                identity=request.identity,
                resync=request.resync,
                lost=request.lost,
            )
            self._at("write.data_pulled", lambda: self.feed(event))

        self._at("write.received", go, lambda: reply(Status.BUSY, "injected"))

    def ask(self, request: messages.Ask, reply: Reply) -> None:
        op = self._begin(reply, b"", request)
        self.feed(
            craq.SyncStart(op, request.from_target, request.chain_version, list(request.dedup))
        )

    def tell_done(self, request: messages.TellDone, reply: Reply) -> None:
        op = self._begin(reply, b"", request)
        self.feed(craq.SyncDone(op, request.from_target, request.chain_version))

    def query_last(self, request: messages.QueryLast, reply: Reply) -> None:
        """The committed versions of any serving replica hold every acknowledged update; the lease
        is looked at after them."""
        if request.chain_version != self.replica.chain_version:
            reply(Status.CHAIN_VERSION_MISMATCH, "refresh the routing")
            return
        if self.replica.state != int(Public.SERVING) or self.disk.failed:
            reply(Status.NOT_SERVING, "refresh the routing")
            return
        lengths = {
            key[1]: len(chunk.committed.data)
            for key, chunk in self.disk.chunks()
            if key[0] == request.inode and chunk.committed is not None
        }
        last = max(lengths, default=None)
        if self.node.clock_ns() >= self.lease_until_ns:
            reply(Status.LEASE_EXPIRED, "read another replica")
        else:
            reply(0, None if last is None else (last, lengths[last]))

    def _at(
        self, point: str, go: Callable[[], None], fail: Callable[[], None] | None = None
    ) -> None:
        """A named point (points.py): goes on, unless this run has something happen here."""
        points = self.node.world.points
        if points is None:
            go()
        else:
            points.at(self, point, go, fail)

    @property
    def role(self) -> str:
        if self.view_predecessor is None:
            return "head"
        return "middle" if self.view_successor is not None else "tail"

    def _begin(self, reply: Reply, data: bytes, request: object) -> int:
        op = self._next_op
        self._next_op += 1
        self._open[op] = Open(reply, data, request)
        return op

    # ---- effects on the disk

    def _stage(self, e: Any) -> None:
        position: Position = e.chain_version, e.version
        if e.op in self._fetched:
            open_, data = None, self._fetched[e.op]
            self.node.world.landed["repair"] += 1
        elif e.lost and e.op not in self._open:
            open_, data = None, self.books.given_up(e, position)
            self.staging[e.chunk] = position
        else:
            open_, data = self._open[e.op].request, self._open[e.op].data
            self.staging[e.chunk] = position
        if isinstance(open_, messages.UpdateRequest):
            self.books.made(e, position, data)
        elif open_ is not None:
            self.books.check_above(e.chunk, position)
        self.node.world.loop.note(self.id, "stage", e.chunk, position, e.kind, e.commit)

        resync = isinstance(open_, messages.Forwarded) and open_.resync

        def staged(code: int, made: Version) -> None:
            def feed(code: int) -> None:
                self.books.note_held(e.chunk, made, code)
                if code == Status.CHECKSUM_MISMATCH:
                    self._note_damage(e.chunk)
                self.feed(craq.Staged(e.op, code, len(made.data), self._sum(made)))

            point = "resync.chunk_applied" if resync else "write.pending_durable"
            self._at(point, lambda: feed(code), lambda: feed(EIO))

        def stage() -> None:
            self.disk.stage(
                e.chunk,
                e.kind,
                position,
                e.offset,
                e.length,
                data,
                e.identity,
                e.commit,
                e.lost,
                staged,
            )
            self._at("write.pending_staged", _nothing, lambda: self.disk.fail_once.add("write"))

        self._at("write.chunk_locked", stage, lambda: self.feed(craq.Staged(e.op, EIO, 0, 0)))

    def _sum(self, made: Version) -> int:
        return sum_of(made, self.disk.checksum)

    def _commit(self, e: Any) -> None:
        pending = self.disk.chunk(e.chunk).pending
        assert pending is not None
        self.books.check_below(e.chunk, pending.position)
        self.node.world.loop.note(self.id, "commit", e.chunk, pending.position)

        def done(code: int) -> None:
            self._at(
                "write.commit_durable",
                lambda: self.feed(craq.Committed(e.op, code)),
                lambda: self.feed(craq.Committed(e.op, EIO)),
            )

        self._at(
            "write.commit_staged",
            lambda: self.disk.commit(e.chunk, e.version, e.synced, done),
            lambda: self.feed(craq.Committed(e.op, EIO)),
        )

    def _discard(self, e: Any) -> None:
        self.disk.discard(e.chunk)

    def _put_dedup(self, e: Any) -> None:
        self.disk.put_rows(e.rows, e.replace)

    def _start_read(self, e: Any) -> None:
        def done(code: int, version: Version | None, chunk: Chunk) -> None:
            if e.op in self._open:
                self._open[e.op].seen = version
                self._open[e.op].chunk = chunk
            if code == Status.CHECKSUM_MISMATCH:
                self._note_damage(e.chunk)
            event = craq.ReadDone(e.op, code, version.position[1] if version else 0)
            error = craq.ReadDone(e.op, EIO, 0)
            self._at("read.bytes_read", lambda: self.feed(event), lambda: self.feed(error))

        self._at(
            "read.version_chosen",
            lambda: self.disk.read(e.chunk, False, done),
            lambda: self.feed(craq.ReadDone(e.op, EIO, 0)),
        )

    # ---- effects on the network

    def _forward(self, e: Any) -> None:
        point = "resync.chunk_locked" if e.resync else "write.before_forward"
        lost = craq.ForwardDone(e.op, Status.CONNECTION_LOST)
        self._at(point, lambda: self._forward_now(e), lambda: self.feed(lost))

    def _forward_now(self, e: Any) -> None:
        if e.bytes == OF_OP and e.source not in self._open:  # it was held up for too long
            self.feed(craq.ForwardDone(e.op, Status.TIMED_OUT))
            return
        if e.lost and e.kind == REPLACE:
            held = self.disk.chunk(e.chunk)
            versions = [v for v in (held.committed, held.pending) if v is not None]
            position = e.update_chain, e.version
            self._send(e, next((v.data for v in versions if v.position == position), b""))
            return
        if e.bytes in (OF_OP, NONE):
            self._send(e, self._open[e.source].data if e.bytes == OF_OP else b"")
            return

        def done(code: int, version: Version | None, _chunk: Chunk) -> None:
            other = version is None or version.position != (e.update_chain, e.version)
            if code == 0 and other:
                code = Status.BUSY  # the chunk changed while it was read
            if code == Status.CHECKSUM_MISMATCH:
                self._note_damage(e.chunk)
                code = Status.BUSY
            if code != 0:
                self.feed(craq.ForwardDone(e.op, code))
                return
            self._send(e, version.data if version is not None else b"")

        self.disk.read(e.chunk, e.bytes == PENDING, done)

    def _send(self, e: Any, data: bytes) -> None:
        request = messages.Forwarded(
            target=e.to[0],
            from_target=self.id,
            chunk=e.chunk,
            kind=e.kind,
            version=e.version,
            offset=e.offset,
            length=e.length,
            chunk_size=CHUNK_SIZE,
            checksum=e.checksum,
            chain_version=e.chain_version,
            update_chain=e.update_chain,
            identity=e.identity,
            resync=e.resync,
            lost=e.lost,
            data=data,
        )
        request = self.node.world.bugs.leaving(self, request)
        position = e.update_chain, e.version
        self.node.world.loop.note(self.id, "forward", e.chunk, position, e.kind, "to", e.to[0])

        acked = "resync.lock_released" if e.resync else "write.successor_acked"
        lost = craq.ForwardDone(e.op, Status.CONNECTION_LOST)

        def done(code: int, payload: object) -> None:
            event = craq.ForwardDone(e.op, code, payload if code == 0 else 0)
            self._at(acked, lambda: self.feed(event), lambda: self.feed(lost))

        self.node.call_node(e.to[1], request, done, FORWARD_TIMEOUT_NS)
        sent = "resync.chunk_sent" if e.resync else "write.after_forward"
        self._at(sent, _nothing, lambda: self.feed(lost))

    def _fetch(self, e: Any) -> None:
        request = messages.Fetch(e.from_peer[0], self.id, e.chunk, e.chain_version, e.settled)

        def done(code: int, payload: object) -> None:
            if code != 0:
                self.feed(craq.Fetched(e.op, code))
                return
            data, position = payload  # type: ignore[misc]
            chain, version = position or (0, 0)
            self._fetched[e.op] = data
            sum_ = self.disk.checksum(data)
            self.feed(craq.Fetched(e.op, 0, version, chain, len(data), sum_))

        self.node.call_node(e.from_peer[1], request, done, FORWARD_TIMEOUT_NS)

    def _ask_peer(self, e: Any) -> None:
        request = messages.Ask(
            target=e.peer[0],
            from_target=self.id,
            chain_version=e.chain_version,
            after=e.after,
            dedup=tuple(e.dedup),
            removed=self.disk.removed() if e.after is None else {},
        )

        def feed(code: int, chunks: list[Any], end: bool) -> None:
            end = end or self.node.world.bugs.one_page
            self.feed(craq.PeerChunks(e.op, code, chunks, end))
            if code == 0 and self.node.world.bugs.tells_done_early:
                early = messages.TellDone(e.peer[0], self.id, e.chain_version)
                self.node.call_node(e.peer[1], early, lambda *_: None, 2 * S)

        def done(code: int, payload: object) -> None:
            chunks, end = payload if code == 0 else ([], False)
            self._at(
                "resync.diff_made",
                lambda: feed(code, chunks, end),
                lambda: feed(Status.CONNECTION_LOST, [], False),
            )

        def ask() -> None:
            self.node.call_node(e.peer[1], request, done, FORWARD_TIMEOUT_NS)
            self._at("resync.dump_asked", _nothing, lambda: feed(Status.CONNECTION_LOST, [], False))

        self._at("resync.start_decided", ask, lambda: feed(Status.CONNECTION_LOST, [], False))

    def _tell_peer(self, e: Any) -> None:
        request = messages.TellDone(e.peer[0], self.id, e.chain_version)
        self.node.call_node(
            e.peer[1], request, lambda code, _: self.feed(craq.PeerDone(e.op, code)), 2 * S
        )
        lost = craq.PeerDone(e.op, Status.CONNECTION_LOST)
        self._at("resync.done_sent", _nothing, lambda: self.feed(lost))

    # ---- effects on those who asked

    def _reply(self, e: Any) -> None:
        open_ = self._open.pop(e.op)
        point, after = REPLY_POINTS[type(open_.request)]
        if e.code != 0:
            point = ""

        def answer() -> None:
            self._answer(e, open_)
            self._at(after, _nothing)

        if not point:
            self._answer(e, open_)
        else:
            self._at(point, answer, lambda: open_.reply(Status.CONNECTION_LOST, "injected"))

    def _answer(self, e: Any, open_: Open) -> None:
        request = open_.request
        if e.code == Status.CHECKSUM_MISMATCH and not isinstance(request, READS):
            raise Violation("I5", f"target {self.id}: {e.detail}")
        if e.code == Status.DAMAGED and isinstance(request, messages.UpdateRequest):
            self.node.world.ledger.unmade(request.chunk, request.identity)
        if self.disk.failed:
            open_.reply(Status.NOT_SERVING, "its disk failed")
        elif e.code != 0:
            open_.reply(e.code, e.detail)
        elif isinstance(request, messages.ReadRequest):
            assert open_.chunk is not None
            open_.reply(0, seen(open_.seen, open_.chunk))
        elif isinstance(request, messages.Fetch):
            found = open_.seen
            open_.reply(0, (found.data, found.position) if found else (b"", None))
        elif isinstance(request, messages.Ask):
            if request.after is None and request.chain_version != self._synced_in:
                self._synced_in = request.chain_version
                self.disk.note_removed(request.removed)
            open_.reply(0, self._page(request.after))
        elif isinstance(request, messages.UpdateRequest):
            if e.version != 0:
                self.node.world.ledger.acknowledge(request.chunk, request.identity, e.version)
                self.node.world.loop.note(self.id, "acknowledges", request.chunk, e.version)
            open_.reply(0, e.version)
        elif isinstance(request, messages.Forwarded):
            self.books.note_absent(request)
            open_.reply(0, e.checksum)
        else:
            open_.reply(0, None)

    def _page(self, after: ChunkKey | None) -> tuple[list[object], bool]:
        there = [
            (key, chunk)
            for key, chunk in self.disk.chunks()
            if (after is None or key > after)
            and (chunk.committed is not None or chunk.pending is not None)
        ]
        page = [
            listed(
                key,
                chunk,
                self.disk.checksum,
                damaged=self.disk.found_damaged(key, chunk.committed),
            )
            for key, chunk in there[:PAGE]
        ]
        return page, len(there) <= PAGE

    def _set_local(self, e: Any) -> None:
        self.node.world.loop.note(self.id, "local", e.state)
        if e.state == LOCAL_UPTODATE:
            self._at("resync.marked_uptodate", self.node.nudge)
        else:
            self.node.nudge()


def _nothing() -> None:
    """The point is behind what it is named after."""


REPLY_POINTS: dict[type, tuple[str, str]] = {  # before the answer, and after it
    messages.UpdateRequest: ("write.dedup_saved", "write.replied"),
    messages.Forwarded: ("write.dedup_saved", "write.replied"),
    messages.ReadRequest: ("read.lease_checked", "read.sent"),
    messages.Ask: ("resync.dump_answered", ""),
    messages.TellDone: ("", ""),
    messages.Fetch: ("", ""),
}

EXECUTE: dict[type, Callable[[Target, Any], None]] = {
    craq.Stage: Target._stage,
    craq.Commit: Target._commit,
    craq.Discard: Target._discard,
    craq.PutDedup: Target._put_dedup,
    craq.Forward: Target._forward,
    craq.StartRead: Target._start_read,
    craq.Fetch: Target._fetch,
    craq.Reply: Target._reply,
    craq.AskPeerChunks: Target._ask_peer,
    craq.TellPeerDone: Target._tell_peer,
    craq.SetLocal: Target._set_local,
}
