"""Random event sequences keep the invariants; together they execute every row of the table."""

from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fs3.mgmtd import chains
from fs3.mgmtd.chains import Move
from fs3.mgmtd.cluster import TargetLeaves
from fs3.mgmtd.state import ChainRecord, ClusterState, TargetRecord
from fs3.mgmtd.transitions import TABLE, Belief, Public
from tests.unit.cluster_driver import LOCAL_OFFLINE, LOCAL_ONLINE, LOCAL_UPTODATE, Cluster

NODES = 3

node = st.integers(1, NODES)
local = st.sampled_from([None, None, LOCAL_UPTODATE, LOCAL_ONLINE, LOCAL_OFFLINE])
action = st.one_of(
    st.tuples(st.just("start"), node),
    st.tuples(st.just("kill"), node),
    st.tuples(st.just("register"), node),
    st.tuples(st.just("beat"), node, local, st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("sync"), node),
    st.tuples(st.just("missing"), node),
    st.tuples(st.just("advance"), st.sets(node), st.sampled_from([0.5, 1.0, 4.0])),
    st.tuples(st.just("leave"), node, st.booleans()),
    st.tuples(st.just("apart"), node, node, st.sampled_from([1.0, 3.0, 4.0])),
)


class Model:
    """What the replicas really hold, told apart from what they report.

    `level`: nodes whose target holds every acknowledged write. A target becomes level when its
    server says UPTODATE as SYNCING under the current version (the resync really ended), and loses
    it when others may acknowledge writes without it.
    """

    def __init__(self) -> None:
        self.cluster = Cluster(NODES, NODES, chains=1)
        self.level: set[int] = set(range(1, NODES + 1))

    def do(self, step: tuple[object, ...]) -> None:
        before = self.cluster.state
        getattr(self, f"_{step[0]}")(*step[1:])
        self._check(before, self.cluster.state)

    def _start(self, node: int) -> None:
        self.cluster.start(node, used_bytes=self._used())

    def _register(self, node: int) -> None:
        if node in self.cluster.incarnations:
            self.cluster.register(node, used_bytes=self._used())

    def _kill(self, node: int) -> None:
        if node in self.cluster.incarnations:
            self.cluster.kill(node)

    def _missing(self, node: int) -> None:
        if node in self.cluster.incarnations:
            self.cluster.beat(node, missing=True)

    def _beat(self, node: int, local: int | None, used: int, stale: int) -> None:
        if node not in self.cluster.incarnations:
            return
        # A server says UPTODATE under the current version only when it is: that is its duty.
        if local == LOCAL_UPTODATE and not stale and node not in self.level:
            local = LOCAL_ONLINE
        self.cluster.beat(node, local=local, used_bytes=used * self._used(), stale=stale)

    def _sync(self, node: int) -> None:
        """The resync of a syncing target ends."""
        if node in self.cluster.incarnations and self.cluster.public(node) is Public.SYNCING:
            self.level.add(node)
            self.cluster.beat(node, local=LOCAL_UPTODATE, used_bytes=1)

    def _advance(self, beating: set[int], seconds: float) -> None:
        self.cluster.advance(seconds, [n for n in beating if n in self.cluster.incarnations])

    def _leave(self, node: int, leaving: bool) -> None:
        target = self.cluster.target(node)
        self.cluster.submit(TargetLeaves(target, leaving, self.cluster.now_ns))

    def _apart(self, node: int, peer: int, silent_s: float) -> None:
        """Everybody is heard for a while, then one misses another."""
        known = self.cluster.incarnations
        if node == peer or node not in known:
            return
        self._advance(set(known), 4.0)
        before = self.cluster.state
        self.cluster.beat(node, silent={peer: silent_s}, used_bytes=self._used())
        self._check(before, self.cluster.state)

    def _used(self) -> int:
        return 0 if self.cluster.chain().forming else 1

    def _check(self, before: ClusterState, after: ClusterState) -> None:
        old, new = before.chains[self.cluster.chain().id], self.cluster.chain()
        serving = {t.node for t in new.targets if t.public is Public.SERVING}
        last = [t.node for t in new.targets if t.public is Public.LASTSRV]
        assert new.version >= old.version
        assert after.version >= before.version
        states = [(t.id, t.public) for t in old.targets], [(t.id, t.public) for t in new.targets]
        if states[0] != states[1]:
            assert new.version > old.version
            assert after.version > before.version
        if not new.forming:
            assert serving or len(last) == 1
            assert serving <= self.level, "a target serves that misses acknowledged writes"
            assert set(last) <= self.level, "LASTSRV misses acknowledged writes"
        assert not (serving and last)
        assert sum(t.public is Public.SYNCING for t in new.targets) <= 1
        assert [t.public for t in new.targets] == sorted(t.public for t in new.targets)
        # Writes are acknowledged by whoever serves or syncs: the others fall behind.
        if serving:
            members = {t.node for t in new.targets if t.public is Public.SYNCING}
            self.level &= serving | members


def run(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for step in steps:
        model.do(step)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(action, max_size=60))
def test_any_sequence_keeps_the_invariants(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for number in range(1, NODES + 1):
        model.do(("start", number))
    for step in steps:
        model.do(step)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(action, max_size=40))
def test_a_cluster_that_never_formed_keeps_them_too(steps: list[tuple[object, ...]]) -> None:
    run(steps)


def test_a_planted_bug_is_caught() -> None:
    """The canary: if any UPTODATE were believed, a stale target would serve."""
    model = Model()
    for number in range(1, NODES + 1):
        model.do(("start", number))
    model.do(("kill", 1))
    caught = False
    chain = model.cluster.chain()
    spoilt = tuple(
        TargetRecord(t.id, t.node, Public.SERVING if t.node == 1 else t.public)
        for t in chain.targets
    )
    before = model.cluster.state
    model.cluster.state.chains[chain.id] = ChainRecord(  # type: ignore[index]
        chain.id, chain.version, tuple(sorted(spoilt, key=lambda t: t.public))
    )
    try:
        model._check(before, model.cluster.state)
    except AssertionError as error:
        caught = "misses acknowledged writes" in str(error)
    assert caught


@seed(7)
@settings(
    max_examples=600,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(action, min_size=30, max_size=60))
def _execute(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for number in range(1, NODES + 1):
        model.do(("start", number))
    run(steps)
    for step in steps:
        model.do(step)


def test_every_row_of_the_table_is_executed() -> None:
    executed: Counter[str] = Counter()
    original = chains.step

    def counting(
        chain: ChainRecord, beliefs: Callable[[TargetRecord], Belief], complete: bool
    ) -> tuple[ChainRecord, list[Move]]:
        after, moves = original(chain, beliefs, complete)
        executed.update(move.row.id for move in moves)
        return after, moves

    chains.step = counting
    try:
        _execute()
    finally:
        chains.step = original
    assert {row.id for row in TABLE} - set(executed) == set()
