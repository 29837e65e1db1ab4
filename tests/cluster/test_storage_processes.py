"""The manager and three storage servers as real processes: kill -9, SIGSTOP, restart, under load.

No metadata service and no mount: a small client writes to the chains by the manager's routing.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fs3._proto import common_pb2
from fs3.auth.keyring import Keyring
from fs3.errors import RetryElsewhere, Status
from fs3.runtime.clock import RealClock
from fs3.runtime.membership import RoutingWatcher
from tests.cluster.storage_rig import SERVING, ChainClient, Load, check_replicas, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = (1, 2, 3)
SHAPE = ("--storage-nodes", "1,2,3", "--replicas", "3", "--chains", "2")
LEASE_S = 2.0
READY_S = 30


class Processes:
    """`fs3 serve mgmtd` and one `fs3 serve storage` per node, with two chains of three."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.instance_id = os.urandom(16)
        self.keyring = Keyring.create(directory / "keyring")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.routing = common_pb2.RoutingInfo()
        self.manager = self.start_managers()
        self.watcher = RoutingWatcher(self.manager, self._set_routing, clock=RealClock())
        self.watcher.start()
        for node in NODES:
            self.start(node)

    def start_managers(self) -> str:
        """Their addresses."""
        return self.serve("mgmtd", *SHAPE, "--lease-s", str(LEASE_S))["grpc"]

    def _set_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self.routing = routing

    def start(self, node: int) -> None:
        options = ["--node-id", str(node), "--mgmtd", self.manager]
        options += ["--keyring", str(self.directory / "keyring")]
        self.serve("storage", *options, name=f"storage-{node}")

    def serve(self, role: str, *options: str, name: str = "") -> dict[str, str]:
        """Starts a daemon and returns its ready line."""
        name = name or role
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fs3.cli", "serve", role, "--name", name]
        if "--kv" not in options:
            command += ["--data", str(self.directory / name)]
        command += ["--ready-fd", str(writer), *options]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        os.close(writer)
        with os.fdopen(reader, "rb") as ready:
            assert select.select([ready], [], [], READY_S)[0], f"{name}: {self.logs()}"
            line = ready.readline()
        assert line, f"{name} did not start: {self.logs()}"
        return dict(json.loads(line))

    def kill(self, node: int) -> None:
        process = self.processes.pop(f"storage-{node}")
        process.kill()
        process.wait()

    def signal(self, node: int, number: int) -> None:
        self.processes[f"storage-{node}"].send_signal(number)

    def serving(self) -> list[int]:
        """How many replicas serve, of each chain."""
        return [
            sum(target.state == SERVING for target in chain.targets)
            for chain in self.routing.chains
        ]

    def wait_serving(self, count: int) -> None:
        wait_for(f"{count} replicas serve", lambda: set(self.serving()) == {count})

    def close(self) -> None:
        self.watcher.stop()
        self.stop_all()

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-3000:]}"
            for path in sorted(self.directory.glob("*.log"))
        )


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
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


@contextlib.contextmanager
def load_on(cluster: Processes) -> Iterator[list[Load]]:
    loads = [Load(ChainClient(cluster, chain_index=index), threads=2) for index in (0, 1)]
    with loads[0], loads[1]:
        for load in loads:
            load.more(20)
        yield loads
        for load in loads:
            load.more(20)
    for load in loads:
        load.verify(NODES)


def test_new_cluster_serves(cluster: Processes) -> None:
    client = ChainClient(cluster)
    client.write((5, 0), 0, b"hello")
    assert [client.read_until_done((5, 0), node) for node in NODES] == [b"hello"] * 3


@pytest.mark.parametrize("victim", NODES)
def test_kill_and_restart_under_load(cluster: Processes, victim: int) -> None:
    with load_on(cluster) as loads:
        cluster.kill(victim)
        cluster.wait_serving(2)
        for load in loads:
            load.more(20)
        cluster.start(victim)
        cluster.wait_serving(3)


def test_process_that_sleeps_through_its_removal_answers_nothing_old(cluster: Processes) -> None:
    client = ChainClient(cluster)
    client.write((5, 0), 0, b"before")
    before = cluster.routing
    tail = before.chains[0].targets[-1].node_id
    cluster.signal(tail, signal.SIGSTOP)
    cluster.wait_serving(2)
    client.write((5, 0), 0, b"after!")
    cluster.signal(tail, signal.SIGCONT)
    after, cluster.routing = cluster.routing, before
    with pytest.raises(RetryElsewhere) as caught:
        client.read((5, 0), tail)
    refusals = (Status.LEASE_EXPIRED, Status.CHAIN_VERSION_MISMATCH, Status.NOT_SERVING)
    assert caught.value.code in refusals
    if cluster.routing is before:
        cluster.routing = after
    wait_for("back", lambda: cluster.routing.version > after.version)
    cluster.wait_serving(3)
    assert client.read_until_done((5, 0), tail) == b"after!"


def test_whole_cluster_restarts(cluster: Processes) -> None:
    with load_on(cluster):
        pass
    for node in NODES:
        cluster.kill(node)
    cluster.wait_serving(0)
    for node in NODES:
        cluster.start(node)
    cluster.wait_serving(3)
    client = ChainClient(cluster)
    client.write((5, 0), 0, b"again")
