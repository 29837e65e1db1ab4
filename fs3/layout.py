"""From a byte of a file to a chain: proto/LAYOUT.md in Python.

The native client has its own (native/wire/layout.cc); both read proto/vectors/layout.json.
"""

from functools import lru_cache

from fs3._proto import common_pb2
from fs3.types import ChainId

__all__ = ["Tables", "chain_of", "chunk_index", "permutation", "pick", "tables_of"]

_MASK = (1 << 64) - 1
_CACHED = 4096  # permutations; one per file in use, each of a few hundred chains

Tables = dict[tuple[int, int], tuple[int, ...]]
"""(table id, version) -> chain ids."""


def chunk_index(offset: int, chunk_bytes: int) -> tuple[int, int]:
    """The chunk that holds byte `offset`, and the position inside it."""
    return divmod(offset, chunk_bytes)


@lru_cache(maxsize=_CACHED)
def permutation(seed: int, n: int) -> tuple[int, ...]:
    """All of 0..n-1, shuffled by `seed` (64 bits).

    >>> sorted(permutation(7, 5))
    [0, 1, 2, 3, 4]
    """
    entries = list(range(n))
    state = seed & _MASK
    for i in range(n - 1, 0, -1):
        state, value = _splitmix64(state)
        j = value % (i + 1)
        entries[i], entries[j] = entries[j], entries[i]
    return tuple(entries)


def pick(seed: int, n: int, k: int) -> int:
    """Entry `k` of the permutation: the place in the chain table of chunk k of a file."""
    if not 0 <= k < n:
        raise ValueError(f"k: is {k}, must be 0..{n - 1}")
    return permutation(seed, n)[k]


def tables_of(routing: common_pb2.RoutingInfo) -> Tables:
    """All chain tables of a routing info."""
    return {(table.id, table.version): tuple(table.chains) for table in routing.tables}


def chain_of(layout: common_pb2.Layout, index: int, tables: Tables) -> ChainId:
    """The chain of chunk `index`. Raises KeyError when `tables` lacks the layout's chain table."""
    chains = tables[layout.chain_table, layout.chain_table_version]
    stripe = max(1, min(layout.stripe, len(chains)))
    return ChainId(chains[pick(layout.seed, len(chains), index % stripe)])


def _splitmix64(state: int) -> tuple[int, int]:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return state, z ^ (z >> 31)
