"""Chain tables: valid, balanced, deterministic."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs3.errors import BadRequest
from fs3.mgmtd.placement import default_chains, place
from fs3.types import NodeId, TargetId, target_disk, target_id, target_node

SHAPES = [
    (1, 1, 1, 2),
    (3, 1, 3, 6),
    (4, 1, 3, 8),
    (5, 1, 3, 10),
    (6, 2, 3, 24),
    (7, 1, 3, 14),
    (10, 1, 2, 20),
    (5, 2, 3, 40),
    (20, 2, 3, 80),
]


def nodes(count: int) -> list[NodeId]:
    return [NodeId(number) for number in range(101, 101 + count)]


def disk(target: TargetId) -> tuple[int, int]:
    return target_node(target), target_disk(target)


@pytest.mark.parametrize(("count", "disks", "replicas", "chains"), SHAPES)
def test_load_heads_tails_and_neighbours_are_balanced(
    count: int, disks: int, replicas: int, chains: int
) -> None:
    placed = place(nodes(count), disks, replicas, chains)
    everything = list(itertools.product(nodes(count), range(disks)))
    load = Counter(disk(target) for chain in placed for target in chain)
    heads = Counter(disk(chain[0]) for chain in placed)
    tails = Counter(disk(chain[-1]) for chain in placed)
    shared: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()
    for chain in placed:
        shared.update(itertools.permutations(map(disk, chain), 2))
    pairs = [pair for pair in itertools.permutations(everything, 2) if pair[0][0] != pair[1][0]]
    assert spread(load[d] for d in everything) <= 1
    assert spread(heads[d] for d in everything) <= 2
    assert spread(tails[d] for d in everything) <= 2
    assert spread(shared[pair] for pair in pairs) <= 1


def spread(counts: object) -> int:
    values = list(counts)  # type: ignore[call-overload]
    return max(values, default=0) - min(values, default=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 30))
def test_every_shape_is_valid(count: int, disks: int, replicas: int, chains: int) -> None:
    if replicas > count:
        with pytest.raises(BadRequest, match="as many servers"):
            place(nodes(count), disks, replicas, chains)
        return
    placed = place(nodes(count), disks, replicas, chains)
    assert len(placed) == chains
    targets = [target for chain in placed for target in chain]
    assert len(set(targets)) == len(targets) == chains * replicas
    for chain in placed:
        assert len({target_node(target) for target in chain}) == replicas
    assert placed == place(nodes(count), disks, replicas, chains)
    load = Counter(map(disk, targets))
    everything = itertools.product(nodes(count), range(disks))
    assert spread(load[d] for d in everything) <= 1 or replicas > 1


def test_the_order_of_names_does_not_matter() -> None:
    assert place(nodes(4), 1, 3, 8) == place(list(reversed(nodes(4))), 1, 3, 8)


def test_default_is_two_chains_per_server() -> None:
    assert default_chains(3, 3) == 6
    assert default_chains(1, 3) == 3


def test_target_ids_tell_node_and_disk() -> None:
    target = target_id(NodeId(102), 3, 7)
    assert (target_node(target), target_disk(target)) == (102, 3)
    for bad in ((1000, 1), (0, 0), (0, 1000), (-1, 1)):
        with pytest.raises(ValueError):
            target_id(NodeId(1), *bad)
