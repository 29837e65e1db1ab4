"""One step of one chain: the rows that apply to its targets, and the new order. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fs3.mgmtd.state import ChainRecord, TargetRecord
from fs3.mgmtd.transitions import HOLDS, PRESENT, Belief, Public, Row, Situation, next_row
from fs3.types import ChainId, TargetId

__all__ = ["Move", "step"]

Beliefs = Callable[[TargetRecord], Belief]


@dataclass(frozen=True, slots=True)
class Move:
    """A target met a row of the table; `before` equals `after` for the rows that keep it."""

    chain: ChainId
    target: TargetId
    before: Public
    after: Public
    row: Row


def step(chain: ChainRecord, beliefs: Beliefs, complete: bool) -> tuple[ChainRecord, list[Move]]:
    """The chain after one step, with the version unchanged; the caller raises it once per event.

    `complete`: the chain is forming and every target is present and empty on its own server.
    """
    believed = {target.id: _believed(chain, target, beliefs) for target in chain.targets}
    rows = {
        target.id: next_row(target.public, believed[target.id], situation)
        for target, situation in _situations(chain, believed, complete)
    }
    moves = [
        Move(chain.id, target.id, target.public, rows[target.id].next, rows[target.id])
        for target in chain.targets
    ]
    targets = (replace(target, public=rows[target.id].next) for target in chain.targets)
    # Stable: the order among the serving is kept, and a newly serving target becomes the tail.
    ordered = tuple(sorted(targets, key=lambda target: target.public))
    forming = chain.forming and not any(target.public is Public.SERVING for target in ordered)
    _check(chain, ordered, forming)
    return replace(chain, targets=ordered, forming=forming), moves


def _believed(chain: ChainRecord, target: TargetRecord, beliefs: Beliefs) -> Belief:
    """While the chain waits for the last that served, there is nobody who could bring another
    level: what holds everything is that one."""
    belief = beliefs(target)
    waits = any(other.public is Public.LASTSRV for other in chain.targets)
    claims = target.public is Public.SYNCING and belief is Belief.UPTODATE
    return Belief.ONLINE if waits and claims else belief


def _situations(
    chain: ChainRecord, believed: dict[TargetId, Belief], complete: bool
) -> list[tuple[TargetRecord, Situation]]:
    serving = [target.id for target in chain.targets if _serves_after(target, believed[target.id])]
    gives_way = _gives_way(chain, believed, serving)
    leaver = _leaver(chain, believed, serving, gives_way)
    staying = [target for target in serving if target != leaver]
    last = None if serving else _last(chain, believed)
    syncer = _syncer(chain, believed) if staying and leaver is None else None
    return [
        (
            target,
            Situation(
                forming=chain.forming,
                complete=complete,
                others_serve=any(other != target.id for other in staying),
                chosen_last=target.id == last,
                sync_turn=target.id == syncer,
                leave_turn=target.id == leaver,
                leaving=target.unwanted,
                gives_way=target.id == gives_way,
            ),
        )
        for target in chain.targets
    ]


def _serves_after(target: TargetRecord, belief: Belief) -> bool:
    if target.public is Public.SERVING:
        return belief in HOLDS
    if target.public is Public.SYNCING:
        return belief is Belief.UPTODATE and not target.unwanted
    return target.public is Public.LASTSRV and belief is Belief.UPTODATE


def _last(chain: ChainRecord, believed: dict[TargetId, Belief]) -> TargetId | None:
    """Which of the vanished becomes LASTSRV: a working disk before a failed one, then the
    tail-most.

    Every serving target holds each acknowledged write. The tail also holds what it committed and
    showed to a reader before the others (commit(tail) >= ... >= commit(head)).
    """
    vanished = [target for target in chain.targets if target.public is Public.SERVING]
    unharmed = [t for t in vanished if believed[t.id] is not Belief.FAILED]
    candidates = unharmed or vanished
    return candidates[-1].id if candidates else None


def _leaver(
    chain: ChainRecord,
    believed: dict[TargetId, Belief],
    serving: list[TargetId],
    gives_way: TargetId | None,
) -> TargetId | None:
    """The one target that may begin to leave: others serve, and nobody syncs (one per chain)."""
    if len(serving) < 2 or (_sync_taken(chain, believed) and gives_way is None):
        return None
    going = [t for t in reversed(chain.targets) if t.unwanted and t.public is Public.SERVING]
    going = [target for target in going if target.id in serving]
    first = [target for target in going if target.cut_from]  # writes stand still until it has left
    return (first + going)[0].id if going else None


def _gives_way(
    chain: ChainRecord, believed: dict[TargetId, Belief], serving: list[TargetId]
) -> TargetId | None:
    """The syncing target, when writes stand still until a serving one has left. A resync may take
    hours. Its server must know that it syncs: one that began to leave may still answer reads."""
    if len(serving) < 2:
        return None
    waits = any(
        t.cut_from and t.public is Public.SERVING and t.id in serving for t in chain.targets
    )
    for target in chain.targets:
        syncs = target.public is Public.SYNCING and not target.unwanted
        if waits and syncs and believed[target.id] is Belief.ONLINE:
            return target.id
    return None


def _syncer(chain: ChainRecord, believed: dict[TargetId, Belief]) -> TargetId | None:
    """The next to sync: WAITING ones before OFFLINE ones, in the order of the chain (as sorted)."""
    if _sync_taken(chain, believed):
        return None
    for target in chain.targets:
        idle = target.public in (Public.WAITING, Public.OFFLINE) and not target.unwanted
        if idle and believed[target.id] in PRESENT:
            return target.id
    return None


def _sync_taken(chain: ChainRecord, believed: dict[TargetId, Belief]) -> bool:
    """True while a target stays SYNCING through this step."""
    for target in chain.targets:
        if target.public is not Public.SYNCING:
            continue
        belief = believed[target.id]
        ends = belief in (Belief.FAILED, Belief.LOST)
        ends = ends or (belief in PRESENT if target.unwanted else belief is Belief.UPTODATE)
        if not ends:
            return True
    return False


def _check(before: ChainRecord, targets: tuple[TargetRecord, ...], forming: bool) -> None:
    """What must hold of every chain after every step; a violation is a bug and stops mgmtd."""
    states = [target.public for target in targets]
    serving, last = states.count(Public.SERVING), states.count(Public.LASTSRV)
    valid = (
        len({target.id for target in targets}) == len(before.targets)
        and last <= 1
        and (serving == 0 or last == 0)
        and states.count(Public.SYNCING) <= 1
        and (forming == (serving + last == 0))
    )
    if not valid:
        raise AssertionError(f"chain {before.id}: {before.targets} -> {targets}")
