"""T is a setting, 2 to 60 seconds: the rules that safety stands on hold at each."""

from collections.abc import Iterator

import pytest

from fs3._proto import common_pb2
from fs3.errors import BadRequest
from fs3.mgmtd.cluster import resumed
from fs3.runtime.clock import ManualClock
from fs3.runtime.config import MgmtdConfig, parse
from fs3.types import NodeId
from tests.unit.cluster_driver import SECOND, Cluster, serving
from tests.unit.mgmtd_harness import Manager, Server, settle, wait_for

LEASES_S = (2.0, 4.0, 15.0)
ALL_SERVE = [common_pb2.SERVING] * 3


@pytest.fixture(params=LEASES_S, ids=lambda lease_s: f"T={lease_s:g}")
def lease_s(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.mark.parametrize("value", [1.99, 60.1, 0.0, -4.0])
def test_other_leases_are_refused_by_name(value: float) -> None:
    with pytest.raises(BadRequest, match="lease_s"):
        parse(MgmtdConfig, {"data": "memory", "lease_s": value}, "test")


@pytest.mark.parametrize("value", [2.0, 4.0, 15.0, 60.0])
def test_these_are_taken(value: float) -> None:
    assert parse(MgmtdConfig, {"data": "memory", "lease_s": value}, "test").lease_s == value


# ---- the state machine


@pytest.fixture
def cluster(lease_s: float) -> Cluster:
    return serving(lease_s=lease_s)


def test_silence_demotes_after_a_whole_lease_and_not_before(
    cluster: Cluster, lease_s: float
) -> None:
    cluster.advance(lease_s - 0.5, beating=(1, 3))
    assert cluster.publics() == "SSS"
    cluster.advance(0.5, beating=(1, 3))
    assert cluster.publics() == "SOS"


def test_a_proven_death_and_a_new_process_wait_for_nothing(cluster: Cluster) -> None:
    cluster.kill(2)
    assert cluster.publics() == "SOS"
    cluster.start(2, used_bytes=1)
    assert cluster.publics() == "SYS"
    cluster.start(1, used_bytes=1)
    assert cluster.public(1).name == "WAITING", "demoted by its new incarnation alone"


def test_a_manager_that_slept_condemns_nobody(cluster: Cluster, lease_s: float) -> None:
    cluster.now_ns += int(3 * lease_s * SECOND)
    cluster.advance(0.5)
    assert cluster.publics() == "SSS"
    cluster.advance(lease_s)
    assert "S" not in cluster.publics()


def test_a_shorter_lease_waits_for_those_of_the_longer_one(lease_s: float) -> None:
    """A server may still hold a lease from before mgmtd was restarted with another T."""
    cluster = serving(lease_s=30.0)
    cluster.state = resumed(cluster.state, cluster.now_ns, int(lease_s * SECOND), 1)
    cluster.advance(29.5, beating=(1, 3))
    assert cluster.publics() == "SSS"
    cluster.advance(0.5, beating=(1, 3))
    assert cluster.publics() == "SOS"


# ---- manager and servers over gRPC


class Town:
    def __init__(self, lease_s: float) -> None:
        self.clock = ManualClock()
        self.manager = Manager(self.clock, lease_s=lease_s).start()
        self.servers = [Server(self.manager.address, node, self.clock) for node in (1, 2, 3)]
        for server in self.servers:
            server.membership.start()
        wait_for(lambda: all(s.states() == ALL_SERVE for s in self.servers), "chains serve")

    def close(self) -> None:
        for server in self.servers:
            server.membership.stop()
        self.manager.daemon.stop()


@pytest.fixture
def town(lease_s: float) -> Iterator[Town]:
    made = Town(lease_s)
    yield made
    made.close()


def test_a_lease_is_over_before_anybody_acts(town: Town, lease_s: float) -> None:
    silent, witness = town.servers[1], town.servers[0]
    assert silent.membership.lease_s == lease_s
    settle(town.clock, 0.05, lambda: len(silent.leases_ns) > 8, "leases are renewed")
    silent.membership.stop()
    until_ns = silent.leases_ns[-1]
    state = town.manager.daemon.manager.state
    settle(town.clock, 0.05, lambda: not state().nodes[NodeId(2)].alive, "it is declared dead")
    assert town.clock.boottime_ns() >= until_ns + lease_s * 0.2e9
    wait_for(lambda: witness.states().count(common_pb2.SERVING) == 2, "its targets are dropped")
