"""A client of the file system: names through the metadata service, bytes through the chains.

Each request is repeated with the same id until it is answered, across deaths of the service. What
it does is a generator that yields what it waits for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.errors import Status
from fs3.meta.ops import VERBS
from tests.sim import messages
from tests.sim.client import AGAIN, ROUTING, Client
from tests.sim.ledger import CELL, CELLS, Operation, Violation
from tests.sim.loop import MS, S
from tests.sim.meta_server import FILE_CHUNK, expires_ns

if TYPE_CHECKING:
    from tests.sim.meta_world import MetaWorld

__all__ = ["MetaClient", "SteadyClient"]

NAMES = (b"a", b"b", b"c", b"d")
FILE_CHUNKS = 3
REPEATS_NS = 30 * S
KEEPALIVE_NS = 3 * S
FIRST_GIVEN_UP = 1000  # channels above it have one update each
HELD_NS = 20 * S  # beyond the life of a capability, so that some arrive in time and some do not
CLOSES = 3  # attempts of a client that is told that its close failed


class Opened(NamedTuple):
    inode: int
    session: bytes
    began_ns: int  # the open
    capability: bytes


Begin = Callable[[Callable[[Any], None]], None]
Task = Generator[Begin, Any, None]


class MetaClient(Client):
    world: MetaWorld
    mix = (5, 3, 3, 3, 6, 2, 2, 1, 0)  # of the tasks in _next

    def __init__(self, world: MetaWorld, number: int) -> None:
        super().__init__(world, number)
        self.holds_open = 0
        self._given_up = FIRST_GIVEN_UP
        self.id = f"client-{number}".encode().ljust(16, b".")
        self._request_id = 0
        self._outcomes: dict[int, Callable[[Operation], None]] = {}

    def start(self, channels: int = 1) -> None:
        self.begin_life()
        self._fetch()
        self._keep_alive()
        for channel in range(channels):
            self.after(self.loop.random.randrange(100 * MS), lambda c=channel: self._next(c))

    def die(self) -> None:
        """With everything that it had open."""
        self.loop.note("dies", self.name)
        self.end_life()
        self.busy = 0

    def read_all(self) -> None:
        """The checks at the end read the disks."""

    # ---- one step after the other on each channel

    def _next(self, channel: int) -> None:
        if self.stopping:
            return
        task = self.loop.random.choices(
            (
                self._make, self._unlink, self._rename, self._look,
                self._write, self._hold, self._truncate, self._link, self._create_and_write,
            ),
            self.mix,
        )[0](channel)  # fmt: skip
        self.busy += 1
        self._run(task, channel)

    def _run(self, task: Task, channel: int) -> None:
        def step(value: Any) -> None:
            try:
                begin = task.send(value)
            except StopIteration:
                self.busy -= 1
                pause_ns = self.loop.random.randrange(self.world.load.think_ns)
                self.after(pause_ns, lambda: self._next(channel))
                return
            begin(step)

        step(None)

    # ---- what a step does

    def _make(self, channel: int) -> Task:
        name, parent = self._name(), self.world.some_directory()
        if self.loop.random.random() < 0.3:
            reply = yield self.call(pb.MKDIR, parent=parent, name=name, mode=0o755)
            if reply is not None:
                self.world.directories.append(reply.entry.attr.inode)
        else:
            yield self.call(pb.CREATE, parent=parent, name=name, mode=0o644, type=pb.FILE)

    def _unlink(self, channel: int) -> Task:
        method = pb.UNLINK if self.loop.random.random() < 0.7 else pb.RMDIR
        yield self.call(method, parent=self.world.some_directory(), name=self._name())

    def _rename(self, channel: int) -> Task:
        yield self.call(
            pb.RENAME,
            old_parent=self.world.some_directory(),
            old_name=self._name(),
            new_parent=self.world.some_directory(),
            new_name=self._name(),
            flags=self.loop.random.choice((0, 0, 0, 1, 2)),
        )

    def _link(self, channel: int) -> Task:
        source = yield self.call(pb.LOOKUP, parent=self.world.some_directory(), name=self._name())
        if source is not None and source.entry.attr.type == pb.FILE:
            yield self.call(
                pb.LINK,
                inode=source.entry.attr.inode,
                parent=self.world.some_directory(),
                name=self._name(),
            )

    def _look(self, channel: int) -> Task:
        parent = self.world.some_directory()
        if self.loop.random.random() < 0.5:
            yield self.call(pb.LOOKUP, parent=parent, name=self._name())
        else:
            yield self.call(pb.READDIR, inode=parent)

    def _truncate(self, channel: int) -> Task:
        found = yield self.call(pb.LOOKUP, parent=self.world.some_directory(), name=self._name())
        if found is None or found.entry.attr.type != pb.FILE:
            return
        inode = found.entry.attr.inode
        self.world.truncating(inode)
        reply = yield self.call(pb.SETATTR, inode=inode, size=self._size())
        self.world.truncated(inode, reply is not None)

    def _write(self, channel: int) -> Task:
        """Open, a few writes, perhaps a sync, close."""
        opened = yield from self._open()
        if opened is None:
            return
        inode, session, _, _ = opened
        end = 0
        for _ in range(self.loop.random.randrange(1, 4)):
            end = max(end, (yield from self._write_one(channel, opened)))
            if self.loop.random.random() < 0.3:
                synced = yield self.call(
                    pb.SYNC, inode=inode, session=session, written_end=end, wrote=True,
                    durable=self.loop.random.random() < 0.5,
                )  # fmt: skip
                if synced is not None and synced.capability:
                    opened = opened._replace(capability=synced.capability)
        yield from self._close(inode, session, end)

    def _hold(self, channel: int) -> Task:
        """A file stays open while it is renamed, removed or truncated by others."""
        opened = yield from self._open()
        if opened is None:
            return
        inode, session, _, _ = opened
        yield lambda done: self.after(self.loop.random.randrange(3 * S), lambda: done(None))
        end = yield from self._write_one(channel, opened)
        yield from self._close(inode, session, end)

    def _create_and_write(self, channel: int) -> Task:
        opened_ns = self.loop.now_ns
        reply = yield self.call(
            pb.CREATE, parent=self.world.some_directory(), name=self._name(), mode=0o644,
            type=pb.FILE, open=True, flags=os.O_RDWR,
            layout=common_pb2.Layout(chunk_size=FILE_CHUNK),
        )  # fmt: skip
        if reply is None:
            return
        self.holds_open += 1
        inode, session = reply.attr.inode, reply.session
        opened = Opened(inode, session, opened_ns, reply.capability)
        end = yield from self._write_one(channel, opened)
        yield self.call(
            pb.SYNC, inode=inode, session=session, written_end=end, wrote=True, durable=True
        )
        yield from self._close(inode, session, end)

    def _close(self, inode: int, session: bytes, end: int) -> Generator[Begin, Any, None]:
        yield self.call(pb.CLOSE, inode=inode, session=session, written_end=end, wrote=True)
        self.holds_open -= 1

    def _open(self) -> Generator[Begin, Any, Opened | None]:
        parent, name = self.world.some_directory(), self._name()
        found = yield self.call(pb.LOOKUP, parent=parent, name=name)
        if found is None or found.entry.attr.type != pb.FILE:
            return None
        inode = found.entry.attr.inode
        flags = os.O_RDWR | (os.O_TRUNC if self.loop.random.random() < 0.15 else 0)
        if flags & os.O_TRUNC:
            self.world.truncating(inode)
        began_ns = self.loop.now_ns
        reply = yield self.call(pb.OPEN, inode=inode, flags=flags)
        if flags & os.O_TRUNC:
            self.world.truncated(inode, reply is not None)
        if reply is None:
            return None
        self.holds_open += 1
        return Opened(inode, reply.session, began_ns, reply.capability)

    def _write_one(self, channel: int, opened: Opened) -> Generator[Begin, Any, int]:
        """One past the last byte that a chain acknowledged, or 0: what native/client tells when it
        settles. A write whose outcome it does not know may leave bytes beyond."""
        first = self.loop.random.randrange(CELLS)
        count = self.loop.random.randrange(1, CELLS - first + 1)
        index = self.loop.random.randrange(FILE_CHUNKS)
        inode = opened.inode
        gives_up = self.world.gives_up and self.loop.random.random() < self.world.gives_up
        if gives_up:  # a channel whose update may still come is not used for another one
            self._given_up += 1
            channel = self._given_up
        sequence = self._sequences.get(channel, 0) + 1
        self._sequences[channel] = sequence
        identity = self.id, channel, sequence
        operation = Operation(
            0, "write", (inode, index), identity, self.loop.now_ns, first=first, count=count,
            opened_ns=opened.began_ns, expires_ns=expires_ns(opened.capability),
        )  # fmt: skip
        if gives_up:
            self.world.landed["write given up"] += 1
            operation.held_ns = self.loop.random.randrange(HELD_NS)
        self.world.wrote(inode, index, operation)

        def begin(done: Callable[[Operation], None]) -> None:
            self._begin(operation, None)
            self._outcomes[operation.number] = done

        ended = yield begin
        return index * FILE_CHUNK + (first + count) * CELL if ended.ok else 0

    def ended(self, operation: Operation, channel: int | None) -> None:
        super().ended(operation, None)
        done = self._outcomes.pop(operation.number, None)
        if done is not None:
            done(operation)

    def _name(self) -> bytes:
        return self.loop.random.choice(NAMES)

    def _size(self) -> int:
        chunk = self.loop.random.randrange(FILE_CHUNKS)
        return chunk * FILE_CHUNK + self.loop.random.randrange(CELLS + 1) * CELL

    # ---- one call of the metadata service

    def call(self, method: int, **fields: Any) -> Begin:
        """Gives the reply, or None when it was refused or never answered."""
        request_id = self._next_id()

        def begin(done: Callable[[Any], None]) -> None:
            _Repeated(self, method, request_id, fields, done).go()

        return begin

    def _next_id(self) -> int:
        self._request_id += 1
        return self._request_id

    def _keep_alive(self) -> None:
        def nothing(reply: Any) -> None:
            """The service knows now that this client lives."""

        self.call(pb.KEEPALIVE)(nothing)
        self.after(KEEPALIVE_NS, self._keep_alive)


class SteadyClient(MetaClient):
    """Does all there is, evenly, and closes what it opened also when a close was refused."""

    mix = (2, 4, 3, 1, 4, 3, 4, 1, 6)

    def _hold(self, channel: int) -> Task:
        """A file is truncated while it is open: its close has to ask storage for the length."""
        opened = yield from self._open()
        if opened is None:
            return
        inode, session, _, _ = opened
        self.world.truncating(inode)
        reply = yield self.call(pb.SETATTR, inode=inode, size=0)
        self.world.truncated(inode, reply is not None)
        end = yield from self._write_one(channel, opened)
        yield from self._close(inode, session, end)

    def _close(self, inode: int, session: bytes, end: int) -> Generator[Begin, Any, None]:
        for _ in range(CLOSES):
            reply = yield self.call(
                pb.CLOSE, inode=inode, session=session, written_end=end, wrote=True
            )
            if reply is not None:
                break
        self.holds_open -= 1


class _Repeated:
    def __init__(
        self,
        client: MetaClient,
        method: int,
        request_id: int,
        fields: dict[str, Any],
        done: Callable[[Any], None],
    ) -> None:
        self.client = client
        self.method = method
        self.done = done
        self.fields = fields
        self.request_id = request_id
        self.began_ns = client.loop.now_ns
        self.ids: list[int] = []

    def go(self) -> None:
        client = self.client
        if client.loop.now_ns - self.began_ns > REPEATS_NS:
            self._end(None, None)
            return
        number = self.client.world.bugs.request_id(self.request_id, len(self.ids))
        self.ids.append(number)
        header = pb.Header(caller=pb.Caller(uid=0, gid=0), client_id=client.id, request_id=number)
        request = VERBS[self.method].request(header=header, **self.fields)
        call = messages.MetaCall(self.method, request.SerializeToString())
        client.world.network.call(client, client.world.meta, call, self._answered, 2 * S)

    def _answered(self, code: int, payload: object) -> None:
        if code in (*AGAIN, *ROUTING):
            self.client.after(self.client.loop.random.randrange(10 * MS, 200 * MS), self.go)
        else:
            self._end(code, payload)

    def _end(self, code: int | None, payload: object) -> None:
        client = self.client
        if self.method != pb.KEEPALIVE:
            client.world.oracle.answered(
                client.id, self.ids, self.method, self.began_ns, client.loop.now_ns, code, payload
            )
        if code == Status.BAD_REQUEST:
            raise Violation("I20", f"{client.name}: {VERBS[self.method].name}: {payload!r}")
        self.done(VERBS[self.method].reply.FromString(payload) if code == 0 else None)
