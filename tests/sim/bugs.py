"""Protocol bugs on demand: the checks must find each of them, or they prove nothing.

A bug is a Bugs with one thing wrong: the compiled replica stays as it is, and what goes in or comes
out of it, or what the processes around it do, is changed in one place. The table is bugs_table.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest import mock

from fs3.mgmtd.transitions import Public

if TYPE_CHECKING:
    from fs3.kv.election import Election
    from fs3.mgmtd.cluster import Event
    from fs3.mgmtd.state import ClusterState, TargetReport
    from tests.sim.disk import Chunk, Identity
    from tests.sim.ledger import Operation
    from tests.sim.manager import Core
    from tests.sim.node import StorageNode
    from tests.sim.target import Target

__all__ = ["Bugs", "aimed", "aimed_at_readers"]

NO_AIM: Mapping[str, str] = MappingProxyType({})


def aimed(strikes: str, **values: str) -> Mapping[str, str]:
    return MappingProxyType({"strikes": strikes, **values})


def aimed_at_readers(strikes: str, **values: str) -> Mapping[str, str]:
    """One chunk that everybody reads and writes all the time: whoever lives in the past is met."""
    crowd = {"clients": "5", "think_ns": "2e7", "chains": "1", "chunks": "1"}
    return aimed(strikes, nodes="3", replicas="3", **crowd, **values)


class Bugs:
    """Nothing is wrong. Subclasses override one thing."""

    name = ""
    aim: Mapping[str, str] = NO_AIM  # values of the plan in which it can show
    disk_quirks: frozenset[str] = frozenset()
    patches: tuple[tuple[str, Any], ...] = ()  # of production code: ("module.name", value)
    lease_before_routing = False
    lease_stretch = 1.0
    wall_clock_in_leases = False
    makes_up_targets = False
    ignores_space = False
    one_page = False
    tells_done_early = False
    meta_goes_on = False  # after a commit whose outcome it does not know

    @contextmanager
    def planted(self) -> Iterator[None]:
        patches = [mock.patch(where, value) for where, value in self.patches]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in reversed(patches):
                patch.stop()

    # ---- storage servers

    def replica(self, replica: Any) -> Any:
        return replica

    def loaded(self, chunk: Chunk) -> Chunk:
        return chunk

    def arriving(self, target: Target, request: Any) -> Any:
        return request

    def leaving(self, target: Target, request: Any) -> Any:
        return request

    def state(self, public: Public) -> Public:
        return public

    def routing(self, node: StorageNode, routing: ClusterState) -> None:
        node.apply_routing(routing)

    def registered(self, node: StorageNode, routing: ClusterState) -> None:
        node.apply_routing(routing)

    def report(self, node: StorageNode, report: TargetReport) -> TargetReport:
        return report

    def lease_from_ns(self, sent_ns: int, now_ns: int) -> int:
        return sent_ns

    def life(self, epoch: int) -> int:
        return epoch

    # ---- managers

    def election(self, election: Election) -> Election:
        return election

    def manager(self, core: Core) -> None:
        """Right after it was made."""

    def event(self, core: Core, event: Event) -> Event:
        return event

    # ---- clients

    def request_id(self, first: int, attempt: int) -> int:
        return first

    def identity(self, operation: Operation) -> Identity:
        assert operation.identity is not None
        return operation.identity
