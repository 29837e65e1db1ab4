"""Neighbours of a chain that cannot reach each other: who tells it, and which of the two is to go.

Updates run from neighbour to neighbour, so two of them that do not see each other stop the writes
of their chain, while both see mgmtd and keep their places. Each server asks the servers of its
chains whether they are there, a few times a second, and its heartbeats name those that have been
silent. Pure functions.

  - Silence counts once it lasted BLIND of T, and only between two servers that are heard here
    steadily: silence towards a process that sleeps or died is the business of its lease. BLIND is
    so much below one that the target is out within T + 1 s, heartbeats and their way included, and
    so much above STEADY that a hiccup of one heartbeat's length decides nothing.
  - Who is out of sight of the most goes; between equals the later one in the order, which is the
    one that syncs, or the tail. `cut_from` of its target names whom it cannot see. It goes as a
    target that an operator wants out (transitions.py, D), and never as the last that serves.
  - It may come back when nobody of the chain has complained for T. So a link that comes and goes
    costs one resync in two leases at most.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

from fs3.mgmtd.state import ChainRecord, ClusterState, NodeRecord, Silence, TargetRecord
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, NodeId

__all__ = ["heard", "judge"]

BLIND = 0.75  # of T: so long a silence between neighbours is told apart from a slow moment
STEADY = 0.5  # of T: the longest pause between two heartbeats of a server that counts as awake


def heard(node: NodeRecord, silent: Mapping[NodeId, int], now_ns: int, lease_ns: int) -> NodeRecord:
    """The node with what its newest heartbeat tells of its neighbours: peer -> silent for, ns.

    REQUIRES: `last_seen_ns` is still that of the heartbeat before.
    """
    pause_ns = now_ns - node.last_seen_ns
    steady = node.steady_since_ns and pause_ns <= STEADY * lease_ns
    lately = {
        peer: silence
        for peer, silence in node.silences.items()
        if now_ns - silence.told_ns < lease_ns
    }
    told = {peer: Silence(for_ns, now_ns) for peer, for_ns in silent.items()}
    since_ns = node.steady_since_ns if steady else now_ns
    return replace(node, steady_since_ns=since_ns, silences={**lately, **told})


def judge(state: ClusterState, ids: Iterable[ChainId], now_ns: int) -> ClusterState:
    """The state with `cut_from` of the named chains' targets set and taken back."""
    links = _Links(state, now_ns)
    changed: dict[ChainId, ChainRecord] = {}
    for chain_id in ids:
        chain = state.chains[chain_id]
        judged = _cut(_rejoin(chain, links), links)
        if judged is not chain:
            changed[chain_id] = judged
    return replace(state, chains={**state.chains, **changed}) if changed else state


class _Links:
    """Who sees whom, at one moment."""

    def __init__(self, state: ClusterState, now_ns: int) -> None:
        self._state = state
        self._now_ns = now_ns
        self._blind = self._silent(BLIND)
        # Who complains first would else decide: the others tell the same with their next heartbeat.
        self._dim = self._silent(STEADY) if self._blind else set()

    @property
    def whole(self) -> bool:
        """Nobody is out of sight."""
        return not self._blind

    def apart(self, one: NodeId, other: NodeId) -> bool:
        return frozenset((one, other)) in self._blind

    def misses(self, one: NodeId, other: NodeId) -> bool:
        """The same, or about to be."""
        return frozenset((one, other)) in self._dim

    def _silent(self, share: float) -> set[frozenset[NodeId]]:
        return {
            frozenset((node_id, peer))
            for node_id, node in self._state.nodes.items()
            for peer, silence in node.silences.items()
            if silence.told_ns == node.last_seen_ns
            and silence.for_ns >= share * self._state.lease_ns
            and self._awake(node_id, BLIND)
            and self._awake(peer, BLIND)
        }

    def agree(self, one: NodeId, other: NodeId) -> bool:
        """Neither has missed the other in the last T."""
        return self._content(one, other) and self._content(other, one)

    def _content(self, node_id: NodeId, peer: NodeId) -> bool:
        silence = self._state.nodes[node_id].silences.get(peer)
        quiet = silence is None or self._now_ns - silence.told_ns >= self._state.lease_ns
        return quiet and self._awake(node_id, 1.0)

    def _awake(self, node_id: NodeId, share: float) -> bool:
        """Its heartbeats have come steadily for so much of T, to this moment."""
        node = self._state.nodes.get(node_id)
        if node is None or not node.alive or not node.steady_since_ns:
            return False
        lease_ns = self._state.lease_ns
        steady = self._now_ns - node.steady_since_ns >= share * lease_ns
        return steady and self._now_ns - node.last_seen_ns <= STEADY * lease_ns


def _rejoin(chain: ChainRecord, links: _Links) -> ChainRecord:
    """Those whom everybody in the chain has seen for long enough are welcome again."""

    def welcome(target: TargetRecord) -> bool:
        return all(
            links.agree(target.node, member.node)
            for member in chain.targets
            if member.public is Public.SERVING and member.id != target.id
        )

    back = {target.id for target in chain.targets if target.cut_from and welcome(target)}
    if not back:
        return chain
    targets = (replace(t, cut_from=None) if t.id in back else t for t in chain.targets)
    return replace(chain, targets=tuple(targets))


def _cut(chain: ChainRecord, links: _Links) -> ChainRecord:
    """Marks targets until every neighbour that is to stay is seen, or only one serves."""
    while not links.whole:
        victim = _victim(chain, links)
        if victim is None:
            break
        targets = (victim if t.id == victim.id else t for t in chain.targets)
        chain = replace(chain, targets=tuple(targets))
    return chain


def _victim(chain: ChainRecord, links: _Links) -> TargetRecord | None:
    line = [
        target
        for target in chain.targets
        if target.public in (Public.SERVING, Public.SYNCING) and not target.cut_from
    ]
    missed = {
        target.id: [other.node for other in line if links.misses(target.node, other.node)]
        for target in line
    }
    stuck = [pair for pair in pairwise(line) if links.apart(pair[0].node, pair[1].node)]
    candidates = [t for t in line if any(t in pair for pair in stuck) and _spare(t, line)]
    if not candidates:
        return None
    victim = max(candidates, key=lambda target: (len(missed[target.id]), line.index(target)))
    return replace(victim, cut_from=missed[victim.id][0])


def _spare(target: TargetRecord, line: list[TargetRecord]) -> bool:
    """Another one serves, and is to stay."""
    return any(
        other.public is Public.SERVING and not other.leaving and other.id != target.id
        for other in line
    )
