"""The replica checker finds each planted difference, and only those."""

from collections.abc import Callable

import pytest

from fs3._proto import common_pb2, storage_pb2
from fs3.errors import OutcomeUnknown, Status
from fs3.layout import chain_of, permutation, tables_of
from fs3.runtime.clock import ManualClock
from fs3.storage import checker
from fs3.storage.admin import StorageAdmin
from fs3.storage.checker import LiveFile, Report

CHUNK = 1 << 20


class FakeNode:
    """One storage server with one target, as the admin sees it. Chunks: key -> (version, bytes)."""

    def __init__(self) -> None:
        self.chunks: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.checksums: dict[tuple[int, int], int] = {}
        self.pending: set[tuple[int, int]] = set()
        self.reachable = True
        self.dumps = 0
        self.after_dump: Callable[[], None] | None = None

    def call(self, method: int, body: bytes, *, sink_bytes: int = 0) -> tuple[bytes, bytes]:
        if not self.reachable:
            raise OutcomeUnknown(Status.CONNECTION_LOST, "fake", "down")
        if method == storage_pb2.DUMP:
            return self._dump(storage_pb2.DumpRequest.FromString(body)), b""
        if method == storage_pb2.READ_RAW:
            request = storage_pb2.ReadRawRequest.FromString(body)
            version, data = self.chunks[request.chunk.inode, request.chunk.index]
            piece = data[request.offset : request.offset + request.length]
            assert len(piece) <= sink_bytes
            reply = storage_pb2.ReadReply(length=len(piece), version=version)
            return reply.SerializeToString(), piece
        assert method == storage_pb2.SPACE
        return storage_pb2.SpaceReply(chunks=len(self.chunks)).SerializeToString(), b""

    def _dump(self, request: storage_pb2.DumpRequest) -> bytes:
        self.dumps += 1
        after = (request.after.inode, request.after.index) if request.HasField("after") else (0, 0)
        keys = [key for key in sorted(self.chunks) if key > after][: request.limit]
        reply = storage_pb2.DumpReply(end=len(keys) < request.limit)
        for key in keys:
            version, data = self.chunks[key]
            reply.chunks.add(
                chunk=common_pb2.ChunkId(inode=key[0], index=key[1]),
                version=version,
                chain_version=1,
                length=len(data),
                checksum=self.checksums.get(key, sum(data)),
                pending=key in self.pending,
                pending_version=version + 1 if key in self.pending else 0,
            )
        if self.after_dump is not None:
            self.after_dump()
        return reply.SerializeToString()


class Cluster:
    """Chain 1 on nodes 1..3, chain 2 on node 1 only."""

    def __init__(self) -> None:
        self.nodes = {number: FakeNode() for number in (1, 2, 3)}
        self.other = FakeNode()
        self.routing = common_pb2.RoutingInfo(version=1)
        for number in (1, 2, 3, 4):
            self.routing.nodes.add(id=number, role="storage", addresses=[f"node-{number}"])
        chain = self.routing.chains.add(id=1, version=1)
        for number in (1, 2, 3):
            chain.targets.add(target_id=10 * number, node_id=number, state=common_pb2.SERVING)
        other = self.routing.chains.add(id=2, version=1)
        other.targets.add(target_id=40, node_id=4, state=common_pb2.SERVING)
        self.routing.tables.add(id=1, version=1, chains=[1, 2])
        for node in self.nodes.values():
            node.chunks[5, 0] = (1, b"abc")
            node.chunks[5, 2] = (4, b"defg")

    def check(self, **options: object) -> Report:
        by_address = {f"node-{n}": node for n, node in {**self.nodes, 4: self.other}.items()}
        admin = StorageAdmin(self.routing, lambda address: by_address[address])
        clock = _SkippingClock()
        return checker.check(self.routing, admin, clock=clock, **options)  # type: ignore[arg-type]


class _SkippingClock(ManualClock):
    def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def kinds(report: Report) -> list[str]:
    return [difference.kind for difference in report.differences]


@pytest.mark.parametrize("deep", [False, True])
def test_equal_replicas(deep: bool) -> None:
    report = Cluster().check(deep=deep)
    assert report.ok, str(report)
    assert (report.chains, report.replicas, report.chunks, report.bytes) == (2, 4, 6, 21)
    assert "all replicas are equal" in str(report)


def test_absent_chunk() -> None:
    cluster = Cluster()
    del cluster.nodes[2].chunks[5, 2]
    report = cluster.check()
    assert kinds(report) == ["absent"]
    assert report.differences[0].targets == (20,)
    assert report.differences[0].chunk == (5, 2)


def test_surplus_chunk_on_the_last_replica() -> None:
    cluster = Cluster()
    cluster.nodes[3].chunks[9, 9] = (1, b"x")
    assert cluster.check().differences[0].targets == (10, 20)


@pytest.mark.parametrize(
    ("planted", "kind"),
    [((2, b"abc"), "version"), ((1, b"abcd"), "length"), ((1, b"abd"), "checksum")],
)
def test_planted_difference(planted: tuple[int, bytes], kind: str) -> None:
    cluster = Cluster()
    cluster.nodes[3].chunks[5, 0] = planted
    report = cluster.check()
    assert kinds(report) == [kind]
    assert "chunk 5.0" in str(report)


def test_bytes_differ_only_deep_sees_it() -> None:
    cluster = Cluster()
    cluster.nodes[3].chunks[5, 0] = (1, b"abd")
    cluster.nodes[3].checksums[5, 0] = sum(b"abc")
    assert cluster.check().ok
    report = cluster.check(deep=True)
    assert kinds(report) == ["bytes"]
    assert "byte 2" in report.differences[0].detail


def test_pending_update() -> None:
    cluster = Cluster()
    cluster.nodes[1].pending.add((5, 0))
    assert kinds(cluster.check()) == ["pending"]


def test_chain_that_nobody_serves() -> None:
    cluster = Cluster()
    for target in cluster.routing.chains[0].targets:
        target.state = common_pb2.OFFLINE
    assert kinds(cluster.check()) == ["unserved"]


def test_node_that_does_not_answer() -> None:
    cluster = Cluster()
    cluster.nodes[2].reachable = False
    assert kinds(cluster.check()) == ["unreachable"]


def test_difference_that_settles_does_not_count() -> None:
    cluster = Cluster()
    late = cluster.nodes[3]
    late.chunks[5, 0] = (0, b"ab")

    def arrive() -> None:
        late.chunks[5, 0] = (1, b"abc")

    late.after_dump = arrive
    assert cluster.check().ok
    assert late.dumps == 2


def test_many_pages() -> None:
    cluster = Cluster()
    for node in cluster.nodes.values():
        for index in range(2500):
            node.chunks[7, index] = (1, b"x")
    del cluster.nodes[2].chunks[7, 2047]
    report = cluster.check()
    assert [d.chunk for d in report.differences] == [(7, 2047)]
    assert report.chunks == 3 * 2502 - 1


def layout(**fields: int) -> common_pb2.Layout:
    defaults = {"chain_table": 1, "chain_table_version": 1, "chunk_size": CHUNK, "stripe": 1}
    return common_pb2.Layout(**{**defaults, **fields})


def seed_for(chain: int) -> int:
    """A seed whose first chunk lies on `chain`."""
    tables = {(1, 1): (1, 2)}
    return next(seed for seed in range(100) if chain_of(layout(seed=seed), 0, tables) == chain)


def test_join_with_live_files() -> None:
    cluster = Cluster()
    on_one = layout(seed=seed_for(1))
    report = cluster.check(live=[LiveFile(5, on_one, 3 * CHUNK)])
    assert report.ok, str(report)
    assert (report.files, report.holes) == (1, 1)
    dense = cluster.check(live=[LiveFile(5, on_one, 3 * CHUNK)], dense=True)
    assert kinds(dense) == ["missing"]


def test_join_finds_leaked_beyond_and_misplaced() -> None:
    cluster = Cluster()
    assert kinds(cluster.check(live=[])) == ["leaked", "leaked"]
    short = LiveFile(5, layout(seed=seed_for(1)), CHUNK)
    assert kinds(cluster.check(live=[short])) == ["beyond"]
    elsewhere = LiveFile(5, layout(seed=seed_for(2)), 3 * CHUNK)
    assert kinds(cluster.check(live=[elsewhere])) == ["misplaced", "misplaced"]


def test_layout_is_a_permutation() -> None:
    for count in (1, 2, 7, 100):
        assert sorted(permutation(12345, count)) == list(range(count))
    tables = tables_of(Cluster().routing)
    striped = layout(stripe=2, seed=3)
    assert {chain_of(striped, index, tables) for index in range(4)} == {1, 2}
    assert chain_of(striped, 0, tables) == chain_of(striped, 2, tables)
