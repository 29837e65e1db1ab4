"""A client: unique values, retries under the same identity, an end within its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fs3.errors import Status
from fs3.mgmtd.state import ClusterState
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId
from tests.sim import messages
from tests.sim.disk import REMOVE, TRUNCATE, WRITE, Identity
from tests.sim.ledger import CELL, CELLS, Operation, Violation
from tests.sim.loop import MS
from tests.sim.network import Endpoint, Reply

if TYPE_CHECKING:
    from tests.sim.cluster import World

__all__ = ["Client"]

ROUTING = (
    Status.CHAIN_VERSION_MISMATCH,
    Status.NOT_SERVING,
    Status.NOT_HEAD,
    Status.LEASE_EXPIRED,
    Status.UNKNOWN_TARGET,
)
ENOSPC = 28
GIVES_UP_NS = 300 * MS  # whoever does not wait for what is held somewhere
AGAIN = (Status.BUSY, Status.TIMED_OUT, Status.CONNECTION_LOST, Status.SHUTTING_DOWN)


class Client(Endpoint):
    def __init__(self, world: World, number: int) -> None:
        super().__init__(world.loop, f"client-{number}")
        self.world = world
        self.number = number
        self.busy = 0
        self.stopping = False
        self._manager = 0
        self._routing: ClusterState | None = None
        self._sequences: dict[int, int] = {}

    def start(self, channels: int) -> None:
        self.begin_life()
        self._fetch()
        for channel in range(channels):
            self.after(self.loop.random.randrange(200 * MS), lambda c=channel: self._next(c))

    def handle(self, request: object, reply: Reply) -> None:
        if isinstance(request, messages.PushRouting):
            self._take(request.routing)

    def read_all(self) -> None:
        """One read of each chunk that anybody touched."""
        for chunk in {operation.chunk: None for operation in self.world.ledger.operations}:
            self._begin(Operation(0, "read", chunk, None, self.loop.now_ns), None)

    # ---- one operation after the other on each channel

    def _next(self, channel: int) -> None:
        if self.stopping:
            return
        random, load = self.loop.random, self.world.load
        chunk = random.randrange(load.chains) + 1, random.randrange(load.chunks)
        number = len(self.world.ledger.operations) + 1
        kind = random.choices(("write", "read", "truncate", "remove"), load.mix)[0]
        if kind == "remove" and chunk[1] == 0:
            kind = "write"  # the first chunk of a chain stays, so that no disk looks empty
        identity: Identity | None = None
        if kind != "read":
            sequence = self._sequences.get(channel, 0) + 1
            self._sequences[channel] = sequence
            identity = bytes([self.number]) * 16, channel, sequence
        first = random.randrange(CELLS)
        count = random.randrange(1, CELLS - first + 1)
        operation = Operation(number, kind, chunk, identity, self.loop.now_ns, first, count)
        self._begin(operation, channel)

    def _begin(self, operation: Operation, channel: int | None) -> None:
        ledger = self.world.ledger
        ledger.operations.append(operation)
        operation.number = len(ledger.operations)
        operation.floor = ledger.acknowledged.get(operation.chunk, (0, 0))
        self.busy += 1
        self.loop.note(self.name, operation.kind, f"#{operation.number}", operation.chunk)
        patience_ns = GIVES_UP_NS if operation.held_ns else self.world.load.deadline_ns
        deadline_ns = self.loop.now_ns + patience_ns
        _Attempts(self, operation, channel, deadline_ns).go()

    def ended(self, operation: Operation, channel: int | None) -> None:
        operation.ended_ns = self.loop.now_ns
        self.busy -= 1
        self.loop.note(self.name, "ended", f"#{operation.number}", operation.ok, operation.code)
        if channel is not None:
            pause_ns = self.loop.random.randrange(self.world.load.think_ns)
            self.after(pause_ns, lambda: self._next(channel))

    # ---- routing

    def _take(self, routing: ClusterState) -> None:
        if self._routing is None or routing.version > self._routing.version:
            self._routing = routing

    def refresh(self) -> None:
        self._fetch()

    def _fetch(self) -> None:
        def done(code: int, payload: object) -> None:
            if code == 0 and isinstance(payload, ClusterState):
                self._take(payload)

        managers = self.world.managers
        self._manager += 1
        manager = managers[self._manager % len(managers)]
        self.world.network.call(self, manager, messages.GetRouting(), done, 500 * MS)

    def target_for(self, operation: Operation) -> tuple[int, int, int] | None:
        """(target, node, chain version): the head for updates, any serving one for reads."""
        if self._routing is None:
            return None
        chain = self._routing.chains[ChainId(self.world.chain_of(operation.chunk))]
        serving = [t for t in chain.targets if t.public is Public.SERVING]
        if not serving:
            return None
        chosen = serving[0] if operation.kind != "read" else self.loop.random.choice(serving)
        return chosen.id, chosen.node, chain.version


class _Attempts:
    """One operation until it ends."""

    def __init__(
        self, client: Client, operation: Operation, channel: int | None, deadline_ns: int
    ) -> None:
        self.client = client
        self.operation = operation
        self.channel = channel
        self.deadline_ns = deadline_ns

    def go(self) -> None:
        client, operation = self.client, self.operation
        if client.loop.now_ns >= self.deadline_ns:
            operation.code = operation.code or Status.TIMED_OUT
            client.ended(operation, self.channel)
            return
        place = client.target_for(operation)
        if place is None:
            client.refresh()
            client.after(100 * MS, self.go)
            return
        operation.attempts += 1
        target, node, version = place
        request, wait_ns = self._request(target, version), client.world.load.call_ns
        client.world.network.call(
            client, client.world.nodes[node], request, self._done, wait_ns, operation.held_ns
        )

    def _request(self, target: int, chain_version: int) -> object:
        operation = self.operation
        if operation.kind == "read":
            return messages.ReadRequest(target, operation.chunk, chain_version)
        kind = {"write": WRITE, "truncate": TRUNCATE, "remove": REMOVE}[operation.kind]
        data = operation.payload
        offset = operation.first * CELL if kind == WRITE else 0
        length = len(data) if kind == WRITE else operation.count * CELL if kind == TRUNCATE else 0
        identity = self.client.world.bugs.identity(operation)
        return messages.UpdateRequest(
            target, operation.chunk, kind, offset, length, data, chain_version, identity,
            operation.expires_ns,
        )  # fmt: skip

    def _done(self, code: int, payload: object) -> None:
        operation = self.operation
        operation.code = code
        if code == 0:
            operation.ok = True
            self._keep(payload)
            self.client.ended(operation, self.channel)
        elif code in ROUTING:
            self.client.refresh()
            self.client.after(self.client.loop.random.randrange(10 * MS, 60 * MS), self.go)
        elif code in AGAIN:
            self.client.refresh()
            self.client.after(self.client.loop.random.randrange(5 * MS, 100 * MS), self.go)
        elif operation.kind == "read" and (code < 4096 or code == Status.CHECKSUM_MISMATCH):
            self.client.after(20 * MS, self.go)  # a failing disk: another replica
        elif code in (ENOSPC, Status.DAMAGED, Status.CAPABILITY_DENIED):
            # Told to the application; the update may be under way from an earlier attempt.
            self.client.ended(operation, self.channel)
        else:
            raise Violation("P1", f"{operation} was refused for ever: {code} {payload}")

    def _keep(self, payload: object) -> None:
        operation = self.operation
        if operation.kind == "read":
            operation.data, operation.position = payload  # type: ignore[misc]
            self._check_fresh()
        else:
            operation.version = payload  # type: ignore[assignment]

    def _check_fresh(self) -> None:
        """I3, at once: nothing older than what was acknowledged before the read began."""
        operation = self.operation
        if (operation.position or (0, 0)) < operation.floor:
            raise Violation(
                "I3", f"{operation} saw {operation.position}, acknowledged was {operation.floor}"
            )
