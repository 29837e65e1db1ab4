"""What tools ask a running storage server: space, the chunks of a target, the bytes of one replica.

These requests go to one replica and see what it holds, whatever its chain says; they need a server
capability. Answers are plain frozen values, offsets and lengths in bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from fs3._proto import common_pb2, storage_pb2
from fs3.errors import Damaged, OutcomeUnknown, Status, error_for
from fs3.types import NodeId, TargetId

__all__ = ["ChunkRecord", "Connection", "RpcConnection", "SpaceRecord", "StorageAdmin"]

M = TypeVar("M", bound=Message)

PAGE_CHUNKS = 1024
READ_BYTES_MAX = 1 << 20


class Connection(Protocol):
    """A connection to one server. Raises Fs3Error."""

    def call(self, method: int, body: bytes, *, sink_bytes: int = 0) -> tuple[bytes, bytes]:
        """The reply's body, and what came into the sink."""


Connect = Callable[[str], Connection]
"""From "tcp://host:port" or "unix:///path" to a connection that carries a server capability."""


@dataclass(frozen=True, slots=True, order=True)
class ChunkRecord:
    """One chunk as one replica holds it; version 0: only a pending version."""

    inode: int
    index: int
    version: int
    chain_version: int
    length: int
    checksum: int
    pending_version: int = 0  # 0: none

    @property
    def key(self) -> tuple[int, int]:
        return self.inode, self.index


@dataclass(frozen=True, slots=True)
class SpaceRecord:
    """Of one disk."""

    capacity_bytes: int
    free_bytes: int
    used_bytes: int
    chunks: int


class StorageAdmin:
    """Questions to the storage servers of a routing info. One thread at a time."""

    def __init__(self, routing: common_pb2.RoutingInfo, connect: Connect) -> None:
        self._addresses = {n.id: list(n.addresses) for n in routing.nodes if n.role == "storage"}
        self._connect = connect
        self._open: dict[int, Connection] = {}

    def space(self, node: NodeId) -> SpaceRecord:
        body, _ = self._connection(node).call(storage_pb2.SPACE, b"")
        reply = _decode(storage_pb2.SpaceReply, body)
        return SpaceRecord(reply.capacity_bytes, reply.free_bytes, reply.used_bytes, reply.chunks)

    def chunks(self, node: NodeId, target: TargetId) -> Iterator[ChunkRecord]:
        """All chunks of a target, ordered by (inode, index), fetched in pages."""
        request = storage_pb2.DumpRequest(target_id=target, limit=PAGE_CHUNKS)
        end = False
        while not end:
            body, _ = self._connection(node).call(storage_pb2.DUMP, request.SerializeToString())
            page = _decode(storage_pb2.DumpReply, body)
            if not (page.chunks or page.end):
                detail = f"chunks: an empty page of target {target} that is not the last"
                raise Damaged(Status.CHECKSUM_MISMATCH, "storage/dump", detail)
            for info in page.chunks:
                yield _record(info)
            if page.chunks:
                request.after.CopyFrom(page.chunks[-1].chunk)
            end = page.end

    def remove(self, chain: common_pb2.Chain, key: tuple[int, int], identity: bytes) -> None:
        """Forgets one chunk on all replicas of its chain. `identity`: 16 bytes that nobody else
        uses; each call takes fresh ones."""
        head = next((t for t in chain.targets if t.state == common_pb2.SERVING), None)
        if head is None:
            raise OutcomeUnknown(
                Status.CONNECTION_LOST, "storage/remove", f"nobody serves chain {chain.id}"
            )
        request = storage_pb2.RemoveRequest(
            target_id=head.target_id,
            chain_id=chain.id,
            chain_version=chain.version,
            chunk=common_pb2.ChunkId(inode=key[0], index=key[1]),
            identity=common_pb2.UpdateIdentity(client_id=identity, channel=1, sequence=1),
        )
        connection = self._connection(NodeId(head.node_id))
        connection.call(storage_pb2.REMOVE, request.SerializeToString())

    def read(self, node: NodeId, target: TargetId, chunk: ChunkRecord) -> bytes:
        """The committed bytes of one chunk of one replica. Raises Damaged when it changed
        meanwhile."""
        pieces = []
        for offset in range(0, chunk.length, READ_BYTES_MAX):
            length = min(READ_BYTES_MAX, chunk.length - offset)
            request = storage_pb2.ReadRawRequest(
                target_id=target,
                chunk=common_pb2.ChunkId(inode=chunk.inode, index=chunk.index),
                offset=offset,
                length=length,
            )
            body, data = self._connection(node).call(
                storage_pb2.READ_RAW, request.SerializeToString(), sink_bytes=length
            )
            reply = _decode(storage_pb2.ReadReply, body)
            if reply.version != chunk.version or len(data) != length:
                raise Damaged(
                    Status.CHECKSUM_MISMATCH,
                    "storage/read_raw",
                    f"chunk {chunk.key} is at version {reply.version} with {len(data)} bytes at "
                    f"{offset}, was listed at version {chunk.version} with {chunk.length}",
                )
            pieces.append(data)
        return b"".join(pieces)

    def _connection(self, node: NodeId) -> Connection:
        if node not in self._open:
            addresses = self._addresses.get(node)
            if not addresses:
                raise OutcomeUnknown(
                    Status.CONNECTION_LOST, "storage", f"no address of node {node} is known"
                )
            self._open[node] = self._connect(addresses[0])
        return self._open[node]


def _decode(kind: type[M], body: bytes) -> M:
    try:
        message: M = kind.FromString(body)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        detail = f"body: is no {name}: {error}"
        raise Damaged(Status.CHECKSUM_MISMATCH, "storage/admin", detail) from None
    return message


def _record(info: storage_pb2.ChunkInfo) -> ChunkRecord:
    return ChunkRecord(
        info.chunk.inode,
        info.chunk.index,
        info.version,
        info.chain_version,
        info.length,
        info.checksum,
        info.pending_version if info.pending else 0,
    )


class RpcConnection:
    """A Connection over the native RPC. `token()` gives a server capability for `instance_id`."""

    def __init__(
        self,
        address: str,
        *,
        cluster_id: bytes,
        instance_id: bytes,
        token: Callable[[], bytes],
        timeout_s: float = 10.0,
    ) -> None:
        from fs3 import _native  # when the first connection is made: import fs3 stays cheap

        self._client = _native.RpcClient(address, instance_id=instance_id, cluster_id=cluster_id)
        self._token = token
        self._timeout_s = timeout_s

    def call(
        self, method: int, body: bytes, *, payload: bytes = b"", sink_bytes: int = 0
    ) -> tuple[bytes, bytes]:
        """Waits without the GIL. Raises Fs3Error."""
        code, where, detail, reply, data = self._client.call(
            method, body, self._token(), payload, sink_bytes, self._timeout_s
        )
        if code:
            raise error_for(code, where, detail)
        return reply, data
