"""`fs3 check` on a real cluster in use: finds and mends what is planted, and nothing else."""

import re
import secrets
import threading

import pytest
from fs3._native import wire

from fs3._proto import common_pb2, storage_pb2
from fs3.cli import check
from fs3.cli.cluster import query_status
from tests.cluster.conftest import LocalFs3

SERVING = common_pb2.SERVING


class Planter:
    """Requests that only servers may send."""

    def __init__(self, cluster: LocalFs3) -> None:
        self.routing = query_status(cluster.cluster.state()["mgmtd"]).routing
        self._connect = check._connector(cluster.cluster, self.routing.cluster_id)
        self._nodes = {node.id: node for node in self.routing.nodes}

    def send(self, node: int, method: int, request: object, payload: bytes) -> None:
        connection = self._connect(self._nodes[node].addresses[0])
        connection.call(method, request.SerializeToString(), payload=payload)  # type: ignore[attr-defined]

    def leak(self, inode: int, index: int, data: bytes) -> None:
        """A chunk of an inode that is not there, through the chain as a client would write it."""
        chain = self.routing.chains[0]

        request = storage_pb2.WriteRequest(
            target_id=chain.targets[0].target_id,
            chain_id=chain.id,
            chain_version=chain.version,
            chunk=common_pb2.ChunkId(inode=inode, index=index),
            length=len(data),
            identity=common_pb2.UpdateIdentity(
                client_id=secrets.token_bytes(16), channel=1, sequence=1
            ),
            chunk_size=1 << 20,
            checksum=wire.crc32c(data, 0),
        )
        self.send(chain.targets[0].node_id, storage_pb2.WRITE, request, data)

    def differ(self, chain: common_pb2.Chain, record: object, data: bytes) -> None:
        """One version more at the tail, as if its predecessor had sent it."""

        before, tail = chain.targets[1], chain.targets[2]
        request = storage_pb2.ForwardRequest(
            target_id=tail.target_id,
            chain_id=chain.id,
            chain_version=chain.version,
            from_target=before.target_id,
            chunk=common_pb2.ChunkId(inode=record.inode, index=record.index),  # type: ignore[attr-defined]
            kind=storage_pb2.UPDATE_WRITE,
            version=record.version + 1,  # type: ignore[attr-defined]
            length=len(data),
            chunk_size=1 << 20,
            checksum=wire.crc32c(data, 0),
            identity=common_pb2.UpdateIdentity(
                client_id=secrets.token_bytes(16), channel=1, sequence=1
            ),
            update_chain_version=chain.version,
        )
        self.send(tail.node_id, storage_pb2.FORWARD, request, data)


@pytest.fixture
def cluster(running: LocalFs3) -> LocalFs3:
    running.wait_healthy()
    return running


def test_a_sound_cluster_is_sound_while_it_is_used(cluster: LocalFs3) -> None:
    """Files are made, grown, truncated, renamed and removed all the time; nothing is reported."""
    stop = threading.Event()

    def use() -> None:
        number = 0
        while not stop.is_set():
            path = cluster.mount / f"busy-{number % 7}"
            path.write_bytes(b"b" * (number % 5) * 600_000)
            path.rename(cluster.mount / f"moved-{number % 7}")
            if number % 3 == 0:
                (cluster.mount / f"moved-{number % 7}").unlink()
            number += 1

    user = threading.Thread(target=use)
    user.start()
    try:
        for _ in range(3):
            text = cluster.local("check", "--repair")
            assert "all is well" in text
            assert "mended" not in text
    finally:
        stop.set()
        user.join()
    assert re.search(r"name space: \d+ inodes", text)
    assert "all replicas are equal" in text


def test_a_leaked_chunk_is_found_and_removed(cluster: LocalFs3) -> None:
    (cluster.mount / "kept").write_bytes(b"k" * 3_000_000)
    planter = Planter(cluster)
    planter.leak(4000, 0, b"nobody's")
    assert "leaked" in cluster.local("check", expect=check.EXIT_LEFT)
    text = cluster.local("check", "--repair", expect=check.EXIT_MENDED)
    assert "chunk 4000.0" in text
    assert "all is well" in cluster.local("check")
    assert (cluster.mount / "kept").read_bytes() == b"k" * 3_000_000


def test_a_chunk_of_the_future_is_left_to_a_person(cluster: LocalFs3) -> None:
    """Its inode was never given out: an older copy of the name space may have been put back, and
    then the chunk is the only copy of something."""
    planter = Planter(cluster)
    planter.leak(1 << 40, 3, b"only copy")
    text = cluster.local("check", "--repair", expect=check.EXIT_LEFT)
    assert "older copy" in text
    assert "older copy" in cluster.local("check", "--repair", expect=check.EXIT_LEFT)
    chain = planter.routing.chains[0]
    admin = check.storage_admin(cluster.cluster, planter.routing)
    admin.remove(chain, (1 << 40, 3), secrets.token_bytes(16))
    assert "all is well" in cluster.local("check")


def test_a_replica_against_two_is_brought_level(cluster: LocalFs3) -> None:
    path = cluster.mount / "level"
    path.write_bytes(b"l" * 500_000)
    cluster.wait_healthy()
    planter = Planter(cluster)
    admin = check.storage_admin(cluster.cluster, planter.routing)
    inode = path.stat().st_ino
    chain, record = next(
        (chain, record)
        for chain in planter.routing.chains
        for record in admin.chunks(chain.targets[0].node_id, chain.targets[0].target_id)
        if record.inode == inode
    )
    planter.differ(chain, record, b"what nobody wrote")
    assert "version" in cluster.local("check", expect=check.EXIT_LEFT)
    text = cluster.local("check", "--repair", expect=check.EXIT_MENDED)
    assert "started anew" in text
    assert "all is well" in cluster.local("check", "--deep")
    assert path.read_bytes() == b"l" * 500_000


def test_lost_names_on_a_running_service_are_found_again(cluster: LocalFs3) -> None:
    """The damage is planted with the service's own means: a link count that is wrong."""
    from fs3._proto import meta_pb2 as pb
    from fs3.cli.inspection import MetaInspection

    path = cluster.mount / "counted"
    path.write_bytes(b"c")
    status = query_status(cluster.cluster.state()["mgmtd"])
    connection = check._meta_connection(cluster.cluster, status)
    inode = path.stat().st_ino
    for version in range(1, 20):
        request = pb.RepairRequest(kind="nlink", inode=inode, version=version, number=7)
        body, _ = connection.call(pb.REPAIR, request.SerializeToString())
        if pb.RepairReply.FromString(body).done:
            break
    assert MetaInspection(connection).name_space().findings
    assert "nlink" in cluster.local("check", expect=check.EXIT_LEFT)
    assert "7 -> 1" in cluster.local("check", "--repair", expect=check.EXIT_MENDED)
    assert "all is well" in cluster.local("check")
    cluster.wait_for(lambda: path.stat().st_nlink == 1, "the mount to see it")
