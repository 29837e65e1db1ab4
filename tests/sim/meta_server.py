"""The metadata service as a simulated process: the production store, operations, gc and pruning
(fs3/meta) on a key-value store that outlives it, with chunks on the simulated chains.

Jobs that wait for storage run on the one thread there is: while one waits, it lets the loop go on
(_wait), so requests and other jobs run meanwhile, as they would beside a blocked thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fs3.auth.identity import Principal, Role
from fs3.errors import Fs3Error, RetryLater, Status
from fs3.kv.api import Transaction
from fs3.layout import pick
from fs3.meta.call import Answer, Call
from fs3.meta.gc import GarbageCollector
from fs3.meta.identity import IdentityPolicy
from fs3.meta.inode import Layout
from fs3.meta.layouts import LayoutPolicy
from fs3.meta.ports import Measure, Space
from fs3.meta.store import MetaStore
from fs3.mgmtd import routing
from fs3.runtime.entropy import SeededEntropy
from fs3.runtime.failpoint import failpoint
from tests.sim import failpoints, messages
from tests.sim.client import AGAIN, ROUTING, Client
from tests.sim.ledger import CELL, Operation, Violation
from tests.sim.loop import MS, Loop, S
from tests.sim.manager import Died, LoopClock
from tests.sim.network import Reply
from tests.sim.store import FaultyStore

if TYPE_CHECKING:
    from tests.sim.meta_world import MetaWorld

__all__ = ["FILE_CHUNK", "MetaServer", "expires_ns"]

FILE_CHUNK = 64 * 1024  # bytes: the layout's; the simulated ones hold only their first cells
PRINCIPAL = Principal(Role.CLIENT, True, 0, 0, b"host".ljust(16, b"."), "simulation")
GC_DELAY_S = 1.0
CAPABILITY_NS = 12 * S  # more than an update of a client may take
SWEEP_S = 20.0  # that, and what a write that was taken in time may need
PATIENCE_NS = 3 * S
JOBS_AT_ONCE = 3
DELAY_NS = 12 * S  # of a job or a request: longer than anybody waits for one attempt
DELAY_LOCKED_NS = 3 * S  # of all requests: longer than a client waits for one attempt

T = TypeVar("T")


class MetaServer(Client):
    """A Client, too: it removes and truncates chunks."""

    world: MetaWorld

    def __init__(self, world: MetaWorld) -> None:
        super().__init__(world, 0)
        self.name = "meta"
        self.store: MetaStore | None = None
        self.jobs = Jobs(self)
        self._queue: list[tuple[messages.MetaCall, Reply]] = []
        self._free: list[int] = []
        self._next_sequence: list[int] = []
        self._outcomes: dict[int, Callable[[Operation], None]] = {}

    # ---- lives

    def start(self, channels: int = 0) -> None:
        self.begin_life()
        self.loop.note("start", self.name)
        self._queue = []
        self._free, self._next_sequence = [], []
        self._outcomes = {}
        self.jobs = Jobs(self)
        self._fetch()
        try:
            with failpoints.running(self):
                self.store = self._make_store()
        except Died:
            return
        self.store.deliver = self._deliver
        chunks = Chunks(self)
        self._gc = GarbageCollector(
            self.store, chunks, self.clock, delay_s=GC_DELAY_S, sweep_s=SWEEP_S
        )
        self._tick()
        self._collect()

    def _make_store(self) -> MetaStore:
        self.clock = WallClock(self)
        return MetaStore(
            KvOfLife(self),
            clock=self.clock,
            entropy=SeededEntropy(self.loop.random.randrange(1 << 32)),
            chunks=Chunks(self),
            layouts=LayoutPolicy(routing.encode(self.world.state)),
            space=lambda: Space(3000, 1500),
            minter=Minter(self.loop),
            jobs=self.jobs,
            sync_jobs=self.jobs,
            identity=IdentityPolicy(service_uid=0),
        )

    def crash(self) -> None:
        if not self.alive:
            return
        self.loop.note("crash", self.name)
        self.end_life()
        self.store = None
        self.busy = 0

    def end_and_come_back(self) -> None:
        self.crash()
        self.loop.after(100 * MS, lambda: self.alive or self.start())

    # ---- requests: what comes within a millisecond is one batch

    def handle(self, request: object, reply: Reply) -> None:
        if isinstance(request, messages.PushRouting):
            self._take(request.routing)
            return
        assert isinstance(request, messages.MetaCall)
        self._queue.append((request, reply))
        if len(self._queue) == 1:
            self.after(MS, self._flush)

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        if self.store is None:
            return
        calls = [Call(reply, request.method, request.body, PRINCIPAL) for request, reply in queue]
        try:
            with failpoints.running(self):
                answers = self.store.run(calls)
        except Died:
            return
        except Fs3Error as error:  # only with a planted bug: see KvOfLife
            answers = [Answer(call.token, 5, "meta", str(error), b"") for call in calls]
        except OSError:  # what was applied is unknown: as MetaService.submit does it
            self.end_and_come_back()
            return
        if self.world.nemesis.on and self.loop.random.random() < self.world.dies_before_reply:
            self.world.landed["meta dies after commit"] += 1
            self.end_and_come_back()
            return
        self._deliver(answers)
        try:
            with failpoints.running(self):
                for call in calls:
                    failpoint("replied", call.name)
        except Died:
            return
        except OSError:
            self.end_and_come_back()

    def _deliver(self, answers: list[Answer]) -> None:
        for answer in answers:
            answer.token(answer.status, answer.body if not answer.status else answer.detail)

    def _tick(self) -> None:
        assert self.store is not None
        try:
            with failpoints.running(self):
                self.store.tick()
        except Died:
            return
        except OSError:
            if not self.world.bugs.meta_goes_on:
                raise
        self.after(S, self._tick)

    def _collect(self) -> None:
        self.jobs.spawn(self._step)
        self.after(300 * MS, self._collect)

    def _step(self) -> None:
        try:
            self._gc.step()
        except OSError:  # as MetaDaemon does it on a store of its own
            self.end_and_come_back()
            raise Died from None

    # ---- named points inside the production code

    def die_inside(self) -> NoReturn:
        self.end_and_come_back()
        raise Died

    def stop_inside(self, duration_ns: int) -> None:
        """The world goes on, and this process only afterwards, from where it is."""
        epoch = self.epoch
        self.pause(duration_ns)
        self.loop.run(self.loop.now_ns + duration_ns - 1)
        if self.epoch != epoch:
            raise Died

    def delay_inside(self) -> None:
        """Beside it the process works on, unless it holds the lock of its store."""
        if self.store is None or self.store.lock._is_owned():  # type: ignore[attr-defined]
            self.stop_inside(DELAY_LOCKED_NS)
        else:
            self.wait(lambda done: self.after(DELAY_NS, lambda: done(None)))

    # ---- waiting, inside a job

    def wait(self, begin: Callable[[Callable[[T], None]], None]) -> T:
        """Lets the world go on until `begin`'s callback is called. Raises Died with the process."""
        if self.store is not None and self.store.lock._is_owned():  # type: ignore[attr-defined]
            raise Violation("lock", "the metadata service waits for storage under its lock")
        epoch = self.epoch
        result: list[T] = []
        begin(result.append)
        if not result:
            self.loop.run(1 << 62, lambda: bool(result) or self.epoch != epoch)
        if self.epoch != epoch:
            raise Died
        return result[0]

    def update(self, operation: Operation, done: Callable[[Operation], None]) -> None:
        self._begin(operation, None)
        self._outcomes[operation.number] = done

    def ended(self, operation: Operation, channel: int | None) -> None:
        super().ended(operation, None)
        done = self._outcomes.pop(operation.number, None)
        if done is not None:
            done(operation)

    def acquire(self) -> tuple[bytes, int, int]:
        """As native/client/identity.cc: the channel that was given back last, or a new one."""
        if not self._free:
            self._free.append(len(self._next_sequence))
            self._next_sequence.append(0)
        channel = self._free.pop()
        self._next_sequence[channel] += 1
        client = f"meta.{self.epoch}".encode().ljust(16, b".")
        return client, channel, self._next_sequence[channel]

    def release(self, identity: tuple[bytes, int, int]) -> None:
        self._free.append(identity[1])


class Chunks:
    """ChunkPort, as native/client/chunks.cc does it."""

    def __init__(self, server: MetaServer) -> None:
        self._server = server
        self._world = server.world

    def truncate_chunks(self, inode: int, layout: Layout, old_size: int, new_size: int) -> None:
        if new_size >= old_size:
            return
        partial = new_size % FILE_CHUNK
        first = -(-new_size // FILE_CHUNK)
        self._remove_from(inode, layout, first)
        if partial:
            self._update("truncate", (inode, first - 1), partial // CELL)

    def remove_chunks(self, inode: int, layout: Layout, size: int) -> None:
        self._remove_from(inode, layout, 0)

    def measure(self, inode: int, layout: Layout) -> Measure:
        end = 0
        for position in range(layout.stripe):
            last = self._query_last(inode, position)
            if last is not None:
                end = max(end, last[0] * FILE_CHUNK + last[1])
        return Measure(end, end)  # the workloads leave no holes, and look at no space

    def _remove_from(self, inode: int, layout: Layout, first: int) -> None:
        for position in range(layout.stripe):
            while (last := self._query_last(inode, position)) is not None and last[0] >= first:
                self._update("remove", (inode, last[0]), 0)

    def _update(self, kind: str, chunk: tuple[int, int], count: int) -> None:
        server = self._server
        operation = Operation(
            0, kind, chunk, server.acquire(), server.loop.now_ns, first=0, count=count
        )
        ended = server.wait(lambda done: server.update(operation, done))
        assert operation.identity is not None
        server.release(operation.identity)
        if not ended.ok:
            raise RetryLater(Status.TIMED_OUT, "sim/chunks", f"{ended}")

    def _query_last(self, inode: int, position: int) -> tuple[int, int] | None:
        server, world = self._server, self._world
        until_ns = server.loop.now_ns + PATIENCE_NS
        code = 0
        while server.loop.now_ns < until_ns:
            place = server.target_for(Operation(0, "read", (inode, position), None, 0))
            if place is not None:
                target, node, version = place
                request = messages.QueryLast(target, inode, version)
                code, payload = server.wait(
                    lambda done, n=node, r=request: world.network.call(
                        server, world.nodes[n], r, lambda *answer: done(answer), S
                    )
                )
                if code == 0:
                    return payload  # type: ignore[no-any-return]
                if code not in (*ROUTING, *AGAIN):
                    break
            server.refresh()
            server.wait(lambda done: server.after(50 * MS, lambda: done((0, None))))
        raise RetryLater(code or Status.TIMED_OUT, "sim/chunks", "storage does not answer")


class Jobs:
    """fs3.meta.ports.Jobs: a few at a time, in any order."""

    def __init__(self, process: MetaServer) -> None:
        self._process = process
        self._waiting: list[Callable[[], object]] = []
        self._running = 0
        self._timed = 0

    @property
    def busy(self) -> bool:
        """Something goes on besides the collector, which always comes back."""
        return bool(self._timed or self._running > 1)

    def spawn(self, job: Callable[[], object]) -> None:
        self._waiting.append(job)
        self._process.after(self._process.loop.random.randrange(2 * MS), self._next)

    def later(self, delay_s: float, job: Callable[[], object]) -> None:
        self._timed += 1

        def due() -> None:
            self._timed -= 1
            self.spawn(job)

        self._process.after(int(delay_s * S), due)

    def _next(self) -> None:
        if not self._waiting or self._running >= JOBS_AT_ONCE:
            return
        self._running += 1
        try:
            with failpoints.running(self._process):
                self._waiting.pop(0)()
        except Died:
            return  # and this object with it
        except OSError as error:  # as ThreadJobs does it
            self._process.loop.note("a job failed:", error)
        self._running -= 1
        if self._waiting:
            self._process.after(0, self._next)


class KvOfLife:
    """The store as one process sees it: when it fails, the process ends."""

    shared = False

    def __init__(self, process: MetaServer) -> None:
        self._process = process
        self._store: FaultyStore = process.world.meta_kv

    def run_batch(self, operations: Sequence[Callable[[Transaction], Any]]) -> list[Any]:
        try:
            return self._store.run_batch(operations)
        except Fs3Error:
            if self._process.world.bugs.meta_goes_on:
                raise
            self._process.end_and_come_back()
            raise Died from None

    def begin(self) -> Transaction:
        return self._store.begin()

    def sync(self) -> None:
        self._store.sync()

    def close(self) -> None:
        """It outlives the process."""


class WallClock(LoopClock):
    """With a wall clock that people set."""

    def __init__(self, process: MetaServer) -> None:
        super().__init__(process.loop)
        self._world = process.world

    def wall_ns(self) -> int:
        return super().wall_ns() + self._world.wall_jump_ns


class Minter:
    """Tokens with the fields that matter here; the time is everybody's."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def mint(self, *, rights: int, inode: int, client: bytes, session: bytes) -> bytes:
        expires_ns = self._loop.now_ns + CAPABILITY_NS
        fields = bytes([1, rights]) + inode.to_bytes(8, "little") + client
        return (fields + expires_ns.to_bytes(8, "little")).ljust(80, b"\0")


def expires_ns(capability: bytes) -> int:
    return int.from_bytes(capability[26:34], "little")


def chain_of(inode: int, index: int, chains: Sequence[int]) -> int:
    """Of a file with the default layout: all chains, seeded by the inode."""
    return chains[pick(inode, len(chains), index % min(16, len(chains)))]
