"""One sentence about the whole cluster, and whether it is well."""

from collections import Counter

from fs3.mgmtd.state import ChainRecord, ClusterState, NodeRecord
from fs3.mgmtd.transitions import Public
from fs3.types import NodeId

__all__ = ["sentence"]


def sentence(state: ClusterState) -> tuple[bool, str]:
    """(well, sentence). Well: every target serves, every server and a metadata service is alive.

    The worst comes first: chains that nobody serves, then lost redundancy, then a missing meta.
    """
    chains = list(state.chains.values())
    owners = {target.node for chain in chains for target in chain.targets}
    down = sorted(owner for owner in owners if not _alive(state.nodes.get(owner)))
    forming = [chain for chain in chains if chain.forming]
    stopped = [chain for chain in chains if _count(chain, Public.LASTSRV)]
    reduced = [chain for chain in chains if _count(chain, Public.SERVING) < len(chain.targets)]
    servers = f"{len(owners) - len(down)} of {len(owners)} storage servers alive"
    if stopped:
        waits = sorted({_last(chain) for chain in stopped})
        return False, (
            f"{_chains(len(stopped))} cannot be read or written until "
            f"{_names(state, waits)} is back with its disk; {servers}."
        )
    if forming:
        return False, (
            f"{_chains(len(forming))} not formed yet: every disk must be present and empty; "
            f"{servers}."
        )
    if reduced:
        return False, _reduced(state, reduced, down, servers)
    if not any(node.identity.role == "meta" and node.alive for node in state.nodes.values()):
        return False, f"No metadata service is alive; {servers}, all data is fully replicated."
    return True, f"All is well: {servers}, {_chains(len(chains))} fully replicated."


def _reduced(
    state: ClusterState, reduced: list[ChainRecord], down: list[NodeId], servers: str
) -> str:
    states: Counter[Public] = Counter()
    for chain in reduced:
        states.update(target.public for target in chain.targets)
    copies = min(_count(chain, Public.SERVING) for chain in reduced)
    text = f"{_chains(len(reduced))} with fewer copies (at least {copies}), reads and writes go on"
    if down:
        text += f"; {_names(state, down)} is down"
    syncing = states[Public.SYNCING] + states[Public.WAITING]
    if syncing:
        text += f"; {syncing} targets are being brought level"
    apart = {
        (target.node, target.cut_from) for c in reduced for target in c.targets if target.cut_from
    }
    for one, other in sorted(apart):
        text += f"; {_names(state, [one, other])} cannot reach each other: mend their network"
    return f"{text}; {servers}."


def _alive(node: NodeRecord | None) -> bool:
    return node is not None and node.alive


def _count(chain: ChainRecord, public: Public) -> int:
    return sum(target.public is public for target in chain.targets)


def _last(chain: ChainRecord) -> NodeId:
    return next(target.node for target in chain.targets if target.public is Public.LASTSRV)


def _names(state: ClusterState, ids: list[NodeId]) -> str:
    known = (state.nodes.get(node_id) for node_id in ids)
    names = [
        node.identity.name if node is not None and node.identity.name else f"node {node_id}"
        for node_id, node in zip(ids, known, strict=True)
    ]
    return " and ".join(names)


def _chains(count: int) -> str:
    return "1 chain" if count == 1 else f"{count} chains"
