"""Bytes that rot on the disks of a chain of three: read right, repaired, counted, told once.

Real block files are changed behind the servers' backs. Every test ends with the checker: the
serving replicas are equal, byte by byte.
"""

import errno
import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from fs3._proto import common_pb2, storage_pb2
from fs3.errors import Fs3Error, Status
from tests.cluster.conftest import LocalFs3
from tests.cluster.storage_rig import (
    OFFLINE,
    SERVING,
    ChainClient,
    Load,
    Rig,
    rig_in,
    rot,
    wait_for,
)

NODES = (1, 2, 3)
CHUNK = (5, 0)
BYTES = os.urandom(200_000)
MARK = BYTES[100_000:100_032]  # where it rots
NEW = os.urandom(30_000)  # an update that copies the chunk; a smaller one would leave MARK alone


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    with rig_in(tmp_path) as made:
        yield made
        wait_for("no damage is left", lambda: not any(made.counts(n)["damaged"] for n in NODES))
        made.check()


@pytest.fixture
def client(rig: Rig) -> ChainClient:
    return ChainClient(rig)


def rot_on(rig: Rig, node: int, data: bytes = MARK) -> None:
    rot(rig.directory / f"node-{node}", data)


def wait_repaired(rig: Rig, node: int, count: int = 1) -> None:
    wait_for(f"node {node} repaired", lambda: rig.counts(node)["repaired"] >= count)


@pytest.mark.parametrize("node", NODES)
def test_a_read_finds_it_and_a_neighbour_repairs_it(
    rig: Rig, client: ChainClient, node: int
) -> None:
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, node)
    with pytest.raises(Fs3Error) as caught:
        client.read(CHUNK, node)
    assert caught.value.code == Status.CHECKSUM_MISMATCH
    for other in set(NODES) - {node}:
        assert client.read(CHUNK, other) == BYTES
    wait_repaired(rig, node)
    assert client.read(CHUNK, node) == BYTES
    counts = rig.counts(node)
    assert (counts["damage_found"], counts["repaired"], counts["damaged"]) == (1, 1, 0)
    told = [line for line in rig.warnings() if "chunk 5.0" in line]
    assert len(told) == 1
    assert f"target {10 * node}" in told[0]


@pytest.mark.parametrize("node", NODES)
def test_an_update_on_top_of_it_is_the_same_on_every_replica(
    rig: Rig, client: ChainClient, node: int
) -> None:
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, node)
    client.write(CHUNK, 50_000, NEW)
    expected = BYTES[:50_000] + NEW + BYTES[80_000:]
    assert [client.read_until_done(CHUNK, n) for n in NODES] == [expected] * 3
    assert rig.counts(node)["repaired"] == 1
    assert rig.state(node) == 1, "the disk is not given up for one bad block"


def test_a_small_update_beside_it_is_kept_by_the_repair(rig: Rig, client: ChainClient) -> None:
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, 2)
    client.write(CHUNK, 50_000, b"new")
    with pytest.raises(Fs3Error):
        client.read(CHUNK, 2)
    wait_repaired(rig, 2)
    expected = BYTES[:50_000] + b"new" + BYTES[50_003:]
    assert [client.read(CHUNK, n) for n in NODES] == [expected] * 3


def test_two_copies_rot_and_the_third_is_enough(rig: Rig, client: ChainClient) -> None:
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, 1)
    rot_on(rig, 2)
    client.write(CHUNK, 50_000, NEW)
    expected = BYTES[:50_000] + NEW + BYTES[80_000:]
    assert [client.read_until_done(CHUNK, n) for n in NODES] == [expected] * 3


def test_large_chunks_are_fetched_in_pieces(rig: Rig, client: ChainClient) -> None:
    client.chunk_size = 16 << 20
    pieces = [os.urandom(4 << 20) for _ in range(3)]
    for number, piece in enumerate(pieces):
        client.write(CHUNK, number * (4 << 20), piece)
    rot_on(rig, 3, pieces[2][:32])
    with pytest.raises(Fs3Error):
        client.read_all(CHUNK, 3)
    wait_repaired(rig, 3)
    assert client.read_all(CHUNK, 3) == b"".join(pieces)


def test_under_load_every_acknowledged_byte_is_read(rig: Rig, client: ChainClient) -> None:
    contents = {(7, index): os.urandom(40_000) for index in range(30)}
    for chunk, content in contents.items():
        client.write(chunk, 0, content)
    with Load(client) as load:
        for chunk, content in contents.items():
            rot_on(rig, chunk[1] % 3 + 1, content[:32])
            client.write(chunk, 10_000, NEW)
        load.more(20)
    load.verify(NODES)
    for chunk, content in contents.items():
        for node in NODES:
            assert client.read_until_done(chunk, node) == content[:10_000] + NEW


def test_damage_is_known_after_a_restart_and_not_taken_for_level(
    rig: Rig, client: ChainClient
) -> None:
    client.write(CHUNK, 0, BYTES)
    for node in (1, 2):  # nobody there to repair it from
        rig.kill(node)
    rig.route([(3, SERVING), (1, OFFLINE), (2, OFFLINE)])
    rot_on(rig, 3)
    with pytest.raises(Fs3Error):
        client.read(CHUNK, 3)
    _write_and_remove(client)
    rig.kill(3)
    rig.open(1)
    rig.route([(1, OFFLINE)])
    rig.route([(1, SERVING), (2, OFFLINE), (3, OFFLINE)])
    rig.bring_back(3)
    assert rig.counts(1)["resync_sent"] == 1
    assert client.read(CHUNK, 3) == BYTES
    rig.bring_back(2)
    assert rig.counts(3)["resync_sent"] == 0


def test_the_last_replica_fails_this_chunk_only_until_another_is_level(
    rig: Rig, client: ChainClient
) -> None:
    client.write(CHUNK, 0, BYTES)
    client.write((6, 0), 0, b"other")
    for node in (2, 3):
        rig.kill(node)
    rig.route([(1, SERVING), (2, OFFLINE), (3, OFFLINE)])
    rot_on(rig, 1)
    with pytest.raises(Fs3Error, match="do not match their checksum") as caught:
        client.read(CHUNK, 1)
    assert caught.value.errno == errno.EIO
    assert client.read(CHUNK, 1, 0, 4096) == BYTES[:4096], "what can be read is read"
    with pytest.raises(Fs3Error, match="bring another replica back") as caught:
        client.send(client.update(CHUNK, 100_010, b"x"))
    assert caught.value.errno == errno.EIO
    client.write((6, 0), 0, b"later")
    assert client.read((6, 0), 1) == b"later"
    rig.bring_back(2)
    wait_repaired(rig, 1)
    assert client.read_until_done(CHUNK, 1) == BYTES
    rig.bring_back(3)


def test_what_nobody_has_sound_comes_back_as_damaged_and_is_healed_by_an_overwrite(
    rig: Rig, client: ChainClient
) -> None:
    client.write(CHUNK, 0, b"older")
    client.write((6, 0), 0, b"other")
    for node in (2, 3):
        rig.kill(node)
    rig.route([(1, SERVING), (2, OFFLINE), (3, OFFLINE)])
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, 1)
    rig.bring_back(2)
    rig.bring_back(3)
    for node in NODES:
        wait_for(f"node {node} knows", lambda n=node: rig.counts(n)["damaged"] == 1)
        with pytest.raises(Fs3Error, match=r"write it anew|do not match") as caught:
            client.read_until_done(CHUNK, node)
        assert caught.value.errno == errno.EIO
        assert client.read((6, 0), node) == b"other"
    assert client.read(CHUNK, 1, 0, 4096) == BYTES[:4096], "what can be read is read"
    _expect_hopeless(client)
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    rig.bring_back(3)  # known after a restart, too
    _expect_hopeless(client)
    client.write(CHUNK, 0, BYTES)
    assert [client.read_until_done(CHUNK, node) for node in NODES] == [BYTES] * 3


def test_with_every_copy_damaged_an_update_fails_at_once_and_the_chunk_goes_on(
    rig: Rig, client: ChainClient
) -> None:
    client.write(CHUNK, 0, BYTES)
    for node in NODES:
        rot_on(rig, node)
    _expect_hopeless(client)  # nobody has found the damage before
    _expect_hopeless(client)
    assert client.read_until_done(CHUNK, 2, 0, 4096) == BYTES[:4096]
    client.write(CHUNK, 0, BYTES)
    assert [client.read_until_done(CHUNK, node) for node in NODES] == [BYTES] * 3


def test_whoever_comes_back_with_the_bytes_heals_all_others(rig: Rig, client: ChainClient) -> None:
    client.write(CHUNK, 0, BYTES)
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    for node in (1, 2):
        rot_on(rig, node)
        with pytest.raises(Fs3Error):
            client.read(CHUNK, node)
    rig.bring_back(3)
    assert [client.read_until_done(CHUNK, node) for node in NODES] == [BYTES] * 3


def _write_and_remove(client: ChainClient) -> None:
    """Commits in order: what the engine noted of damage before is stored, too."""
    client.write((6, 0), 0, b"other")
    chunk = common_pb2.ChunkId(inode=6, index=0)
    remove = storage_pb2.RemoveRequest(chunk=chunk, identity=client.identity())
    client.server_call(storage_pb2.REMOVE, remove)


def _expect_hopeless(client: ChainClient) -> None:
    """An update that keeps bytes of the chunk."""
    with pytest.raises(Fs3Error, match="in any replica") as caught:
        client.write(CHUNK, 50_000, NEW)
    assert (caught.value.code, caught.value.errno) == (Status.DAMAGED, errno.EIO)


def test_the_checker_has_what_it_finds_repaired(rig: Rig, client: ChainClient) -> None:
    client.write(CHUNK, 0, BYTES)
    rot_on(rig, 2)
    rig.check()
    assert rig.counts(2)["repaired"] == 1


# ---- scrub


def test_scrub_finds_what_nobody_reads(tmp_path: pathlib.Path) -> None:
    with rig_in(tmp_path, scrub_period_s=0.5) as rig:
        client = ChainClient(rig)
        contents = [os.urandom(50_000) for _ in range(20)]
        for index, content in enumerate(contents):
            client.write((5, index), 0, content)
        for node, index in ((1, 0), (3, 8), (1, 12)):
            rot_on(rig, node, contents[index][20_000:20_032])
        rig.kill(2)
        rig.route([(1, SERVING), (3, SERVING), (2, OFFLINE)])
        for index in (1, 4, 16):  # while it is stopped: counts begin anew with the process
            rot_on(rig, 2, contents[index][20_000:20_032])
        rig.bring_back(2)
        found = {1: 2, 2: 3, 3: 1}
        for node, count in found.items():
            wait_for(f"{count} on node {node}", lambda n=node, c=count: found_on(rig, n) >= c)
            wait_repaired(rig, node)
        wait_for("repaired", lambda: not any(rig.counts(n)["damaged"] for n in NODES))
        assert rig.servers[1].target_reports()[0]["repaired_chunks"] == 2
        wait_for("a pass", lambda: rig.servers[1].target_reports()[0]["scrub_passes"] >= 1)
        rig.check()


def found_on(rig: Rig, node: int) -> int:
    return rig.counts(node)["damage_found"]


# ---- resync


def test_an_unchanged_target_gets_nothing_but_the_lists(rig: Rig, client: ChainClient) -> None:
    for index in range(200):
        client.write((5, index), 0, BYTES[index:4000])
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    before = rig.servers[2].statistics()["operations"]["forward"]["bytes"]
    rig.bring_back(3)
    counts = rig.counts(2)
    assert (counts["resync_sent"], counts["resync_bytes"]) == (0, 0)
    assert counts["resync_skipped"] == 200
    assert rig.servers[2].statistics()["operations"]["forward"]["bytes"] == before


def test_an_interrupted_resync_goes_on_where_it_was_while_clients_write(
    tmp_path: pathlib.Path,
) -> None:
    with rig_in(tmp_path, resync_bytes_per_s=2 << 20) as rig:
        client = ChainClient(rig)
        rig.kill(3)
        rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
        for index in range(24):
            client.write((5, index), 0, os.urandom(250_000))
        with Load(client) as load:
            rig.begin_sync(3)
            wait_for("some were sent", lambda: rig.counts(2)["resync_sent"] >= 6)
            rig.kill(3)
            rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
            load.more(10)
            first = rig.counts(2)
            rig.bring_back(3)
            load.more(10)
        second = rig.counts(2)
        assert second["resync_skipped"] - first["resync_skipped"] >= 6 - 1
        whole = 24 * 250_000
        sent = second["resync_bytes"]
        assert sent < 2 * whole, "what arrived before the interruption was not sent again"
        load.verify(NODES)
        rig.check()


# ---- a whole cluster


def test_files_are_read_right_and_the_cluster_says_what_it_did(running: LocalFs3) -> None:
    content = os.urandom(5_000_000)
    path = running.mount / "rotten"
    path.write_bytes(content)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    for number, at in enumerate((100_000, 1_200_000, 3_300_000), 1):
        rot(running.data / f"storage-{number}", content[at : at + 32])
    for _ in range(12):  # replicas take turns
        assert running.local("get", "/rotten", str(running.data.parent / "copy")) is not None
        assert (running.data.parent / "copy").read_bytes() == content
    running.local("check", "--deep")

    def repaired() -> bool:
        status = json.loads(running.local("status", "-o", "json"))
        nodes = [node for node in status["nodes"] if node["role"] == "storage"]
        assert {node["damaged_chunks"] for node in nodes} <= {0, 1}
        return [node["repaired_chunks"] for node in nodes] == [1, 1, 1]

    running.wait_for(repaired, "every storage node repaired its chunk")
    assert "REPAIRED" in running.local("status")
    running.local("rm", "/rotten")
