"""What an operation knows besides its transaction and its request, and what it leaves for the
store to do."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fs3._proto import meta_pb2
from fs3.meta.allocator import InodeAllocator
from fs3.meta.clients import ClientTable
from fs3.meta.inode import Inode, Layout
from fs3.meta.layouts import LayoutPolicy
from fs3.meta.leases import LeaseTable
from fs3.meta.permission import Caller
from fs3.meta.ports import Measure, SpacePort
from fs3.meta.quota import Account
from fs3.types import InodeId

__all__ = ["Context", "Environment", "IntentPending", "LengthNeeded"]


class Wait(Exception):
    """The operation cannot be answered yet; it left no writes and runs again from the start
    later."""

    def __init__(self, inode: int) -> None:
        super().__init__(inode)
        self.inode = inode


class IntentPending(Wait):
    """... when the truncate of `inode` that is in progress has finished."""


class LengthNeeded(Wait):
    """... when storage has told what it holds of `inode`."""

    def __init__(self, inode: int, truncate_epoch: int, layout: Layout) -> None:
        super().__init__(inode)
        self.truncate_epoch = truncate_epoch
        self.layout = layout


@dataclass(slots=True)
class Environment:
    """The parts of the service that operations use. One per service; guarded by the store's
    lock."""

    allocator: InodeAllocator
    layouts: LayoutPolicy
    leases: LeaseTable
    clients: ClientTable
    space: SpacePort
    service: bytes  # incarnation of this process
    new_session: Callable[[], bytes]  # 16 random bytes
    limited: set[Account] = field(default_factory=set)  # accounts with a limit (quota.py)


@dataclass(slots=True)
class Context:
    """One request. Fields below the line are left by the operation."""

    env: Environment
    caller: Caller
    client: bytes  # 16 bytes, or empty for a request that changes nothing
    umask: int
    now_ns: int
    measured: dict[int, tuple[int, Measure]] = field(default_factory=dict)  # with truncate_epoch
    # ---
    rights: int = 0  # the reply carries a capability with these
    session: bytes = b""
    hold: int = 0  # inode whose truncate has to be finished before the reply goes out; 0 = none
    sessions_change: int = 0  # +1 opened, -1 closed
    _inodes: list[InodeId] = field(default_factory=list)  # taken, by whichever attempt
    _inodes_used: int = 0  # by this attempt

    def reset(self) -> None:
        """Before each attempt."""
        self.rights = self.hold = self.sessions_change = 0
        self.session = b""
        self._inodes_used = 0

    def measure(self, inode: Inode) -> Measure:
        """What storage holds, told after the newest truncate and after this request came. Raises
        LengthNeeded."""
        epoch, measure = self.measured.get(inode.number, (-1, Measure(0, 0)))
        if epoch != inode.truncate_epoch:
            raise LengthNeeded(inode.number, inode.truncate_epoch, inode.layout)
        return measure

    def entry(self, inode: Inode) -> meta_pb2.Entry:
        """Attributes under a lease of the client."""
        return meta_pb2.Entry(attr=inode.attr(), lease=self.lease(inode.number))

    def lease(self, inode: int) -> meta_pb2.Lease | None:
        return self.env.leases.grant(inode, self.client) if self.client else None

    def new_inode(self) -> InodeId:
        """Another attempt gets the same ones."""
        if self._inodes_used == len(self._inodes):
            self._inodes.append(self.env.allocator.take())
        self._inodes_used += 1
        return self._inodes[self._inodes_used - 1]
