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
from fs3.cli.cluster import query_status, report_exit
from fs3.errors import RetryElsewhere, Status
from fs3.runtime.clock import RealClock
from fs3.runtime.membership import RoutingWatcher
from tests.cluster.storage_rig import (
    OFFLINE,
    SERVING,
    SYNCING,
    ChainClient,
    Load,
    check_replicas,
    rot,
    wait_for,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = (1, 2, 3)
LEASE_S = 2.0
READY_S = 30


class Processes:
    """`fs3 serve mgmtd` and one `fs3 serve storage` per node, with two chains of three."""

    def __init__(self, directory: pathlib.Path, lease_s: float = LEASE_S) -> None:
        self.directory = directory
        self.instance_id = os.urandom(16)
        self.keyring = Keyring.create(directory / "keyring")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.routing = common_pb2.RoutingInfo()
        self.manager = self.serve(
            "mgmtd",
            *("--storage-nodes", "1,2,3", "--replicas", "3", "--chains", "2"),
            *("--lease-s", str(lease_s)),
        )["grpc"]
        self.incarnations: dict[int, str] = {}
        self.states: dict[int, list[int]] = {node: [] for node in NODES}  # of chain 1, as told
        self.watcher = RoutingWatcher(self.manager, self._set_routing, clock=RealClock())
        self.watcher.start()
        for node in NODES:
            self.start(node)

    def _set_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self.routing = routing
        for target in routing.chains[0].targets:
            seen = self.states[target.node_id]
            if not seen or seen[-1] != target.state:
                seen.append(target.state)

    def start(self, node: int, environment: dict[str, str] | None = None) -> None:
        options = ["--node-id", str(node), "--mgmtd", self.manager]
        options += ["--keyring", str(self.directory / "keyring")]
        ready = self.serve("storage", *options, name=f"storage-{node}", environment=environment)
        self.incarnations[node] = ready["incarnation"]

    def serve(
        self,
        role: str,
        *options: str,
        name: str = "",
        environment: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Starts a daemon and returns its ready line."""
        name = name or role
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fs3.cli", "serve", role, "--name", name]
        command += ["--data", str(self.directory / name), "--ready-fd", str(writer), *options]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
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

    def kill_proven(self, node: int) -> None:
        """As a supervisor does: the exit is seen and reported."""
        self.kill(node)
        report_exit(self.manager, node, bytes.fromhex(self.incarnations[node]), -signal.SIGKILL)

    def state(self, node: int) -> int:
        return self.states[node][-1]

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
def cluster(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Processes]:
    made = Processes(tmp_path, getattr(request, "param", LEASE_S))
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


@pytest.mark.parametrize("cluster", [2.0, 4.0, 15.0], indirect=True)
def test_a_proven_death_is_not_waited_for_at_any_lease(cluster: Processes) -> None:
    with load_on(cluster) as loads:
        cluster.kill_proven(2)
        cluster.wait_serving(2)
        for load in loads:
            load.more(20)
        cluster.start(2)
        cluster.wait_serving(3)


def test_rotten_blocks_of_running_servers_are_repaired(cluster: Processes) -> None:
    clients = [ChainClient(cluster, chain_index=index) for index in (0, 1)]
    contents = {(5, index): os.urandom(60_000) for index in range(9)}
    for client in clients:
        for chunk, content in contents.items():
            client.write(chunk, 0, content)
    for (_, index), content in contents.items():
        disk = cluster.directory / f"storage-{NODES[index % 3]}"
        rot(disk, content[30_000:30_032], count=2)  # of both chains
    for client in clients:
        for chunk, content in contents.items():
            client.write(chunk, 40_000, b"new")
            expected = content[:40_000] + b"new" + content[40_003:]
            for node in NODES:
                assert client.read_until_done(chunk, node) == expected
    wait_for("all are repaired", lambda: repaired_chunks(cluster) == [6, 6, 6])


def repaired_chunks(cluster: Processes) -> list[int]:
    """Of each node, as the manager knows it."""
    reply = query_status(cluster.manager)
    counts = {
        entry.node.id: sum(target.repaired_chunks for target in entry.targets)
        for entry in reply.nodes
    }
    return [counts[node] for node in NODES]


FAIL_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int failing(void) {
  const char* flag = getenv("FAIL_SYNC_FLAG");
  return flag && access(flag, F_OK) == 0;
}
int fdatasync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  if (!failing()) return real(fd);
  errno = EIO;
  return -1;
}
"""


@pytest.fixture(scope="module")
def fail_sync(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A library under which fdatasync(2) fails while the file $FAIL_SYNC_FLAG exists."""
    directory = tmp_path_factory.mktemp("fail-sync")
    (directory / "fail.c").write_text(FAIL_SYNC)
    library = directory / "fail.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(directory / "fail.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize("victim", NODES)
def test_a_failed_sync_is_final_until_the_target_was_synced_again(
    cluster: Processes, fail_sync: pathlib.Path, victim: int
) -> None:
    flag = cluster.directory / "sync-fails"
    cluster.kill(victim)
    cluster.start(victim, {"LD_PRELOAD": str(fail_sync), "FAIL_SYNC_FLAG": str(flag)})
    cluster.wait_serving(3)
    with load_on(cluster) as loads:
        flag.touch()
        cluster.wait_serving(2)
        for load in loads:
            load.more(20)
        flag.unlink()  # the device works again, and nothing that it says counts any more
        for load in loads:
            load.more(20)
        assert cluster.state(victim) == OFFLINE
        cluster.states[victim].clear()
        cluster.kill_proven(victim)
        cluster.start(victim)
        cluster.wait_serving(3)
    assert cluster.states[victim][-2:] == [SYNCING, SERVING]
