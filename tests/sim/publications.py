"""What the managers publish, compared with everything that was published before: I6, I9 and I14;
and with what the servers may still do: I3.

One chain version has one content, whoever is primary; versions only grow; what becomes serving or
the last that served holds what was acknowledged; and what is taken out of a chain cannot answer
any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fs3.mgmtd.chains import Move
from fs3.mgmtd.state import LOCAL_UPTODATE, ChainRecord, ClusterState
from fs3.mgmtd.transitions import Public
from fs3.types import TargetId
from tests.sim.disk import Chunk, Position
from tests.sim.ledger import Violation
from tests.sim.loop import S

if TYPE_CHECKING:
    from tests.sim.cluster import World

__all__ = ["Publications"]

Content = tuple[tuple[int, int], ...]  # (target, public state), in order


class Publications:
    def __init__(self, world: World) -> None:
        self.rows: set[str] = set()  # of the state table that were executed
        self._world = world
        self._content: dict[tuple[int, int], Content] = {}  # chain, its version
        self._highest: dict[int, int] = {}  # chain -> version, of all lives
        self._newest: dict[str, dict[int, int]] = {}  # life of a manager -> chain -> version

    def check(self, state: ClusterState, who: str) -> None:
        # A primary that slept may publish what it had written before another took over: receivers
        # ignore what is older. The content of a version is the same all the same.
        newest = self._newest.setdefault(who, {})
        for chain in state.chains.values():
            content = tuple((t.id, int(t.public)) for t in chain.targets)
            if chain.version > self._highest.get(chain.id, 0):
                self._highest[chain.id] = chain.version
                self._check_silent(chain)
            known = self._content.setdefault((chain.id, chain.version), content)
            if known != content:
                raise Violation(
                    "I14",
                    f"{who} publishes chain {chain.id} version {chain.version} as {content}; "
                    f"it was published as {known}",
                )
            if chain.version < newest.get(chain.id, 0):
                raise Violation(
                    "I6",
                    f"{who}: chain {chain.id} goes back from version {newest[chain.id]} to "
                    f"{chain.version}",
                )
            newest[chain.id] = chain.version

    def moved(self, state: ClusterState, move: Move) -> None:
        world = self._world
        self.rows.add(move.row.id)
        world.loop.note(
            "mgmtd", move.chain, move.target, move.before.name, move.after.name, move.row.id
        )
        if move.after is Public.SERVING:
            world.replaced.discard(move.target)
        if move.after is Public.LASTSRV and move.before is Public.SERVING:
            world.ledger.died_ns[move.chain] = world.loop.now_ns
        if move.after is Public.LASTSRV:
            self._check_holds(move.chain, move.target, "becomes the last that served")
        elif move.after is Public.SERVING and not state.chains[move.chain].forming:
            self._check_holds(move.chain, move.target, "becomes serving")

    def _check_silent(self, chain: ChainRecord) -> None:
        """I3, before any client notices: no lease outlives the place in the chain. A server that
        closed the target itself answers nothing, whatever its lease says.
        """
        for member in chain.targets:
            target = self._world.target(member.id)
            in_chain = member.public in (Public.SERVING, Public.SYNCING)
            if in_chain or target is None or target.replica.local != LOCAL_UPTODATE:
                continue
            if target.disk.failed:
                continue
            left_ns = target.lease_until_ns - target.node.clock_ns()
            if left_ns > 0 and target.replica.state == int(Public.SERVING):
                raise Violation(
                    "I3",
                    f"chain {chain.id} version {chain.version} has target {member.id} as "
                    f"{member.public.name}, whose server may answer for another "
                    f"{left_ns / S:.3f} s",
                )

    def _check_holds(self, chain: int, target: TargetId, what: str) -> None:
        """I9."""
        disk = self._world.disk(target)
        if disk.away and not disk.present:
            return  # what it holds comes back with it
        for chunk, position in self._world.ledger.acknowledged.items():
            if self._world.chain_of(chunk) != chain:
                continue
            held = disk.chunk(chunk)
            there = _newest(held)
            removed = self._world.ledger.entries[chunk, position].content is None
            if removed and held.committed is None and held.pending is None:
                continue  # that it is not there is all that a disk keeps of a removal
            if there is None or there < position:
                raise Violation(
                    "I9",
                    f"target {target} {what} with {chunk} at {there}, acknowledged is {position}",
                )


def _newest(chunk: Chunk) -> Position | None:
    """Pending versions count: the last that served commits them before it serves."""
    held = [version.position for version in (chunk.committed, chunk.pending) if version is not None]
    held += [chunk.removed] if chunk.removed is not None else []
    return max(held, default=None)
