"""Neighbours that cannot reach each other: one of the two leaves the chain, safely, and returns."""

from dataclasses import replace

import pytest

from fs3.kv.api import transact
from fs3.kv.memory import MemoryStore
from fs3.mgmtd import health, store
from fs3.mgmtd.cluster import NodeExited, Persist, resumed
from fs3.mgmtd.transitions import Public
from fs3.types import NodeId
from tests.unit.cluster_driver import LEASE_S, LOCAL_UPTODATE, SECOND, serving

STEP_S = 0.5

Pair = tuple[int, int]


class Town:
    """A cluster whose servers all send heartbeats, with pairs that do not see each other."""

    def __init__(self, nodes: int = 3) -> None:
        self.cluster = serving(nodes)
        self.nodes = list(range(1, nodes + 1))
        self._apart: dict[frozenset[int], float] = {}
        self.mute: set[int] = set()  # whose heartbeats do not come
        self.unaware: set[int] = set()  # who does not hear of new routing
        self.last(2 * LEASE_S)

    def cut(self, *pairs: Pair) -> None:
        self._apart |= {frozenset(pair): 0.0 for pair in pairs}

    def mend(self, *pairs: Pair) -> None:
        for pair in pairs:
            del self._apart[frozenset(pair)]

    def last(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.step()

    def step(self) -> None:
        for pair in self._apart:
            self._apart[pair] += STEP_S
        self.cluster.advance(STEP_S)
        for node in self.nodes:
            if node not in self.mute:
                stale = int(node in self.unaware)
                self.cluster.beat(node, silent=self._silent(node), stale=stale, used_bytes=1)

    def level(self, node: int) -> None:
        """The resync of this one ended."""
        assert self.cluster.public(node) is Public.SYNCING
        self.cluster.beat(node, local=LOCAL_UPTODATE, used_bytes=1)

    def until(self, publics: str, seconds: float) -> float:
        """How long it took, in seconds."""
        for step in range(int(seconds / STEP_S) + 1):
            if self.cluster.publics() == publics:
                return step * STEP_S
            self.step()
        raise AssertionError(f"{self.cluster.publics()} after {seconds} s, not {publics}")

    def order(self) -> list[int]:
        return [target.node for target in self.cluster.chain().targets]

    def _silent(self, node: int) -> dict[int, float]:
        return {
            peer: silent_s
            for pair, silent_s in self._apart.items()
            if node in pair and silent_s >= 1
            for peer in pair - {node}
        }


def test_of_two_neighbours_that_cannot_reach_each_other_the_later_one_leaves_in_time() -> None:
    town = Town()
    assert town.order() == [1, 2, 3]
    town.cut((1, 2))
    assert town.until("SOS", LEASE_S + 1) <= LEASE_S
    assert town.order() == [1, 3, 2]


def test_it_leaves_in_two_steps_and_not_before_its_server_knows() -> None:
    """A client may still be at it: reads stop first, and no write goes without it until then."""
    town = Town()
    town.unaware = {2}
    town.cut((1, 2))
    town.until("SYS", LEASE_S + 1)
    town.last(3 * LEASE_S)
    assert town.cluster.publics() == "SYS"
    town.unaware = set()
    town.step()
    assert town.cluster.publics() == "SOS"
    assert town.cluster.rows[-2:] == ["S1", "Y2"]


def test_one_that_dies_before_it_knows_is_gone_with_its_lease() -> None:
    town = Town()
    town.unaware = {2}
    town.cut((1, 2))
    town.until("SYS", LEASE_S + 1)
    town.mute = {2}
    town.until("SOS", LEASE_S + 1)
    assert town.cluster.rows[-1] == "Y3"


def test_one_that_does_not_know_yet_keeps_its_place_when_the_other_dies() -> None:
    town = Town(2)
    town.unaware = {2}
    town.cut((1, 2))
    town.until("SY", LEASE_S + 1)
    town.cluster.kill(1)
    town.mute = {1}
    town.last(2 * LEASE_S)
    assert town.cluster.publics() == "LY"
    town.unaware = set()
    town.step()
    assert town.cluster.publics() == "LW"


def test_who_is_out_of_sight_of_the_most_goes_also_a_head() -> None:
    town = Town()
    town.cut((1, 2), (1, 3))
    town.until("OSS", LEASE_S + 1)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_whoever_complains_first_the_one_in_the_middle_goes(first: int) -> None:
    town = Town()
    town.nodes = [first, *(node for node in (1, 2, 3) if node != first)]
    town.cut((1, 2), (2, 3))
    town.until("SOS", LEASE_S + 1)
    town.last(LEASE_S)
    assert town.cluster.publics() == "SOS"


def test_targets_that_are_no_neighbours_may_miss_each_other() -> None:
    town = Town()
    town.cut((1, 3))
    town.last(3 * LEASE_S)
    assert town.cluster.publics() == "SSS"


def test_when_all_are_apart_one_is_left_and_serves() -> None:
    town = Town()
    town.cut((1, 2), (1, 3), (2, 3))
    town.until("SOO", LEASE_S + 2)
    town.last(3 * LEASE_S)
    assert town.cluster.publics() == "SOO"


def test_the_only_one_that_serves_is_never_taken_out() -> None:
    town = Town(2)
    town.cluster.kill(2)
    town.mute = {2}
    town.last(1)
    town.mute = set()
    town.cut((1, 2))
    town.cluster.start(2, used_bytes=1)
    town.last(3 * LEASE_S)
    assert town.cluster.publics() == "SO"
    town.cluster.submit(NodeExited(NodeId(1), town.cluster.incarnations[1], town.cluster.now_ns))
    assert town.cluster.publics() == "LO"


def test_a_pair_that_sees_each_other_again_is_whole_again_after_a_lease() -> None:
    town = Town()
    town.cut((1, 2))
    town.until("SOS", LEASE_S + 1)
    town.last(2 * LEASE_S)
    assert town.cluster.publics() == "SOS"
    town.mend((1, 2))
    town.last(LEASE_S - STEP_S)
    assert town.cluster.publics() == "SOS"
    town.until("SYS", 1.0)
    town.level(2)
    assert town.cluster.publics() == "SSS"
    assert all(target.cut_from is None for target in town.cluster.chain().targets)


def test_a_link_that_comes_and_goes_costs_one_resync_at_most_in_two_leases() -> None:
    town = Town()
    town.cut((1, 2))
    town.until("SOS", LEASE_S + 1)
    for _ in range(10):
        town.mend((1, 2))
        town.last(LEASE_S / 2)
        town.cut((1, 2))
        town.last(LEASE_S / 2)
        assert town.cluster.publics() == "SOS"


def test_a_silent_server_that_sleeps_is_the_business_of_its_lease() -> None:
    town = Town()
    town.cut((1, 2), (2, 3))
    town.mute = {2}
    town.last(LEASE_S - STEP_S)
    assert town.cluster.publics() == "SSS"
    town.last(2 * STEP_S)
    assert town.cluster.publics() == "SOS"
    assert town.cluster.rows[-1] == "S6"


def test_one_that_wakes_up_from_a_short_sleep_is_not_judged_by_it() -> None:
    """Those who missed it tell so until they have asked again."""
    town = Town()
    town.cut((1, 2), (2, 3))
    town.mute = {2}
    town.last(LEASE_S - 2 * STEP_S)
    town.mute = set()
    town.step()
    town.mend((1, 2), (2, 3))
    town.last(LEASE_S)
    assert town.cluster.publics() == "SSS"
    assert town.cluster.rows[-1] == "F1"


def test_a_manager_that_slept_or_began_anew_judges_nobody_before_it_has_listened() -> None:
    for restart in (False, True):
        town = Town()
        town.cut((1, 2))
        town.last(LEASE_S / 2)
        cluster = town.cluster
        cluster.now_ns += int(LEASE_S / 2 * SECOND) + 1
        if restart:
            cluster.state = resumed(cluster.state, cluster.now_ns, cluster.state.lease_ns, 1)
            cluster.beat(1, 2, 3, used_bytes=1)
        town.step()
        assert cluster.publics() == "SSS"
        town.until("SOS", LEASE_S + 1)


def test_a_syncing_target_that_its_predecessor_cannot_reach_does_not_hold_up_writes() -> None:
    town = Town()
    town.cluster.kill(3)
    town.cluster.start(3, used_bytes=1)
    assert town.cluster.publics() == "SSY"
    town.cut((2, 3))
    town.until("SSO", 2 * LEASE_S)


def test_a_resync_gives_way_to_a_serving_one_that_is_cut_off() -> None:
    """A resync may take hours, and writes stand still meanwhile."""
    town = Town()
    town.cluster.kill(3)
    town.cluster.start(3, used_bytes=1)
    town.last(LEASE_S)
    assert town.cluster.publics() == "SSY"
    town.cut((1, 2))
    town.until("SOY", LEASE_S + 1)
    assert sorted(town.cluster.rows[-4:-2]) == ["S1", "Y7"]
    assert sorted(town.cluster.rows[-2:]) == ["W3", "Y2"]
    town.level(3)
    assert town.cluster.publics() == "SOS"


def test_a_resync_that_does_not_know_yet_that_it_syncs_keeps_its_place() -> None:
    """It may be one that began to leave, whose server still answers reads."""
    town = Town()
    town.cluster.kill(3)
    town.cluster.start(3, used_bytes=1)
    town.unaware = {3}
    town.cut((1, 2))
    town.last(2 * LEASE_S)
    assert town.cluster.publics() == "SSY"


def test_it_is_written_down_and_told_to_people() -> None:
    town = Town()
    town.cut((1, 2))
    persisted = False
    while town.cluster.publics() == "SSS":
        town.step()
        persisted = persisted or any(isinstance(e, Persist) for e in town.cluster.effects)
    town.until("SOS", 1.0)
    kv = MemoryStore()
    transact(kv, lambda txn: store.write_all(txn, town.cluster.state))
    read = transact(kv, store.read_all)
    assert read is not None
    assert [t.cut_from for t in read.chains[town.cluster.chain().id].targets] == [None, None, 1]
    well, sentence = health.sentence(town.cluster.state)
    assert not well
    assert "storage-2 and storage-1 cannot reach each other: mend their network" in sentence


def test_a_record_from_before_is_read() -> None:
    town = Town()
    kv = MemoryStore()
    transact(kv, lambda txn: store.write_all(txn, town.cluster.state))
    key = store.CHAIN_PREFIX + b"%010d" % town.cluster.chain().id
    value = transact(kv, lambda txn: txn.get(key))
    assert value is not None
    assert b',"cut_from":null' in value
    older = value.replace(b',"cut_from":null', b"")
    transact(kv, lambda txn: txn.set(key, older))
    read = transact(kv, store.read_all)
    assert read is not None
    assert read.chains[town.cluster.chain().id] == town.cluster.chain()


@pytest.mark.parametrize("lease_s", [2.0, 15.0])
def test_the_bound_goes_with_the_lease(lease_s: float) -> None:
    town = Town()
    state = town.cluster.state
    lease_ns = int(lease_s * SECOND)
    town.cluster.state = replace(state, lease_ns=lease_ns, lease_longest_ns=lease_ns)
    town.last(2 * lease_s)
    town.cut((1, 2))
    took_s = town.until("SOS", lease_s + 1)
    assert took_s > lease_s / 2
