"""Storage servers in this process, over real sockets and disks, with routing made by the test.

`Rig` plays the manager: it states the chain, pushes it to every server, and holds the leases.
`ChainClient` plays a client: it splits nothing and retries with the same identity until its
deadline.
"""

import contextlib
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fs3 import _native
from fs3._proto import common_pb2, storage_pb2
from fs3.auth.capability import RIGHT_READ, RIGHT_SERVER, RIGHT_WRITE, Minter
from fs3.auth.keyring import Key, Keyring
from fs3.errors import Fs3Error, OutcomeUnknown, RetryElsewhere, RetryLater, error_for
from fs3.runtime.clock import RealClock
from fs3.storage import checker
from fs3.storage.admin import RpcConnection, StorageAdmin

SERVING, LASTSRV = common_pb2.SERVING, common_pb2.LASTSRV
SYNCING, OFFLINE = common_pb2.SYNCING, common_pb2.OFFLINE
LOCAL_UPTODATE = 1
CLUSTER_ID = b"rig-cluster-id-1"
CHAIN = 1
LEASE_NS = 3600 * 10**9
DEADLINE_S = 30.0

T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


@dataclass(frozen=True)
class Update:
    """What a client sends, again and again with the same identity."""

    chunk: tuple[int, int]
    offset: int
    data: bytes
    sequence: int
    chunk_size: int


class Cluster(Protocol):
    """What a client and the checker need of the servers under test."""

    routing: common_pb2.RoutingInfo
    keyring: Keyring

    @property
    def instance_id(self) -> bytes:
        """Of the test itself, for server capabilities."""


def admin_of(cluster: Cluster) -> StorageAdmin:
    cluster_id, instance_id = cluster.routing.cluster_id, cluster.instance_id
    minter = Minter(cluster.keyring, cluster_id, RealClock())

    def token() -> bytes:
        return minter.mint(rights=RIGHT_SERVER, inode=0, client=instance_id)

    def connect(address: str) -> RpcConnection:
        return RpcConnection(address, cluster_id=cluster_id, instance_id=instance_id, token=token)

    return StorageAdmin(cluster.routing, connect)


def rot(disk: pathlib.Path, data: bytes, count: int = 1) -> None:
    """Flips one bit in each of the first `count` places of the block files where `data` lies.

    Straight into the files of a disk, whether a server has it open or not.
    """
    left = count
    for path in sorted((disk / "blocks").iterdir()):
        at = (held := path.read_bytes()).find(data)
        while at >= 0 and left:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([held[at] ^ 1]))
                file.flush()
                os.fsync(file.fileno())
            left -= 1
            at = held.find(data, at + len(data))
    assert left == 0, f"{left} of {count} places were not found on {disk}"


def check_replicas(cluster: Cluster) -> checker.Report:
    """All replicas are equal, byte by byte."""
    report = checker.check(cluster.routing, admin_of(cluster), clock=RealClock(), deep=True)
    assert report.ok, str(report)
    return report


class Rig:
    """Nodes 1..count, one target each (10 * node), one chain."""

    def __init__(self, directory: pathlib.Path, count: int = 3, **options: Any) -> None:
        """`options`: of every server."""
        self.directory = directory
        self.options = {"capacity_bytes": 4 << 30, **options}
        self.servers: dict[int, Any] = {}
        self.incarnations: dict[int, bytes] = {}
        self.routing = common_pb2.RoutingInfo(cluster_id=CLUSTER_ID)
        self.instance_id = os.urandom(16)
        self.keyring = Keyring((Key(1, os.urandom(32)),))
        for node in range(1, count + 1):
            self.open(node)
        self.route([(node, OFFLINE) for node in self.servers])
        self.route([(node, SERVING) for node in self.servers])

    def open(self, node: int) -> None:
        """Starts a server on the node's directory: a new process of it."""
        self.incarnations[node] = os.urandom(16)
        self.servers[node] = _native.StorageServer(
            directory=str(self.directory / f"node-{node}"),
            cluster_id=CLUSTER_ID,
            node_id=node,
            incarnation=self.incarnations[node],
            keyring=self.keyring.serialize(),
            addresses=["tcp://127.0.0.1:0"],
            **self.options,
        )

    def kill(self, node: int) -> None:
        """As if the process ended: nothing is told to anybody."""
        self.servers.pop(node).close()

    def close(self) -> None:
        for node in list(self.servers):
            self.kill(node)

    def route(self, targets: Sequence[tuple[int, int]]) -> None:
        """States the chain (node, public state) in order, and pushes it to the live servers."""
        routing = common_pb2.RoutingInfo(version=self.routing.version + 1, cluster_id=CLUSTER_ID)
        for node, server in self.servers.items():
            routing.nodes.add(id=node, role="storage", addresses=server.addresses, alive=True)
        chain = routing.chains.add(id=CHAIN, version=routing.version)
        for node, state in targets:
            chain.targets.add(target_id=10 * node, node_id=node, state=state)
        self.routing = routing
        for server in self.servers.values():
            server.update_routing(routing.SerializeToString())
            server.renew_lease(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + LEASE_NS)

    def state(self, node: int) -> int:
        """Local state under the current chain version, else 0."""
        for report in self.servers[node].target_reports():
            if report["chain_version"] == self.routing.version:
                return int(report["state"])
        return 0

    def counts(self, node: int) -> dict[str, int]:
        """Of the node's replica, since its server started."""
        return dict(self.servers[node].statistics()["targets"][10 * node])

    def bring_back(self, node: int) -> None:
        """Reopens the node, syncs it behind the serving ones, makes it the tail."""
        serving = self.begin_sync(node)
        wait_for(f"node {node} up to date", lambda: self.state(node) == LOCAL_UPTODATE)
        self.route([*serving, (node, SERVING)])

    def begin_sync(self, node: int) -> list[tuple[int, int]]:
        """Reopens the node if it is down, and makes it the syncing one; those that serve."""
        serving = [
            (target.node_id, SERVING)
            for target in self.routing.chains[0].targets
            if target.state == SERVING and target.node_id != node
        ]
        if node not in self.servers:
            self.open(node)
        self.route([*serving, (node, OFFLINE)])
        self.route([*serving, (node, SYNCING)])
        return serving

    def check(self) -> checker.Report:
        return check_replicas(self)

    def warnings(self) -> list[str]:
        return [line for server in self.servers.values() for line in server.take_warnings()]


@dataclass
class ChainClient:
    """Thread-safe. One connection per server process, shared by all threads."""

    rig: Cluster
    chunk_size: int = 1 << 20
    chain_index: int = 0
    client_id: bytes = field(default_factory=lambda: os.urandom(16))
    retries: int = 0

    def __post_init__(self) -> None:
        self._sequences = itertools.count(1)
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._tokens: dict[tuple[int, int], bytes] = {}
        cluster_id = self.rig.routing.cluster_id
        self._minter = Minter(self.rig.keyring, cluster_id, RealClock())

    def update(self, chunk: tuple[int, int], offset: int, data: bytes) -> Update:
        return Update(chunk, offset, data, next(self._sequences), self.chunk_size)

    def write(self, chunk: tuple[int, int], offset: int, data: bytes) -> storage_pb2.UpdateReply:
        """Until acknowledged: one identity, whatever happens to the chain."""
        return self.send_until_done(self.update(chunk, offset, data))

    def send_until_done(self, update: Update) -> storage_pb2.UpdateReply:
        return self._until_done(lambda: self.send(update))

    def read_until_done(
        self, chunk: tuple[int, int], node: int, offset: int = 0, length: int = 1 << 20
    ) -> bytes:
        """Where servers learn the routing by themselves, one may still be a version behind."""
        return self._until_done(lambda: self.read(chunk, node, offset, length))

    def _until_done(self, attempt: Callable[[], T]) -> T:
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                return attempt()
            except (RetryElsewhere, RetryLater, OutcomeUnknown):
                if time.monotonic() > until:
                    raise
                self.retries += 1
                time.sleep(0.01)

    def send(self, update: Update, node: int | None = None) -> storage_pb2.UpdateReply:
        """One attempt, at the head when no node is named. The channel is the chunk's: one update
        of it is in flight at a time."""
        routing = self.rig.routing
        chain = routing.chains[self.chain_index]
        node = chain.targets[0].node_id if node is None else node
        request = storage_pb2.WriteRequest(
            target_id=_target_of(chain, node),
            chain_id=chain.id,
            chain_version=chain.version,
            chunk=common_pb2.ChunkId(inode=update.chunk[0], index=update.chunk[1]),
            offset=update.offset,
            length=len(update.data),
            identity=common_pb2.UpdateIdentity(
                client_id=self.client_id,
                channel=update.chunk[0] << 16 | update.chunk[1],
                sequence=update.sequence,
            ),
            chunk_size=update.chunk_size,
            checksum=_native.wire.crc32c(update.data),
        )
        body, _ = self._call(routing, node, storage_pb2.WRITE, request, RIGHT_WRITE, update.data, 0)
        return storage_pb2.UpdateReply.FromString(body)

    def server_call(self, method: int, request: Any, node: int | None = None) -> bytes:
        """TRUNCATE, REMOVE, QUERY_LAST: what the metadata service sends."""
        routing = self.rig.routing
        chain = routing.chains[self.chain_index]
        node = chain.targets[0].node_id if node is None else node
        request.target_id, request.chain_id = _target_of(chain, node), chain.id
        request.chain_version = chain.version
        body, _ = self._call(routing, node, method, request, RIGHT_SERVER, b"", 0)
        return body

    def identity(self) -> common_pb2.UpdateIdentity:
        return common_pb2.UpdateIdentity(
            client_id=self.client_id, channel=1 << 31, sequence=next(self._sequences)
        )

    def read(
        self, chunk: tuple[int, int], node: int, offset: int = 0, length: int = 1 << 20
    ) -> bytes:
        routing = self.rig.routing
        chain = routing.chains[self.chain_index]
        request = storage_pb2.ReadRequest(
            target_id=_target_of(chain, node),
            chain_id=chain.id,
            chain_version=chain.version,
            chunk=common_pb2.ChunkId(inode=chunk[0], index=chunk[1]),
            offset=offset,
            length=length,
        )
        body, data = self._call(routing, node, storage_pb2.READ, request, RIGHT_READ, b"", length)
        assert storage_pb2.ReadReply.FromString(body).length == len(data)
        return data

    def read_all(self, chunk: tuple[int, int], node: int) -> bytes:
        """A chunk of any size."""
        pieces = []
        for offset in range(0, self.chunk_size, 1 << 20):
            pieces.append(self.read(chunk, node, offset))
            if len(pieces[-1]) < 1 << 20:
                break
        return b"".join(pieces)

    def _call(
        self, routing: Any, node: int, method: int, request: Any, right: int, data: bytes, sink: int
    ) -> tuple[bytes, bytes]:
        addresses = [n.addresses[0] for n in routing.nodes if n.id == node]
        if not addresses:
            raise OutcomeUnknown(4114, "rig", f"node {node} is down")
        inode = 0 if right == RIGHT_SERVER else request.chunk.inode
        with self._lock:
            connection = self._connections.get(addresses[0])
            if connection is None:
                connection = _native.RpcClient(
                    addresses[0], instance_id=self.client_id, cluster_id=routing.cluster_id
                )
                self._connections[addresses[0]] = connection
            token = self._tokens.get((right, inode))
            if token is None:
                token = self._minter.mint(rights=right, inode=inode, client=self.client_id)
                self._tokens[right, inode] = token
        code, where, detail, body, payload = connection.call(
            method, request.SerializeToString(), token, data, sink, 5.0
        )
        if code:
            raise error_for(code, where, detail)
        return body, payload


def _target_of(chain: common_pb2.Chain, node: int) -> int:
    for target in chain.targets:
        if target.node_id == node:
            return int(target.target_id)
    raise OutcomeUnknown(4114, "rig", f"node {node} has no target in chain {chain.id}")


class Load:
    """Threads that write whole values, each thread its own chunks, until stopped.

    `acknowledged` holds the last value that each chunk must read as.
    """

    def __init__(self, client: ChainClient, threads: int = 4, chunks: int = 8, size: int = 9000):
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.writes = 0
        self.errors: list[BaseException] = []
        self._client = client
        self._size = size
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(100 + n, chunks)) for n in range(threads)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def more(self, count: int) -> None:
        """Waits until `count` further writes were acknowledged."""
        goal = self.writes + count
        wait_for(f"{goal} writes", lambda: self.writes >= goal or bool(self.errors))

    def verify(self, nodes: Iterable[int]) -> None:
        """Each chunk reads as its last acknowledged value, on every replica."""
        for node in nodes:
            for chunk, value in self.acknowledged.items():
                assert self._client.read_until_done(chunk, node) == value, (
                    f"chunk {chunk} on node {node}"
                )

    def _run(self, inode: int, chunks: int) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                chunk = inode, number % chunks
                value = f"{inode} {number} ".encode().ljust(self._size, b"%d" % (number % 10))
                self._client.write(chunk, 0, value)
                self.acknowledged[chunk] = value
                self.writes += 1
        except (Fs3Error, AssertionError) as error:
            self.errors.append(error)


@contextlib.contextmanager
def rig_in(directory: pathlib.Path, count: int = 3, **options: int) -> Iterator[Rig]:
    rig = Rig(directory, count, **options)
    try:
        yield rig
    finally:
        rig.close()
