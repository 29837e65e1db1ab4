"""Manager, store and election: what survives a restart, what a fenced primary can still do."""

import threading

import pytest

from fs3.errors import BadRequest, Damaged, Denied, OutcomeUnknown, RetryElsewhere, Status
from fs3.kv.api import Transaction, transact
from fs3.kv.election import MANAGER_KEY, Election, Fenced
from fs3.kv.memory import MemoryStore
from fs3.kv.transaction import OptimisticTransaction
from fs3.mgmtd import bootstrap, store
from fs3.mgmtd.cluster import (
    Heartbeat,
    NodeExited,
    NodeRegistered,
    NumberDrawn,
    Refusal,
    Refused,
)
from fs3.mgmtd.daemon import PRIMARY_LEASE_SHARE, TICK_S
from fs3.mgmtd.manager import Manager
from fs3.mgmtd.state import LOCAL_ONLINE, ClusterState, NodeIdentity, TargetReport
from fs3.mgmtd.transitions import Public
from fs3.runtime import failpoint
from fs3.runtime.clock import ManualClock
from fs3.types import ChainId, NodeId

CLUSTER = b"c" * 16
LEASE_S = 4.0


class World:
    """One store, one clock, any number of managers."""

    def __init__(self, *, exclusive: bool = True) -> None:
        self.kv = MemoryStore()
        self.clock = ManualClock()
        self.exclusive = exclusive
        self.fenced: list[str] = []
        bootstrap.initialise(
            self.kv, cluster_id=CLUSTER, storage_nodes=[1, 2, 3], replicas=3, chains=2
        )

    def candidate(self, name: str) -> Election:
        lease_s = LEASE_S * PRIMARY_LEASE_SHARE
        return Election(
            self.kv,
            self.clock,
            key=MANAGER_KEY,
            holder=name,
            lease_s=lease_s,
            exclusive=self.exclusive,
        )

    def manager(self, name: str) -> Manager:
        election = self.candidate(name)
        assert election.try_take()
        return self.with_election(name, election)

    def with_election(self, name: str, election: Election) -> Manager:
        manager = Manager(
            self.kv,
            self.clock,
            election,
            lease_s=LEASE_S,
            on_ended=lambda: self.fenced.append(name),
        )
        manager.begin()
        return manager

    def register(self, manager: Manager, node: int, incarnation: bytes = b"") -> ClusterState:
        state = manager.state()
        reports = tuple(
            TargetReport(target.id, LOCAL_ONLINE, chain.id, chain.version)
            for chain in state.chains.values()
            for target in chain.targets
            if target.node == node
        )
        identity = NodeIdentity(NodeId(node), "storage", f"storage-{node}", ("tcp://h:1",), "h:2")
        event = self.registration(manager, identity, incarnation or bytes([node]) * 16, reports)
        return manager.submit(event)[0]

    def registration(
        self,
        manager: Manager,
        identity: NodeIdentity,
        incarnation: bytes,
        reports: tuple[TargetReport, ...] = (),
    ) -> NodeRegistered:
        drawn = manager.submit(NumberDrawn())[0]
        now_ns = self.clock.monotonic_ns()
        return NodeRegistered(identity, incarnation, drawn.epoch, drawn.drawn, 1, reports, now_ns)


@pytest.fixture
def world() -> World:
    return World()


# ---- store


def test_the_state_reads_back_as_it_was_written(world: World) -> None:
    manager = world.manager("a")
    for node in (1, 2, 3):
        state = world.register(manager, node)
    manager.submit(NodeExited(NodeId(2), bytes([2]) * 16, 0))
    state = manager.state()
    again = transact(world.kv, store.read_all)
    assert again is not None
    assert again.version == state.version
    assert again.chains == state.chains
    assert again.tables == state.tables
    for node in (1, 2, 3):
        one, other = state.nodes[NodeId(node)], again.nodes[NodeId(node)]
        assert (one.identity, one.incarnation) == (other.identity, other.incarnation)
        assert (one.alive, one.retired) == (other.alive, other.retired)


def test_a_restart_keeps_states_and_versions(world: World) -> None:
    manager = world.manager("a")
    for node in (1, 2, 3):
        world.register(manager, node)
    manager.submit(NodeExited(NodeId(2), bytes([2]) * 16, 0))
    before = manager.state()
    second = world.manager("b")
    after = second.state()
    assert after.version == before.version
    assert after.chains == before.chains
    assert second.board.newest().version == before.version
    assert second.epoch == manager.epoch + 1
    beat = Heartbeat(NodeId(1), bytes([1]) * 16, second.epoch, 2, (), world.clock.monotonic_ns())
    assert not any(isinstance(effect, Refused) for effect in second.submit(beat)[1])


def test_numbers_of_registrations_grow_in_a_term_and_count_only_in_it() -> None:
    world = World()
    first = world.manager("a")
    identity = NodeIdentity(NodeId(1), "storage", "storage-1")
    late = world.registration(first, identity, b"d" * 16)
    written = world.kv.copy()
    drawn = [first.submit(NumberDrawn())[0] for _ in range(3)]
    assert [(state.epoch, state.drawn) for state in drawn] == [(1, 2), (1, 3), (1, 4)]
    assert transact(world.kv, store.read_all) == transact(written, store.read_all)
    second = world.manager("b")
    world.register(second, 1)
    state, effects = second.submit(late)
    assert [e.refusal for e in effects if isinstance(e, Refused)] == [Refusal.OUT_OF_DATE]
    assert state.nodes[NodeId(1)].incarnation == bytes([1]) * 16
    assert (state.epoch, state.drawn) == (2, 1)


def test_initialise_is_repeatable_and_refuses_another_cluster(world: World) -> None:
    again = {"storage_nodes": [1, 2, 3], "replicas": 3}
    assert not bootstrap.initialise(world.kv, cluster_id=CLUSTER, **again)  # type: ignore[arg-type]
    with pytest.raises(Denied, match="not 6464"):
        bootstrap.initialise(world.kv, cluster_id=b"d" * 16, **again)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="replicas"):
        bootstrap.initialise(MemoryStore(), cluster_id=CLUSTER, storage_nodes=[1], replicas=3)


@pytest.mark.parametrize(
    "value", [b"", b"{}", b'{"schema":2}', b"[1]", b"\xff", b'{"schema":1,"extra":1}']
)
def test_damaged_records_are_named(world: World, value: bytes) -> None:
    transact(world.kv, lambda txn: txn.set(store.CLUSTER_KEY, value))
    with pytest.raises(Damaged, match="cluster"):
        transact(world.kv, store.read_all)


def test_a_record_of_a_newer_schema_is_refused(world: World) -> None:
    def newer(txn: Transaction) -> None:
        value = txn.get(store.CLUSTER_KEY)
        assert value is not None
        txn.set(store.CLUSTER_KEY, value.replace(b'"schema":1', b'"schema":2'))

    transact(world.kv, newer)
    with pytest.raises(Damaged, match="upgrade"):
        transact(world.kv, store.read_all)


# ---- order of persist and publish


def test_what_cannot_be_persisted_is_not_published() -> None:
    world = World()
    manager = world.manager("a")
    before = manager.board.newest().version
    failpoint.arm("mgmtd.event_applied=error*1")
    try:
        with pytest.raises(OSError, match="failpoint"):
            world.register(manager, 1)
        assert failpoint.passed("mgmtd.event_applied") == 1
    finally:
        failpoint.disarm()
    assert manager.board.newest().version == before
    assert manager.state().version == before
    world.register(manager, 1)
    assert manager.board.newest().version == before + 1


def test_what_was_persisted_but_not_published_is_there_after_a_restart() -> None:
    world = World()
    manager = world.manager("a")
    before = manager.board.newest().version
    failpoint.arm("mgmtd.routing_written=error*1")
    try:
        with pytest.raises(OSError, match="failpoint"):
            world.register(manager, 1)
    finally:
        failpoint.disarm()
    assert manager.board.newest().version == before
    second = world.manager("b")
    assert second.state().version == before + 1
    assert NodeId(1) in second.state().nodes


class _LosesOutcomes(MemoryStore):
    """Commits, and does not say so, from `armed` on."""

    armed = False

    def _commit(self, transaction: OptimisticTransaction) -> int:
        version = super()._commit(transaction)
        if self.armed:
            raise OutcomeUnknown(Status.TIMED_OUT, "kv", "the connection broke")
        return version


def test_a_primary_that_does_not_know_what_is_written_steps_down() -> None:
    """Otherwise it renews a lease of a server that the next primary finds dead in the store."""
    world = World()
    world.kv = _LosesOutcomes()
    bootstrap.initialise(
        world.kv, cluster_id=CLUSTER, storage_nodes=[1, 2, 3], replicas=3, chains=2
    )
    manager = world.manager("a")
    world.register(manager, 1, b"1" * 16)
    world.kv.armed = True
    with pytest.raises(RetryElsewhere):
        manager.submit(NodeExited(NodeId(1), b"1" * 16, world.clock.monotonic_ns()))
    assert world.fenced == ["a"]
    world.kv.armed = False
    with pytest.raises(RetryElsewhere):
        manager.state()
    assert not world.manager("b").state().nodes[NodeId(1)].alive


# ---- election


def test_a_candidate_waits_for_the_whole_lease_and_then_takes_over() -> None:
    world = World(exclusive=False)
    first = world.candidate("a")
    second = world.candidate("b")
    assert first.try_take()
    assert not second.try_take()
    world.clock.advance(1.5)
    assert not second.try_take()
    first.renew()
    world.clock.advance(1.5)
    assert not second.try_take()
    world.clock.advance(1.7)
    assert second.try_take()
    assert second.epoch == 2
    with pytest.raises(Fenced):
        first.renew()


def test_a_new_primary_comes_within_half_of_the_lease_of_the_servers() -> None:
    """The dead one renewed just before; the candidate looks once per tick."""
    world = World(exclusive=False)
    first = world.candidate("a")
    second = world.candidate("b")
    assert first.try_take()
    first.renew()
    died_ns = world.clock.monotonic_ns()
    while not second.try_take():
        world.clock.advance(TICK_S)
    assert world.clock.monotonic_ns() - died_ns <= LEASE_S / 2 * 1e9


def test_a_primary_stops_answering_before_another_may_take_over() -> None:
    world = World(exclusive=False)
    first = world.candidate("a")
    assert not first.held()
    assert first.try_take()
    world.clock.advance(1.2)
    assert first.held()
    world.clock.advance(0.1)
    assert not first.held()


def test_an_exclusive_store_is_taken_at_once(world: World) -> None:
    assert world.candidate("a").try_take()
    second = world.candidate("b")
    assert second.try_take()
    assert second.epoch == 2


def test_two_candidates_at_once_give_one_primary() -> None:
    world = World(exclusive=False)
    candidates = [world.candidate(name) for name in "abcdefgh"]
    start = threading.Barrier(len(candidates))
    won: list[bool] = []

    def stand(candidate: Election) -> None:
        start.wait()
        won.append(candidate.try_take())

    threads = [threading.Thread(target=stand, args=(c,)) for c in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1


def test_a_fenced_primary_changes_nothing_and_acknowledges_nothing() -> None:
    """I14: the old primary wakes up after another took over."""
    world = World(exclusive=False)
    first_election = world.candidate("a")
    assert first_election.try_take()
    first = world.with_election("a", first_election)
    for node in (1, 2, 3):
        world.register(first, node)
    second_election = world.candidate("b")
    assert not second_election.try_take()
    world.clock.advance(1.7)
    assert second_election.try_take()
    second = world.with_election("b", second_election)
    version = second.state().version

    beat = Heartbeat(NodeId(1), bytes([1]) * 16, 1, 2, (), world.clock.monotonic_ns())
    with pytest.raises(RetryElsewhere):
        first.submit(beat)
    with pytest.raises(RetryElsewhere):
        first.submit(NodeExited(NodeId(2), bytes([2]) * 16, 0))
    assert world.fenced == ["a"]
    after = transact(world.kv, store.read_all)
    assert after is not None
    assert after.version == version
    assert after.chains[ChainId(1)].targets[0].public is Public.SERVING
    with pytest.raises(RetryElsewhere):
        first.state()
    assert second.state().version == version


def test_renewal_by_a_fenced_primary_ends_it() -> None:
    world = World(exclusive=False)
    election = world.candidate("a")
    assert election.try_take()
    manager = world.with_election("a", election)
    other = world.candidate("b")
    other.try_take()
    world.clock.advance(1.7)
    assert other.try_take()
    manager.renew()
    assert world.fenced == ["a"]
    watch = manager.board.watch(threading.Event())
    assert list(watch) == []


def test_a_write_of_unknown_outcome_ends_the_term_and_the_next_begins_with_what_is_there() -> None:
    world = World(exclusive=False)
    election = world.candidate("a")
    assert election.try_take()
    manager = world.with_election("a", election)
    version = manager.state().version
    commit = world.kv._commit

    def lost(transaction: OptimisticTransaction) -> int:
        commit(transaction)
        raise OutcomeUnknown(Status.CONNECTION_LOST, "kv", "planned")

    world.kv._commit = lost  # type: ignore[method-assign]
    with pytest.raises(RetryElsewhere):
        world.register(manager, 1)
    world.kv._commit = commit  # type: ignore[method-assign]
    assert world.fenced == ["a"]
    with pytest.raises(RetryElsewhere):
        manager.state()
    again = world.candidate("a")
    assert again.try_take()  # its own former term: no waiting
    assert world.with_election("a", again).state().version == version + 1


def test_a_damaged_primary_record_is_named(world: World) -> None:
    transact(world.kv, lambda txn: txn.set(MANAGER_KEY, b"nonsense"))
    with pytest.raises(Damaged, match="election"):
        world.candidate("a").try_take()


# ---- health and clients


def test_health_says_the_worst_first(world: World) -> None:
    manager = world.manager("a")
    well, text = manager.health()
    assert not well
    assert text == (
        "2 chains not formed yet: every disk must be present and empty; "
        "0 of 3 storage servers alive."
    )
    for node in (1, 2, 3):
        world.register(manager, node)
    assert "No metadata service" in manager.health()[1]
    meta = NodeIdentity(NodeId(9), "meta", "meta-1")
    manager.submit(world.registration(manager, meta, b"m" * 16))
    assert manager.health() == (
        True,
        "All is well: 3 of 3 storage servers alive, 2 chains fully replicated.",
    )
    manager.submit(NodeExited(NodeId(2), bytes([2]) * 16, 0))
    assert manager.health()[1] == (
        "2 chains with fewer copies (at least 2), reads and writes go on; storage-2 is down; "
        "2 of 3 storage servers alive."
    )
    world.register(manager, 2, incarnation=b"n" * 16)
    assert "2 targets are being brought level" in manager.health()[1]
    for node, incarnation in ((1, bytes([1]) * 16), (2, b"n" * 16), (3, bytes([3]) * 16)):
        manager.submit(NodeExited(NodeId(node), incarnation, 0))
    well, text = manager.health()
    assert not well
    assert text.startswith("2 chains cannot be read or written until storage-3 is back")


def test_clients_that_are_silent_for_a_minute_are_forgotten(world: World) -> None:
    manager = world.manager("a")
    manager.extend_client(b"x" * 16, "mount on host-1")  # type: ignore[arg-type]
    world.clock.advance(30)
    manager.extend_client(b"y" * 16, "fs3 ls")  # type: ignore[arg-type]
    world.clock.advance(31)
    manager.tick()
    assert [client.description for client in manager.clients()] == ["fs3 ls"]
    assert manager.statistics().clients == 1
