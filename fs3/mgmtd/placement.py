"""Which disks make up which chain: balanced load, heads and neighbours. Deterministic, no solver.

When a disk dies, the disks that share a chain with it carry its reads and send its data to the
replacement. So every disk should share chains with every other, equally often; every disk should
be head (which takes the writes of clients) and tail equally often.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fs3.errors import BadRequest, Status
from fs3.types import NodeId, TargetId, target_id

__all__ = ["Disk", "default_chains", "place"]

EXCHANGE_ROUNDS_MAX = 8  # the sum falls with each; more rounds gain next to nothing
ORDERS_MAX = 24  # permutations of a chain that are weighed: all of up to 4 replicas


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    node: NodeId
    index: int  # number of the disk in its server, from 0


def default_chains(nodes: int, replicas: int) -> int:
    """Two chains per server, so that the load of a dead one spreads; at least one."""
    return max(2 * nodes, replicas)


def place(
    nodes: Sequence[NodeId], disks_per_node: int, replicas: int, chains: int
) -> list[tuple[TargetId, ...]]:
    """The targets of each chain, head first; no two of one chain on one server.

    Raises BadRequest when there are fewer servers than replicas.

    >>> place([NodeId(1), NodeId(2)], 1, 2, 2)
    [(1000001, 2000001), (2000002, 1000002)]
    """
    if not 1 <= replicas <= len(set(nodes)):
        detail = (
            f"replicas: {replicas} copies need as many servers, and there are {len(set(nodes))}"
        )
        raise BadRequest(Status.BAD_REQUEST, "placement", detail)
    disks = sorted(Disk(node, index) for node in set(nodes) for index in range(disks_per_node))
    groups = _groups(disks, replicas, chains)
    _spread(groups)
    positions: Counter[tuple[int, Disk]] = Counter()
    slots: Counter[Disk] = Counter()
    result = []
    for group in groups:
        order = _order(group, positions)
        positions.update(enumerate(order))
        slots.update(order)
        result.append(tuple(target_id(disk.node, disk.index, slots[disk]) for disk in order))
    return result


def _groups(disks: Sequence[Disk], replicas: int, chains: int) -> list[list[Disk]]:
    """Members of each chain, chosen greedily: equal load first, then little in common."""
    load: Counter[Disk] = Counter()
    shared: Counter[tuple[Disk, Disk]] = Counter()
    groups = []
    for _ in range(chains):
        group = _members(disks, replicas, load, shared)
        load.update(group)
        shared.update(itertools.permutations(group, 2))
        groups.append(group)
    return groups


def _spread(groups: list[list[Disk]]) -> None:
    """Exchanges members between chains while that makes the most shared pairs rarer.

    The greedy choice runs out of freedom at the end of each round; exchanges keep the load.
    """
    shared: Counter[tuple[Disk, Disk]] = Counter()
    for group in groups:
        shared.update(itertools.permutations(group, 2))
    for _ in range(EXCHANGE_ROUNDS_MAX):
        pairs = itertools.combinations(groups, 2)
        if not sum(_exchange(one, other, shared) for one, other in pairs):
            return


def _exchange(one: list[Disk], other: list[Disk], shared: Counter[tuple[Disk, Disk]]) -> bool:
    """The first exchange between two chains that lowers the sum of squares of shared pairs."""
    for i, j in itertools.product(range(len(one)), range(len(other))):
        mine, theirs = one[i], other[j]
        rest_one, rest_other = one[:i] + one[i + 1 :], other[:j] + other[j + 1 :]
        clash = theirs.node in {d.node for d in rest_one} or mine.node in {
            d.node for d in rest_other
        }
        if mine == theirs or clash:
            continue
        lost = [(mine, d) for d in rest_one] + [(theirs, d) for d in rest_other]
        gained = [(theirs, d) for d in rest_one] + [(mine, d) for d in rest_other]
        change = Counter(gained)
        change.subtract(lost)
        # (n + c)^2 - n^2, summed over the pairs whose count changes by c
        if sum(c * (2 * shared[pair] + c) for pair, c in change.items()) < 0:
            for (a, b), c in change.items():
                shared[a, b] += c
                shared[b, a] += c
            one[i], other[j] = theirs, mine
            return True
    return False


def _members(
    disks: Sequence[Disk],
    replicas: int,
    load: Counter[Disk],
    shared: Counter[tuple[Disk, Disk]],
) -> list[Disk]:
    """The least loaded disk, then those that shared least with the chosen, one per server."""
    members: list[Disk] = []
    for _ in range(replicas):
        taken = {disk.node for disk in members}
        candidates = [disk for disk in disks if disk.node not in taken]
        members.append(
            min(
                candidates,
                key=lambda disk: (load[disk], sum(shared[disk, other] for other in members), disk),
            )
        )
    return members


def _order(members: Sequence[Disk], positions: Counter[tuple[int, Disk]]) -> tuple[Disk, ...]:
    """The order in which each disk stands where it stood least; heads and tails weigh most."""
    last = len(members) - 1

    def cost(order: tuple[Disk, ...]) -> tuple[int, int, int, tuple[Disk, ...]]:
        head, tail = positions[0, order[0]], positions[last, order[last]]
        rest = sum(positions[position, disk] ** 2 for position, disk in enumerate(order))
        return (head, tail, rest, order)

    return min(itertools.islice(itertools.permutations(members), ORDERS_MAX), key=cost)
