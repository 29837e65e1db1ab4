"""The manager and three storage servers as real processes: kill -9, SIGSTOP, restart, under load.

No metadata service and no mount: a small client writes to the chains by the manager's routing.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from fs3.cli.cluster import query_status
from fs3.errors import RetryElsewhere, Status
from tests.cluster.processes import LEASE_S, NODES, Processes
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
            client.write(chunk, 40_000, content[:20_000])  # copies what rotted before it
            expected = content[:40_000] + content[:20_000]
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
