"""A chain of three storage servers over real sockets and disks: writes, reads, failures, resync.

Every test ends with the checker: the serving replicas are equal, byte by byte.
"""

import pathlib
from collections.abc import Iterator

import pytest

from fs3._proto import common_pb2, storage_pb2
from fs3.errors import BadRequest, Fs3Error, Refused, RetryElsewhere, Status
from tests.cluster.storage_rig import (
    LASTSRV,
    OFFLINE,
    SERVING,
    ChainClient,
    Load,
    Rig,
    rig_in,
)

NODES = (1, 2, 3)


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    with rig_in(tmp_path) as made:
        yield made
        made.check()


@pytest.fixture
def client(rig: Rig) -> ChainClient:
    return ChainClient(rig)


def test_write_at_the_head_read_anywhere(rig: Rig, client: ChainClient) -> None:
    first = client.write((5, 0), 0, b"a" * 10_000)
    second = client.write((5, 0), 4_000, b"b" * 10_000)
    assert (first.version, second.version) == (1, 2)
    assert second.chunk_length == 14_000
    for node in NODES:
        assert client.read((5, 0), node) == b"a" * 4_000 + b"b" * 10_000
        assert client.read((5, 0), node, offset=3_999, length=2) == b"ab"
        assert client.read((5, 1), node) == b""


def test_only_the_head_takes_updates(rig: Rig, client: ChainClient) -> None:
    for node in (2, 3):
        with pytest.raises(RetryElsewhere) as caught:
            client.send(client.update((5, 0), 0, b"x"), node)
        assert caught.value.code == Status.NOT_HEAD


def test_retry_of_one_identity_is_one_write(rig: Rig, client: ChainClient) -> None:
    update = client.update((5, 0), 0, b"first")
    reply = client.send(update)
    assert client.send(update) == reply
    client.write((5, 0), 0, b"later")
    with pytest.raises(Refused):
        client.send(update)
    assert client.read((5, 0), 3) == b"later"


def test_truncate_remove_and_last_chunk(rig: Rig, client: ChainClient) -> None:
    for index in (0, 3):
        client.write((5, index), 0, b"z" * 5_000)

    def last(node: int) -> storage_pb2.QueryLastReply:
        request = storage_pb2.QueryLastRequest(inode=5)
        return storage_pb2.QueryLastReply.FromString(
            client.server_call(storage_pb2.QUERY_LAST, request, node)
        )

    assert [(last(n).index, last(n).length) for n in NODES] == [(3, 5_000)] * 3
    cut = storage_pb2.TruncateRequest(
        chunk=common_pb2.ChunkId(inode=5, index=3),
        length=7,
        chunk_size=1 << 20,
        identity=client.identity(),
    )
    client.server_call(storage_pb2.TRUNCATE, cut)
    assert [(last(n).index, last(n).length) for n in NODES] == [(3, 7)] * 3
    remove = storage_pb2.RemoveRequest(chunk=cut.chunk, identity=client.identity())
    client.server_call(storage_pb2.REMOVE, remove)
    assert [(last(n).index, last(n).chunks) for n in NODES] == [(0, 1)] * 3


def test_many_writers(rig: Rig, client: ChainClient) -> None:
    with Load(client, threads=6) as load:
        load.more(300)
    load.verify(NODES)
    assert rig.check().chunks == 3 * len(load.acknowledged)
    assert rig.warnings() == []


@pytest.mark.parametrize("victim", NODES)
def test_node_dies_under_load_and_comes_back(rig: Rig, client: ChainClient, victim: int) -> None:
    others = [(node, SERVING) for node in NODES if node != victim]
    with Load(client) as load:
        load.more(50)
        rig.kill(victim)
        rig.route([*others, (victim, OFFLINE)])
        load.more(100)
        rig.bring_back(victim)
        load.more(50)
    # Behind the head the chain repairs itself: its clients only wait.
    assert victim != 1 or client.retries > 0
    load.verify(NODES)


def test_nodes_die_one_after_the_other(rig: Rig, client: ChainClient) -> None:
    with Load(client) as load:
        for victim in NODES:
            chain = [t.node_id for t in rig.routing.chains[0].targets if t.node_id != victim]
            rig.kill(victim)
            rig.route([*((node, SERVING) for node in chain), (victim, OFFLINE)])
            load.more(20)
            rig.bring_back(victim)
    assert [t.node_id for t in rig.routing.chains[0].targets] == [1, 2, 3]
    load.verify(NODES)


def test_down_to_one_replica_and_back_to_three(rig: Rig, client: ChainClient) -> None:
    with Load(client) as load:
        load.more(20)
        rig.kill(1)
        rig.route([(2, SERVING), (3, SERVING), (1, OFFLINE)])
        load.more(20)
        rig.kill(3)
        rig.route([(2, SERVING), (1, OFFLINE), (3, OFFLINE)])
        load.more(20)
        rig.bring_back(3)
        rig.bring_back(1)
        load.more(20)
    load.verify(NODES)


def test_replaced_disk_is_filled(rig: Rig, client: ChainClient, tmp_path: pathlib.Path) -> None:
    with Load(client) as load:
        load.more(50)
        rig.kill(2)
        rig.route([(1, SERVING), (3, SERVING), (2, OFFLINE)])
        (tmp_path / "node-2").rename(tmp_path / "broken-disk")
        rig.bring_back(2)
    load.verify(NODES)


def test_retry_at_the_new_head_is_the_same_write(rig: Rig, client: ChainClient) -> None:
    update = client.update((5, 0), 0, b"once")
    reply = client.send(update)
    rig.kill(1)
    rig.route([(2, SERVING), (3, SERVING), (1, OFFLINE)])
    assert client.send(update) == reply
    client.write((5, 0), 4, b" more")
    rig.bring_back(1)
    rig.kill(2)
    rig.route([(3, SERVING), (1, SERVING), (2, OFFLINE)])
    with pytest.raises(Refused) as caught:
        client.send(update)
    assert caught.value.code == Status.DUPLICATE_OLD
    for node in (3, 1):
        assert client.read((5, 0), node) == b"once more"
    rig.bring_back(2)


def test_dedup_rows_survive_the_restart_of_the_whole_chain(rig: Rig, client: ChainClient) -> None:
    update = client.update((5, 0), 0, b"once")
    reply = client.send(update)
    for node in NODES:
        rig.kill(node)
    for node in NODES:
        rig.open(node)
    rig.route([(3, LASTSRV), (1, OFFLINE), (2, OFFLINE)])
    rig.route([(3, SERVING), (1, OFFLINE), (2, OFFLINE)])
    assert client.send(update) == reply
    rig.bring_back(1)
    rig.bring_back(2)
    assert client.read((5, 0), 2) == b"once"


def test_chunk_removed_while_a_replica_was_away_goes_there_too(
    rig: Rig, client: ChainClient
) -> None:
    client.write((5, 0), 0, b"stays")
    client.write((6, 0), 0, b"goes")
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    remove = storage_pb2.RemoveRequest(
        chunk=common_pb2.ChunkId(inode=6, index=0), identity=client.identity()
    )
    client.server_call(storage_pb2.REMOVE, remove)
    rig.bring_back(3)
    assert client.read((6, 0), 3) == b""
    assert rig.check().chunks == 3


def test_large_chunks_travel_in_pieces(rig: Rig, client: ChainClient) -> None:
    client.chunk_size = 16 << 20
    piece = bytes(range(256)) * (1 << 14)
    expected = b""
    for number in range(3):
        data = piece[number:] + piece[:number]
        client.write((5, 0), number * len(piece), data)
        expected += data
    client.write((5, 0), len(expected), b"tail")
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    client.write((5, 0), 1_000_000, b"changed while node 3 was away")
    rig.bring_back(3)
    kept = client.read_all((5, 0), 3)
    assert kept == client.read_all((5, 0), 1)
    assert len(kept) == len(expected) + 4
    assert kept.endswith(b"tail")


def test_unchanged_chunks_are_not_sent_again(rig: Rig, client: ChainClient) -> None:
    for index in range(40):
        client.write((5, index), 0, b"x" * 1000)
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    client.write((5, 7), 0, b"y")
    rig.bring_back(3)
    counts = rig.servers[2].statistics()["targets"][20]
    assert counts["resync_sent"] == 1
    assert counts["resync_skipped"] == 39


def test_nothing_is_answered_under_an_old_chain_version(rig: Rig, client: ChainClient) -> None:
    client.write((5, 0), 0, b"x")
    old = rig.routing
    rig.route([(2, SERVING), (3, SERVING), (1, OFFLINE)])
    new, rig.routing = rig.routing, old
    for node in NODES:
        with pytest.raises(RetryElsewhere) as caught:
            client.read((5, 0), node)
        assert caught.value.code == Status.CHAIN_VERSION_MISMATCH
    rig.routing = new
    with pytest.raises(RetryElsewhere) as caught:
        client.read((5, 0), 1)
    assert caught.value.code == Status.NOT_SERVING
    rig.bring_back(1)


def test_disk_of_another_node_is_refused(rig: Rig, tmp_path: pathlib.Path) -> None:
    rig.kill(3)
    rig.route([(1, SERVING), (2, SERVING), (3, OFFLINE)])
    (tmp_path / "node-3").rename(tmp_path / "node-4")
    with pytest.raises(Fs3Error):
        rig.open(4)


def test_requests_beyond_the_chunk_are_named(rig: Rig, client: ChainClient) -> None:
    with pytest.raises(BadRequest, match="length"):
        client.send(client.update((5, 0), (1 << 20) - 1, b"xx"))
