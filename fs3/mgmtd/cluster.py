"""The cluster as a state machine without a world: apply(state, event) -> (state, effects).

No clock, thread, socket or store in here: events carry the time (mgmtd's monotonic clock, ns). The
caller makes the effects true in their order - Persist before RoutingChanged, so nobody sees a
routing that a restart could forget - and only then takes the new state; when persisting fails it
drops both and stops being primary.

Rules of time:
  - A server answers for its targets until 0.8 T after it sent the last heartbeat that was
    acknowledged. A node is declared dead T after mgmtd took the last one, which is later. A proven
    exit or a new incarnation needs no wait.
  - A node that was declared dead gets no lease by heartbeat: it registers again and applies the
    routing of the reply before its lease begins. Its process may still believe itself SERVING in an
    older chain version.
  - After a restart of mgmtd, or when mgmtd itself was not running for half a lease (no Tick), every
    living node counts as just seen.

Rules of order, because what a process sent may arrive late, or twice:
  - A registration carries a number drawn for it (NumberDrawn), and counts only in the term that
    gave the number, and only when it is greater than that of the node's present registration. What
    a process registers was drawn before it ended, the number of the next process of that node after
    that: so a dead one cannot take the place of a living one, however late its registration comes.
    Whoever lives draws again. Nothing of this is in the store: a new term takes no number of an
    older one, and an old term cannot write.
  - A term takes heartbeats only of processes that have heard of it, and within it registrations and
    heartbeats of one process in the order in which they were sent (`sequence`). Otherwise an older
    one could say that a target is not there which the process has made since, and serves.
  - An exit names one incarnation. It stays true for ever, and says nothing about any other.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from fs3.mgmtd import chains, links
from fs3.mgmtd.chains import Move
from fs3.mgmtd.state import (
    LOCAL_OFFLINE,
    LOCAL_ONLINE,
    LOCAL_UPTODATE,
    ChainRecord,
    ClusterState,
    NodeIdentity,
    NodeRecord,
    TargetRecord,
    TargetReport,
)
from fs3.mgmtd.transitions import Belief, Public
from fs3.types import ChainId, ChainVersion, NodeId, RoutingVersion, TargetId

__all__ = [
    "Effect",
    "Event",
    "Heartbeat",
    "Moved",
    "NodeExited",
    "NodeRegistered",
    "NumberDrawn",
    "Persist",
    "Refusal",
    "Refused",
    "RoutingChanged",
    "TargetLeaves",
    "Tick",
    "apply",
    "resumed",
]

RETIRED_MAX = 16  # incarnations remembered per node; an older process cannot still be running


# ---- events


@dataclass(frozen=True, slots=True)
class NumberDrawn:
    """A process is about to register. Its number is `drawn` of the new state, in that term."""


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    """A process begins (new incarnation), or comes back after it was declared dead (same one)."""

    identity: NodeIdentity
    incarnation: bytes
    epoch: int  # the term in which `number` was drawn
    number: int
    sequence: int
    reports: tuple[TargetReport, ...]
    now_ns: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    node: NodeId
    incarnation: bytes
    epoch: int  # the newest term that the process has heard of
    sequence: int
    reports: tuple[TargetReport, ...]  # every target the server holds; a missing one is closed
    now_ns: int
    silent: Mapping[NodeId, int] = field(default_factory=dict)  # peers; without an answer for, ns


@dataclass(frozen=True, slots=True)
class NodeExited:
    """Somebody saw the process end."""

    node: NodeId
    incarnation: bytes
    now_ns: int


@dataclass(frozen=True, slots=True)
class TargetLeaves:
    """An operator wants the target out of its chain (or, leaving=False, back in)."""

    target: TargetId
    leaving: bool
    now_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """At least four times per lease."""

    now_ns: int


Event = NumberDrawn | NodeRegistered | Heartbeat | NodeExited | TargetLeaves | Tick


# ---- effects


class Refusal(enum.Enum):
    """Why an event changed nothing; the value says what its sender does."""

    UNKNOWN_NODE = "register"
    DECLARED_DEAD = "register again, apply the routing of the reply, then go on"
    SUPERSEDED = "stop: a newer process has this node id, or this one was reported dead"
    OUT_OF_DATE = "draw a number and register again"
    OUT_OF_ORDER = "ignore: a later message was taken already"
    OTHER_TERM = "say it again under the epoch of this term"
    FOREIGN_TARGET = "stop: the target belongs to another node"
    UNKNOWN_TARGET = "check the target id"


@dataclass(frozen=True, slots=True)
class Refused:
    refusal: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class Moved:
    """For the log: a target changed its public state."""

    move: Move


@dataclass(frozen=True, slots=True)
class Persist:
    """Write these records, and the routing version of the new state, in one transaction."""

    nodes: tuple[NodeId, ...]
    chains: tuple[ChainId, ...]


@dataclass(frozen=True, slots=True)
class RoutingChanged:
    version: RoutingVersion
    chains: tuple[ChainId, ...]


Effect = Refused | Moved | Persist | RoutingChanged
Result = tuple[ClusterState, list[Effect]]


def apply(state: ClusterState, event: Event) -> Result:
    """The next state, and what must happen in the world, in order. `state` is left as it was."""
    if isinstance(event, Heartbeat):
        return _heartbeat(state, event)
    if isinstance(event, NodeRegistered):
        return _registered(state, event)
    if isinstance(event, NodeExited):
        return _exited(state, event)
    if isinstance(event, TargetLeaves):
        return _leaves(state, event)
    if isinstance(event, NumberDrawn):
        return replace(state, drawn=state.drawn + 1), []
    return _tick(state, event)


def resumed(state: ClusterState, now_ns: int, lease_ns: int, epoch: int) -> ClusterState:
    """A state read from the store, for a term `epoch` that begins now with leases of `lease_ns`.

    Living nodes count as just seen. When leases were longer before, some server may still hold one
    of that length: for the difference everybody counts as seen in the future. The longest lease
    stays on record, because another restart may follow before it ended.
    """
    longest_ns = max(state.lease_longest_ns, lease_ns)
    seen_ns = now_ns + longest_ns - lease_ns
    nodes = {
        node_id: replace(
            node,
            number=0,
            sequence=0,
            last_seen_ns=seen_ns,
            reported=False,
            reports={},
            steady_since_ns=0,
            silences={},
        )
        for node_id, node in state.nodes.items()
    }
    return replace(
        state,
        nodes=nodes,
        lease_ns=lease_ns,
        lease_longest_ns=longest_ns,
        last_tick_ns=now_ns,
        epoch=epoch,
        drawn=0,
    )


# ---- one function per event


def _registered(state: ClusterState, event: NodeRegistered) -> Result:
    node_id = event.identity.id
    known = state.nodes.get(node_id)
    if known is not None and event.incarnation in known.retired:
        return _refuse(state, Refusal.SUPERSEDED, f"node {node_id}: this incarnation was replaced")
    late = _out_of_date(state, event, known)
    if late is not None:
        return _refuse(state, Refusal.OUT_OF_DATE, f"node {node_id}: {late}")
    foreign = _foreign(state, node_id, event.reports)
    if foreign is not None:
        return _refuse(state, Refusal.FOREIGN_TARGET, foreign)
    same = known is not None and known.incarnation == event.incarnation
    record = NodeRecord(
        identity=event.identity,
        incarnation=event.incarnation,
        alive=True,
        retired=_retired(known, event.incarnation),
        number=event.number,
        sequence=event.sequence,
        last_seen_ns=max(known.last_seen_ns, event.now_ns) if known and same else event.now_ns,
        reported=True,
        reports={r.target: r if same else _at_most_online(r) for r in event.reports},
    )
    alive_again = replace(state, nodes={**state.nodes, node_id: record})
    mine = _chains_of(state, (node_id,))
    former, moves = state, list[Move]()
    if not same:  # everything the former process served is gone with it
        lost = replace(record, alive=False)
        former, moves = _settle(replace(state, nodes={**state.nodes, node_id: lost}), mine)
        former = _spoken_of_anew(former, moves)
    settled, later = _settle(replace(alive_again, chains=former.chains), mine)
    return _finish(state, settled, moves + later, mine, nodes=(node_id,))


def _heartbeat(state: ClusterState, event: Heartbeat) -> Result:
    node = state.nodes.get(event.node)
    if node is None:
        return _refuse(state, Refusal.UNKNOWN_NODE, f"node {event.node} never registered")
    if event.incarnation in node.retired:
        return _refuse(state, Refusal.SUPERSEDED, f"node {event.node}: a newer process runs")
    if event.incarnation != node.incarnation:
        return _refuse(state, Refusal.UNKNOWN_NODE, f"node {event.node}: unknown incarnation")
    if not node.alive:
        return _refuse(state, Refusal.DECLARED_DEAD, f"node {event.node} was declared dead")
    if event.epoch != state.epoch:
        detail = f"node {event.node}: heartbeat of term {event.epoch} in term {state.epoch}"
        return _refuse(state, Refusal.OTHER_TERM, detail)
    if event.sequence <= node.sequence:
        detail = f"node {event.node}: heartbeat {event.sequence} after {node.sequence}"
        return _refuse(state, Refusal.OUT_OF_ORDER, detail)
    foreign = _foreign(state, event.node, event.reports)
    if foreign is not None:
        return _refuse(state, Refusal.FOREIGN_TARGET, foreign)
    record = replace(
        links.heard(node, event.silent, event.now_ns, state.lease_ns),
        sequence=event.sequence,
        last_seen_ns=max(node.last_seen_ns, event.now_ns),
        reported=True,
        reports={report.target: report for report in event.reports},
    )
    mine = _chains_of(state, (event.node,))
    heard = replace(state, nodes={**state.nodes, event.node: record})
    settled, moves = _settle(links.judge(heard, mine, event.now_ns), mine)
    return _finish(state, settled, moves, mine)


def _exited(state: ClusterState, event: NodeExited) -> Result:
    node = state.nodes.get(event.node)
    if node is None:
        return _refuse(state, Refusal.UNKNOWN_NODE, f"node {event.node} never registered")
    if event.incarnation != node.incarnation:
        return _refuse(state, Refusal.SUPERSEDED, f"node {event.node}: not the current process")
    retired = (*node.retired, node.incarnation)[-RETIRED_MAX:]
    if not node.alive and node.incarnation in node.retired:
        return state, []
    record = replace(node, alive=False, retired=retired, reports={})
    gone = replace(state, nodes={**state.nodes, event.node: record})
    mine = _chains_of(state, (event.node,))
    settled, moves = _settle(gone, mine)
    return _finish(state, settled, moves, mine, nodes=(event.node,))


def _leaves(state: ClusterState, event: TargetLeaves) -> Result:
    for chain in state.chains.values():
        if any(target.id == event.target for target in chain.targets):
            targets = tuple(
                replace(target, leaving=event.leaving) if target.id == event.target else target
                for target in chain.targets
            )
            marked = {**state.chains, chain.id: replace(chain, targets=targets)}
            settled, moves = _settle(replace(state, chains=marked), (chain.id,))
            return _finish(state, settled, moves, (chain.id,))
    return _refuse(state, Refusal.UNKNOWN_TARGET, f"target {event.target} is in no chain")


def _tick(state: ClusterState, event: Tick) -> Result:
    now_ns = event.now_ns
    if now_ns - state.last_tick_ns > state.lease_ns // 2:
        # mgmtd was not running: heartbeats wait unread in its sockets, so silence proves nothing.
        nodes = {
            node_id: replace(node, last_seen_ns=max(node.last_seen_ns, now_ns), steady_since_ns=0)
            for node_id, node in state.nodes.items()
        }
        return replace(state, nodes=nodes, last_tick_ns=now_ns), []
    dead = tuple(
        node_id
        for node_id, node in state.nodes.items()
        if node.alive and now_ns - node.last_seen_ns >= state.lease_ns
    )
    ticked = replace(state, last_tick_ns=now_ns)
    if not dead:
        return ticked, []
    nodes = dict(ticked.nodes)
    for node_id in dead:
        nodes[node_id] = replace(nodes[node_id], alive=False, reports={})
    ids = _chains_of(state, dead)
    settled, moves = _settle(replace(ticked, nodes=nodes), ids)
    return _finish(state, settled, moves, ids, nodes=dead)


# ---- shared steps


def _settle(state: ClusterState, ids: Iterable[ChainId]) -> tuple[ClusterState, list[Move]]:
    """One step of each named chain; versions are raised by _finish."""
    settled = dict(state.chains)
    moves: list[Move] = []
    for chain_id in ids:
        chain = settled[chain_id]
        complete = chain.forming and all(_is_blank(state, target) for target in chain.targets)
        settled[chain_id], steps = chains.step(chain, _beliefs(state, chain), complete)
        moves += steps
    return replace(state, chains=settled), moves


def _finish(
    before: ClusterState,
    after: ClusterState,
    moves: list[Move],
    ids: Iterable[ChainId] = (),
    nodes: tuple[NodeId, ...] = (),
) -> Result:
    """Versions, and the effects that make the difference of two states true.

    `ids`: chains that may differ. A chain in which anything moved gets a new version, also when a
    second step led back: a process that began anew may not go on with the resync of its former
    life.
    """
    moved = {move.chain for move in moves if move.before is not move.after}
    touched = tuple(i for i in ids if i in moved or after.chains[i] != before.chains[i])
    changed = tuple(chain_id for chain_id in touched if chain_id in moved)
    effects: list[Effect] = [Moved(move) for move in moves if move.before is not move.after]
    chains_after = dict(after.chains)
    for chain_id in changed:
        version = ChainVersion(before.chains[chain_id].version + 1)
        chains_after[chain_id] = replace(after.chains[chain_id], version=version)
    publish = bool(changed or nodes)
    routing_version = RoutingVersion(before.version + publish)
    if touched or nodes:
        effects.append(Persist(nodes, touched))
    if publish:
        effects.append(RoutingChanged(routing_version, changed))
    return replace(after, chains=chains_after, version=routing_version), effects


def _spoken_of_anew(state: ClusterState, moves: list[Move]) -> ClusterState:
    """Between two steps of one event: no report speaks of what the first one made. A target that
    begins to leave there would else be dropped by the second, before its server can know."""
    moved = {move.chain for move in moves if move.before is not move.after}
    raised = {
        chain_id: replace(chain, version=ChainVersion(chain.version + 1))
        for chain_id, chain in state.chains.items()
        if chain_id in moved
    }
    return replace(state, chains={**state.chains, **raised})


def _beliefs(state: ClusterState, chain: ChainRecord) -> Callable[[TargetRecord], Belief]:
    return lambda target: _belief(state.nodes.get(target.node), chain, target)


def _belief(node: NodeRecord | None, chain: ChainRecord, target: TargetRecord) -> Belief:
    if node is None or not node.alive:
        return Belief.LOST
    if not node.reported:
        return Belief.SILENT
    report = node.reports.get(target.id)
    if report is None or report.chain != chain.id:
        return Belief.FAILED
    if report.local not in (LOCAL_UPTODATE, LOCAL_ONLINE):
        return Belief.FAILED
    if report.chain_version != chain.version:
        # It spoke about another version of the chain: this only proves that the disk is there.
        idle = target.public in (Public.WAITING, Public.OFFLINE)
        return Belief.ONLINE if idle else Belief.SILENT
    return Belief.UPTODATE if report.local == LOCAL_UPTODATE else Belief.ONLINE


def _is_blank(state: ClusterState, target: TargetRecord) -> bool:
    """Present and empty, told by the living server that it belongs to."""
    node = state.nodes.get(target.node)
    report = node.reports.get(target.id) if node is not None and node.alive else None
    return report is not None and report.local != LOCAL_OFFLINE and not report.used_bytes


def _out_of_date(
    state: ClusterState, event: NodeRegistered, known: NodeRecord | None
) -> str | None:
    """Why a registration does not count any more; its process may be dead."""
    if event.epoch != state.epoch:
        return f"number {event.number} was drawn in term {event.epoch}, this is {state.epoch}"
    if event.number > state.drawn:
        return f"number {event.number} was not drawn, the last one is {state.drawn}"
    if known is not None and event.number <= known.number:
        return f"number {event.number} after {known.number}"
    return None


def _foreign(state: ClusterState, node: NodeId, reports: Iterable[TargetReport]) -> str | None:
    """A complaint when a report names a target of another node: copied or swapped disk."""
    for report in reports:
        chain = state.chains.get(report.chain)
        for target in chain.targets if chain is not None else ():
            if target.id == report.target and target.node != node:
                return (
                    f"target {target.id} of chain {report.chain} belongs to node {target.node}, "
                    f"and node {node} reports it: is the disk in the wrong server?"
                )
    return None


def _chains_of(state: ClusterState, nodes: Iterable[NodeId]) -> tuple[ChainId, ...]:
    wanted = set(nodes)
    return tuple(
        chain.id
        for chain in state.chains.values()
        if any(target.node in wanted for target in chain.targets)
    )


def _retired(known: NodeRecord | None, incarnation: bytes) -> tuple[bytes, ...]:
    if known is None:
        return ()
    if known.incarnation == incarnation or known.incarnation in known.retired:
        return known.retired
    return (*known.retired, known.incarnation)[-RETIRED_MAX:]


def _at_most_online(report: TargetReport) -> TargetReport:
    """A new process cannot know yet that its chain waits for it: UPTODATE counts later."""
    return replace(report, local=LOCAL_ONLINE) if report.local == LOCAL_UPTODATE else report


def _refuse(state: ClusterState, refusal: Refusal, detail: str) -> Result:
    return state, [Refused(refusal, detail)]
