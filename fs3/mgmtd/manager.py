"""The state machine joined to the world: one lock, the store, the clock, the board of routing info.

Order of one event: apply, persist (with the epoch compared in the same transaction), take the new
state, publish, answer. A crash between any two leaves what was persisted; nobody saw more.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fs3.errors import Fs3Error, RetryElsewhere, RetryLater, Status
from fs3.kv.api import KeyValueStore, Transaction, transact
from fs3.kv.election import Election, Fenced
from fs3.mgmtd import cluster, health, routing, store
from fs3.mgmtd.cluster import Effect, Event, Moved, Persist, Refused, RoutingChanged, Tick
from fs3.mgmtd.routing import Board
from fs3.mgmtd.sessions import ClientRecord, Sessions
from fs3.mgmtd.state import ClusterState
from fs3.runtime.clock import Clock
from fs3.runtime.failpoint import failpoint
from fs3.types import ClientId

__all__ = ["Manager", "ManagerStatistics", "not_primary"]

log = logging.getLogger(__name__)

BEAT_S = 1.0  # a watcher that hears nothing for three of them looks for another manager


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    events: int
    refused: int
    transitions: int
    routing_version: int
    epoch: int
    watchers: int
    clients: int


class Manager:
    """One term of a primary. Thread-safe. begin() once, after the election was won; then events
    from any thread.

    `on_ended` is called once, when the term is over: another process took over, or a write went
    out of which nobody knows whether the store took it. Then what is in memory may not be what is
    in the store, and the next term, here or elsewhere, begins with what is there.
    """

    def __init__(
        self,
        kv: KeyValueStore,
        clock: Clock,
        election: Election,
        *,
        lease_s: float,
        on_ended: Callable[[], None],
    ) -> None:
        self.board = Board()
        self._kv = kv
        self._clock = clock
        self._election = election
        self._lease_ns = int(lease_s * 1e9)
        self._on_ended = on_ended
        self._lock = threading.Lock()  # guards all below; held while an event is persisted
        self._state: ClusterState | None = None
        self._sessions = Sessions()
        self._ended = False
        self._beat_ns = 0
        self._events = self._refused = self._transitions = 0

    def begin(self) -> ClusterState:
        """Loads and publishes the state. REQUIRES a store with a cluster (bootstrap.initialise)."""
        with self._lock:
            loaded = transact(self._kv, store.read_all)
            if loaded is None:
                raise ValueError("the store holds no cluster")
            failpoint("mgmtd.state_loaded")
            state = cluster.resumed(
                loaded, self._clock.monotonic_ns(), self._lease_ns, self._election.epoch
            )
            self._persist(state, Persist((), ()))
            self._state = state
            self.board.publish(routing.encode(state))
            return state

    def submit(self, event: Event) -> tuple[ClusterState, list[Effect]]:
        """Applies one event and makes its effects true. Returns the new state and the effects.

        Raises RetryElsewhere when this process is no longer primary: nothing was changed.
        """
        with self._lock:
            state, effects = self._apply(event)
        if not self._election.held():
            raise not_primary()
        failpoint("mgmtd.answer")
        return state, effects

    def tick(self) -> None:
        """Every 100 ms: dead nodes, the primary's lease, clients that left."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            self._apply(Tick(now_ns))
            if now_ns - self._beat_ns >= BEAT_S * 1e9 and self._election.held():
                self._beat_ns = now_ns
                self.board.beat()
            for client in self._sessions.expire(now_ns):
                log.info("client %s (%s) left", client.client_id.hex(), client.description)

    def renew(self) -> None:
        """The primary's lease; well before 0.8 of it is over."""
        with self._lock:
            if self._ended:
                return
            try:
                self._election.renew()
            except Fenced as error:
                self._step_down(error)

    def extend_client(self, client_id: ClientId, description: str) -> None:
        with self._lock:
            self._sessions.extend(client_id, description, self._clock.monotonic_ns())

    def clients(self) -> list[ClientRecord]:
        with self._lock:
            return self._sessions.all()

    def state(self) -> ClusterState:
        with self._lock:
            return self._current()

    def health(self) -> tuple[bool, str]:
        return health.sentence(self.state())

    @property
    def epoch(self) -> int:
        return self._election.epoch

    def statistics(self) -> ManagerStatistics:
        watchers = self.board.watchers()
        with self._lock:
            return ManagerStatistics(
                self._events,
                self._refused,
                self._transitions,
                self._current().version,
                self._election.epoch,
                watchers,
                len(self._sessions.all()),
            )

    def close(self) -> None:
        """Ends the watches."""
        self.board.close()

    def _apply(self, event: Event) -> tuple[ClusterState, list[Effect]]:
        state, effects = cluster.apply(self._current(), event)
        failpoint("mgmtd.event_applied")
        for effect in effects:
            if isinstance(effect, Persist):
                self._persist(state, effect)
                failpoint("mgmtd.routing_written")
        self._state = state
        self._events += 1
        for effect in effects:
            self._make_true(state, effect)
        return state, effects

    def _make_true(self, state: ClusterState, effect: Effect) -> None:
        if isinstance(effect, RoutingChanged):
            self.board.publish(routing.encode(state))
            failpoint("mgmtd.routing_published")
        elif isinstance(effect, Moved):
            self._transitions += 1
            move = effect.move
            log.info(
                "chain %d target %d: %s -> %s (%s: %s)",
                move.chain,
                move.target,
                move.before.name,
                move.after.name,
                move.row.id,
                move.row.reason,
            )
        elif isinstance(effect, Refused):
            self._refused += 1
            log.info("refused: %s (%s)", effect.detail, effect.refusal.value)

    def _persist(self, state: ClusterState, what: Persist) -> None:
        written = False
        try:
            transact(self._kv, lambda txn: self._write(txn, state, what))
            written = True
            # A chain version that was published may not be forgotten by a power cut: the servers
            # have acknowledged writes under it. Changes are rare, so each is flushed by itself.
            self._kv.sync()
        except Fs3Error as error:
            if isinstance(error, RetryLater) and not written:
                raise  # nothing happened; the event can come again
            # Fenced, or nobody knows whether it is written. Going on with the former state could
            # renew the lease of a server that a later primary finds declared dead in the store, and
            # then drops from its chains at once.
            self._step_down(error)
            raise not_primary() from error

    def _write(self, txn: Transaction, state: ClusterState, what: Persist) -> None:
        self._election.guard(txn)
        store.write_changes(txn, state, what.nodes, what.chains)

    def _step_down(self, error: Fs3Error) -> None:
        if not self._ended:
            log.warning("no longer primary: %s", error)
            self._ended = True
            self.board.close()
            self._on_ended()

    def _current(self) -> ClusterState:
        if self._state is None or self._ended:
            raise not_primary()
        return self._state


def not_primary(primary: str = "") -> RetryElsewhere:
    """What a standby answers. `primary`: where to go, when it is known."""
    where = f"the primary is {primary}" if primary else "try another one"
    detail = f"this manager is not the primary; {where}"
    return RetryElsewhere(Status.NOT_SERVING, "mgmtd", detail)
