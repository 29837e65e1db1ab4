"""A metadata service in one thread: fake storage, manual clock and jobs. Every test of it ends in
fsck."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.auth.identity import Principal, Role
from fs3.errors import RetryLater, Status, error_for
from fs3.kv.api import KeyValueStore
from fs3.kv.memory import MemoryStore
from fs3.meta.call import Answer, Call
from fs3.meta.gc import GarbageCollector
from fs3.meta.identity import IdentityPolicy
from fs3.meta.inode import Layout
from fs3.meta.jobs import ManualJobs
from fs3.meta.layouts import LayoutPolicy
from fs3.meta.leadership import Leadership
from fs3.meta.ops import VERBS
from fs3.meta.ports import Jobs, Measure, Space
from fs3.meta.store import MetaStore
from fs3.runtime.clock import ManualClock
from fs3.runtime.entropy import SeededEntropy

ROOT = 1
CLIENT = b"client-aaaaaaaaa"
OTHER_CLIENT = b"client-bbbbbbbbb"
PRINCIPAL = Principal(Role.CLIENT, True, 0, 0, CLIENT, "unix")
START_NS = 1_700_000_000_000_000_000


class FakeChunks:
    """ChunkPort on a dictionary inode -> length. `fail_next` calls are refused; `before` runs
    first in each call, so that a test can act (or raise) at that moment."""

    def __init__(self) -> None:
        self.lengths: dict[int, int] = {}
        self.holes: dict[int, int] = {}  # bytes below the length that are not stored
        self.calls: list[tuple[Any, ...]] = []
        self.fail_next = 0
        self.before: Callable[[str], None] = lambda name: None

    def write(self, inode: int, end: int) -> None:
        self._keep(inode, max(self.lengths.get(inode, 0), end))

    def truncate_chunks(self, inode: int, layout: Layout, old_size: int, new_size: int) -> None:
        self._begin("truncate", inode, old_size, new_size)
        length = self.lengths.get(inode, 0)
        assert length <= old_size, "the service promised that nothing lies beyond old_size"
        self._keep(inode, min(length, new_size))

    def remove_chunks(self, inode: int, layout: Layout, size: int) -> None:
        self._begin("remove", inode, size)
        assert self.lengths.pop(inode, 0) <= size, "data beyond size would leak"

    def measure(self, inode: int, layout: Layout) -> Measure:
        self._begin("query", inode)
        length = self.lengths.get(inode, 0)
        return Measure(length, max(length - self.holes.get(inode, 0), 0))

    def _keep(self, inode: int, length: int) -> None:
        if length:
            self.lengths[inode] = length
        else:
            self.lengths.pop(inode, None)

    def _begin(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        self.before(name)
        if self.fail_next:
            self.fail_next -= 1
            raise RetryLater(Status.BUSY, "fake storage", "planned")


class FakeMinter:
    def mint(self, *, rights: int, inode: int, client: bytes, session: bytes) -> bytes:
        token = bytes([1, rights]) + inode.to_bytes(8, "little") + client + (session or bytes(16))
        return token.ljust(80, b"\0")


def routing(chains: int = 4, version: int = 1) -> common_pb2.RoutingInfo:
    info = common_pb2.RoutingInfo(version=version, cluster_id=bytes(16))
    for chain in range(1, chains + 1):
        entry = info.chains.add(id=chain, version=1)
        for target in range(3):
            entry.targets.add(target_id=chain * 10 + target, node_id=target, state=1)
    info.tables.add(id=1, version=1, chains=range(1, chains + 1))
    return info


class World:
    """`store` and what surrounds it. `restart()` is a crash: the KV and storage survive, nothing
    else."""

    def __init__(
        self,
        kv: KeyValueStore | None = None,
        *,
        jobs: Jobs | None = None,
        beside: "World | None" = None,
        service: bytes = bytes(16),
    ) -> None:
        """`jobs`: real ones, instead of those that the tests run. `beside`: another service of the
        same cluster, whose clock and storage this one shares. `service`: incarnation."""
        self.kv = kv if kv is not None else MemoryStore()
        self.clock = beside.clock if beside is not None else ManualClock(START_NS)
        self.entropy = SeededEntropy(int.from_bytes(service[:4], "big") + 1)
        self.chunks = beside.chunks if beside is not None else FakeChunks()
        self.request_id = int.from_bytes(service[:4], "big") << 16
        self.delivered: dict[Any, Answer] = {}
        self.service = service
        self.gone: set[bytes] = set()  # services of which nothing can come any more
        self._real_jobs = jobs
        self.start()

    def start(self) -> None:
        self.jobs = ManualJobs()
        jobs = self._real_jobs or self.jobs
        self.leadership = Leadership(self.kv, self.clock, holder=self.service.hex())
        self.store = MetaStore(
            self.kv,
            clock=self.clock,
            entropy=self.entropy,
            chunks=self.chunks,
            layouts=LayoutPolicy(routing()),
            space=lambda: Space(3000, 1500),
            minter=FakeMinter(),
            jobs=jobs,
            sync_jobs=jobs,
            identity=IdentityPolicy(service_uid=0),
            service=self.service,
            is_gone=lambda owner: not self.kv.shared or owner in self.gone,
            leadership=self.leadership,
        )
        self.store.deliver = self._deliver
        self.gc = GarbageCollector(self.store, self.chunks, self.clock, guard=self.leadership.guard)

    def restart(self) -> None:
        self.start()

    def _deliver(self, answers: list[Answer]) -> None:
        self.delivered.update((answer.token, answer) for answer in answers)

    # -- calls -----------------------------------------------------------------------------------

    def request(self, method: int, *, uid=0, gid=None, groups=(), umask=0, client=CLIENT, **fields):
        """A serialized request with a fresh request id. `uid` and `gid` (default: the same number)
        are the caller's; those of a SETATTR are `set_uid` and `set_gid`."""
        fields = {name.removeprefix("set_"): value for name, value in fields.items()}
        self.request_id += 1
        header = pb.Header(
            caller=pb.Caller(uid=uid, gid=uid if gid is None else gid, groups=groups),
            client_id=client,
            request_id=fields.pop("request_id", self.request_id),
            umask=umask,
        )
        return VERBS[method].request(header=header, **fields).SerializeToString()

    def send(self, method: int, body: bytes) -> int:
        """Starts a call; its token. The answer may come by a job."""
        token = object()
        for answer in self.store.run([Call(token, method, body, PRINCIPAL)]):
            self.delivered[answer.token] = answer
        return token

    def answer(self, token: Any, method: int) -> Any:
        """The reply, or the exception of the status."""
        answer = self.delivered.pop(token)
        if answer.status:
            raise error_for(answer.status, answer.where, answer.detail)
        return VERBS[method].reply.FromString(answer.body)

    def call(self, method: int, **fields) -> Any:
        """The reply, after running the jobs that it waits for."""
        token = self.send(method, self.request(method, **fields))
        while token not in self.delivered:
            assert self.jobs.run(1), "the call waits for something that no job does"
        return self.answer(token, method)

    def fails(self, number: int, method: int, **fields) -> None:
        """The call is refused with that errno."""
        with pytest.raises(OSError) as refused:
            self.call(method, **fields)
        assert refused.value.errno == number, refused.value

    # -- the common ones -------------------------------------------------------------------------

    def mkdir(self, name: bytes, parent: int = ROOT, mode: int = 0o755, **fields) -> int:
        return self.call(pb.MKDIR, parent=parent, name=name, mode=mode, **fields).entry.attr.inode

    def create(self, name: bytes, parent: int = ROOT, mode: int = 0o644, **fields) -> int:
        """A file that is not open."""
        return self.call(
            pb.CREATE, parent=parent, name=name, mode=mode, type=pb.FILE, **fields
        ).attr.inode

    def open(self, inode: int, flags: int = os.O_RDWR, **fields) -> pb.OpenReply:
        return self.call(pb.OPEN, inode=inode, flags=flags, **fields)

    def write_file(self, name: bytes, size: int, parent: int = ROOT, **fields) -> int:
        """Creates a file with `size` bytes on the fake storage, closed and settled."""
        inode = self.create(name, parent, **fields)
        session = self.open(inode, **fields).session
        self.chunks.write(inode, size)
        self.call(pb.CLOSE, inode=inode, session=session, written_end=size, wrote=True, **fields)
        return inode

    def lookup(self, name: bytes, parent: int = ROOT, **fields) -> pb.Attr:
        return self.call(pb.LOOKUP, parent=parent, name=name, **fields).entry.attr

    def attr(self, inode: int) -> pb.Attr:
        return self.call(pb.GETATTR, inode=inode).attr

    def unlink(self, name: bytes, parent: int = ROOT, **fields) -> pb.RemoveReply:
        return self.call(pb.UNLINK, parent=parent, name=name, **fields)

    def rename(self, old: bytes, new: bytes, old_parent=ROOT, new_parent=ROOT, **fields):
        return self.call(
            pb.RENAME,
            old_parent=old_parent,
            old_name=old,
            new_parent=new_parent,
            new_name=new,
            **fields,
        )

    def names(self, inode: int = ROOT, limit: int = 0, **fields) -> list[bytes]:
        """All pages of a directory."""
        names: list[bytes] = []
        cookie = 0
        while True:
            reply = self.call(pb.READDIR, inode=inode, cookie=cookie, limit=limit, **fields)
            names += [entry.name for entry in reply.entries]
            if reply.end:
                return names
            cookie = reply.entries[-1].cookie

    def collect(self) -> int:
        """Everything that is due after the delay is removed."""
        removed = self.gc.step()
        self.clock.advance(11)
        return removed + self.gc.run_until_idle()
