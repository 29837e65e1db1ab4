"""Two managers on one PostgreSQL as real processes, under write load: the primary is killed, or
sleeps past its lease and wakes up. Nobody on the data path notices."""

import pathlib
import signal
from collections.abc import Iterator

import grpc
import pytest

from fs3._proto import mgmtd_pb2
from fs3.kv.api import transact
from fs3.kv.postgres import PostgresStore
from fs3.mgmtd import store
from fs3.runtime.clock import RealClock
from fs3.runtime.managers import Managers
from tests.cluster.processes import SHAPE, Processes
from tests.cluster.storage_rig import check_replicas, wait_for
from tests.cluster.test_storage_processes import load_on
from tests.postgres_server import PostgresServer, postgres_server

LEASE_S = 4.0
NAMES = ("mgmtd-a", "mgmtd-b")


class Standbys(Processes):
    def __init__(self, directory: pathlib.Path, url: str) -> None:
        self.url = url
        self.addresses: dict[str, str] = {}
        super().__init__(directory)

    def start_managers(self) -> str:
        for name in NAMES:
            self.start_manager(name)
        return ",".join(self.addresses.values())

    def start_manager(self, name: str) -> None:
        """Again on the port that it had before: that is what the others know."""
        options = ["--kv", self.url, "--lease-s", str(LEASE_S), *SHAPE]
        options += ["--grpc", self.addresses.get(name, "127.0.0.1:0")]
        self.addresses[name] = self.serve("mgmtd", *options, name=name)["grpc"]

    def epoch(self, name: str) -> int:
        """Of its term; 0 when it stands by or does not answer."""
        managers = Managers(self.addresses[name], clock=RealClock())
        request = mgmtd_pb2.StatusRequest()
        try:
            return int(managers.call(lambda stub: stub.Status(request, timeout=0.5)).epoch)
        except grpc.RpcError:
            return 0
        finally:
            managers.close()

    def primary(self) -> str:
        wait_for("a primary", lambda: any(map(self.epoch, NAMES)))
        return max(NAMES, key=self.epoch)

    def transitions(self, name: str) -> int:
        """How often a target changed its state, by the log of a manager."""
        return (self.directory / f"{name}.log").read_text().count(": SERVING -> ")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def cluster(server: PostgresServer, tmp_path: pathlib.Path) -> Iterator[Standbys]:
    made = Standbys(tmp_path, server.new_database())
    try:
        made.wait_serving(3)
        yield made
        made.wait_serving(3)
        check_replicas(made)
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()


def test_the_primary_is_killed_under_load(cluster: Standbys) -> None:
    with load_on(cluster) as loads:
        first = cluster.primary()
        epoch = cluster.epoch(first)
        cluster.processes[first].kill()
        cluster.processes.pop(first).wait()
        for load in loads:
            load.more(20)
        second = cluster.primary()
        assert second != first
        assert cluster.epoch(second) > epoch
        for load in loads:
            load.more(20)
        cluster.start_manager(first)
        # The new primary still decides, and the others still hear it.
        cluster.kill(2)
        cluster.wait_serving(2)
        cluster.start(2)
        cluster.wait_serving(3)
    assert cluster.epoch(first) == 0


def test_a_primary_that_sleeps_past_its_lease_is_fenced(
    cluster: Standbys, server: PostgresServer
) -> None:
    with load_on(cluster) as loads:
        first = cluster.primary()
        cluster.processes[first].send_signal(signal.SIGSTOP)
        (second,) = [name for name in NAMES if name != first]
        wait_for("the other took over", lambda: cluster.epoch(second) > 0)
        cluster.kill(2)
        cluster.wait_serving(2)
        kv = PostgresStore(cluster.url, owner="test")
        before = transact(kv, store.read_all)
        cluster.processes[first].send_signal(signal.SIGCONT)
        log = cluster.directory / f"{first}.log"
        wait_for("it knows", lambda: "no longer primary" in log.read_text())
        after = transact(kv, store.read_all)
        kv.close()
        assert before is not None
        assert after is not None
        assert (after.chains, after.version) == (before.chains, before.version)
        assert cluster.epoch(first) == 0
        for load in loads:
            load.more(20)
        cluster.start(2)
        cluster.wait_serving(3)
