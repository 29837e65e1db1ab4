"""The service over its real transports: many native clients at once, gRPC, a failing store."""

import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from meta_world import World, routing

from fs3._proto import common_pb2, meta_service_pb2, meta_service_pb2_grpc, mgmtd_pb2
from fs3._proto import meta_pb2 as pb
from fs3.auth.identity import Role
from fs3.errors import OutcomeUnknown, Status
from fs3.kv.memory import MemoryStore
from fs3.kv.rocksdb import RocksStore
from fs3.meta.call import Call
from fs3.meta.fsck import fsck
from fs3.meta.grpc_service import MetaServicer
from fs3.meta.jobs import ThreadJobs
from fs3.meta.ops import VERBS
from fs3.meta.service import MetaService
from fs3.meta.space import total
from fs3.runtime.clock import RealClock

native = pytest.importorskip("fs3._native", reason="the extension is not built")


class Served:
    """A world whose store is served by threads, on RocksDB."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.failures: list[str] = []
        self.server = native.RpcServer(
            name="meta", cluster_id=b"c" * 16, instance_id=b"i" * 16, role=int(Role.META)
        )
        self.address = self.server.listen("tcp://127.0.0.1:0")
        self.service = MetaService(self.server, world.store, on_failure=self.failures.append)
        self.service.start()

    def client(self, number: int):
        instance = b"client-%09d" % number
        connection = native.RpcClient(self.address, instance_id=instance, cluster_id=b"c" * 16)

        def call(method: int, request_id: int, **fields):
            header = pb.Header(caller=pb.Caller(), client_id=instance, request_id=request_id)
            body = VERBS[method].request(header=header, **fields).SerializeToString()
            status, _, detail, reply, _ = connection.call(method, body)
            return status, (VERBS[method].reply.FromString(reply) if status == 0 else detail)

        return call


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    kv = RocksStore(tmp_path / "kv", owner="test")
    jobs = ThreadJobs(RealClock(), threads=2, name="test")
    served = Served(World(kv, jobs=jobs))
    yield served
    served.service.stop()
    served.server.stop()
    jobs.stop()
    assert fsck(kv) == []
    assert served.failures == []
    kv.close()


def test_many_clients_at_once(served):
    """Each makes, renames, truncates and removes in one directory that all share."""
    problems: list[object] = []

    def work(number: int) -> None:
        call = served.client(number)
        ids = iter(range(1, 10_000))
        for i in range(15):
            name = b"%d-%d" % (number, i)
            status, made = call(
                pb.CREATE, next(ids), parent=1, name=name, mode=0o644, open=True, flags=2
            )
            inode, session = made.attr.inode, made.session
            served.world.chunks.write(inode, 100)
            closing = {"inode": inode, "session": session, "written_end": 100, "wrote": True}
            steps = [
                call(pb.SYNC, next(ids), durable=True, **closing),
                call(pb.CLOSE, next(ids), **closing),
                call(pb.SETATTR, next(ids), inode=inode, size=10),
                call(
                    pb.RENAME,
                    next(ids),
                    old_parent=1,
                    old_name=name,
                    new_parent=1,
                    new_name=b"r" + name,
                ),
                call(pb.CREATE, next(ids), parent=1, name=b"same", exclusive=True),
                call(pb.UNLINK, next(ids), parent=1, name=b"same"),
            ]
            if [status, *(s for s, _ in steps[:4])] != [0] * 5:
                problems.append((status, steps))
            if i % 3 == 0 and call(pb.UNLINK, next(ids), parent=1, name=b"r" + name)[0]:
                problems.append(name)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    names = served.world.names()
    assert sorted(n for n in names if n != b"same") == sorted(
        b"r%d-%d" % (n, i) for n in range(6) for i in range(15) if i % 3
    )
    assert set(served.world.chunks.lengths.values()) == {10}


def test_errors_come_with_place_and_detail(served):
    call = served.client(1)
    status, detail = call(pb.LOOKUP, 0, parent=1, name=b"missing")
    assert (status, detail) == (2, "no entry b'missing' in inode 1")
    status, detail = call(pb.MKDIR, 0, parent=1, name=b"d")
    assert status == Status.BAD_REQUEST
    assert detail.startswith("header.request_id")


def test_over_grpc(served):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    meta_service_pb2_grpc.add_MetaServicer_to_server(MetaServicer(served.service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    inode = served.world.write_file(b"f", 1)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = meta_service_pb2_grpc.MetaStub(channel)

        def call(method, **fields):
            body = served.world.request(method, **fields)
            return stub.Call(meta_service_pb2.CallRequest(method=method, body=body))

        assert pb.EntryReply.FromString(call(pb.MKDIR, parent=1, name=b"d").body).entry.attr.inode
        refused = call(pb.MKDIR, parent=1, name=b"d")
        assert refused.status == 17
        assert "exists" in common_pb2.ErrorDetail.FromString(refused.body).detail
        late = call(pb.SETATTR, inode=inode, size=0)  # its answer comes from a job
        assert (late.status, pb.AttrReply.FromString(late.body).attr.size) == (0, 0)
    server.stop(None)


class BrokenStore:
    deliver = None

    def __init__(self, *, shared: bool) -> None:
        self.kv = MemoryStore()
        self.kv.shared = shared

    def run(self, calls):
        raise OutcomeUnknown(Status.TIMED_OUT, "kv", "planned")


def test_a_store_that_fails_ends_the_process_and_sends_clients_elsewhere(caplog):
    failures: list[str] = []

    class Recorder:
        def __init__(self) -> None:
            self.replies = []

        def reply_batch(self, replies):
            self.replies += replies

    server = Recorder()
    service = MetaService(server, BrokenStore(shared=False), on_failure=failures.append)

    service.submit([Call(7, pb.STATFS, b"", None)])
    assert [(a.token, a.status) for a in server.replies] == [(7, Status.SHUTTING_DOWN)]
    assert "planned" in failures[0]


def test_space_counts_each_disk_once():
    status = mgmtd_pb2.StatusReply(routing=routing())
    for node in (1, 2):
        entry = status.nodes.add()
        for disk in (0, 1):
            for slot in (1, 2, 3):
                entry.targets.add(
                    target_id=(node * 1000 + disk) * 1000 + slot,
                    state=common_pb2.LOCAL_OFFLINE if (node, disk) == (2, 1) else 1,
                    capacity_bytes=100,
                    free_bytes=40,
                )
    assert total(status) == (300, 120)
