"""Faults that aim at one rule each. No seed draws them; planted bugs ask for them (Bugs.aim), and
`--set strikes=unseen` does.

What most of them make is a server and a client that both live in the past: they see each other, and
neither sees who leads the cluster. Only leases keep such a pair from a stale read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fs3.mgmtd.transitions import Public
from tests.sim.loop import MS, S

if TYPE_CHECKING:
    from tests.sim.faults import Nemesis
    from tests.sim.manager import Manager
    from tests.sim.node import StorageNode

__all__ = ["AIMED"]


def unseen(n: Nemesis) -> None:
    """A server and some clients see no manager for up to two leases."""
    _hide(n, n.some_node(), n.world.managers, n.random.randrange(2 * n.plan.lease_ns))


def unheard(n: Nemesis) -> None:
    """The same, but answers that are on their way to it still arrive."""
    lease_ns = n.plan.lease_ns
    duration_ns = n.random.randrange(lease_ns, 2 * lease_ns)
    _hide(n, n.some_node(), n.world.managers, duration_ns, hears_ns=lease_ns // 2)


def unseen_clients(n: Nemesis) -> None:
    """Some clients keep an old routing, while the servers hear of the new one."""
    _hide(n, None, n.world.managers, n.random.randrange(2 * n.plan.lease_ns))


def leaves_unseen(n: Nemesis) -> None:
    """An operator takes a target out that does not hear of it."""
    node = n.some_node()
    if node is None or not node.targets:
        return
    target = n.random.choice(list(node.targets))
    _hide(n, node, n.world.managers, n.plan.lease_ns)
    n.left.add(target)
    n.landed["leaves unseen"] += 1
    n.soon(50 * MS, lambda: n.operator(target, leaving=True))
    n.soon(2 * n.plan.lease_ns, lambda: n.operator(target, leaving=False))


def former_primary(n: Nemesis) -> None:
    """The primary sleeps until another one has taken over and given up on a server that hears of
    neither; when it wakes up, that server hears only of it."""
    primary = n.primary()
    if primary is None or primary.paused:
        return
    n.landed["former primary wakes up"] += 1
    lease_ns = n.plan.lease_ns
    asleep_ns = n.random.randrange(16 * lease_ns // 10, 22 * lease_ns // 10)
    primary.pause(asleep_ns)
    others = [manager for manager in n.world.managers if manager is not primary]
    _hide(n, n.some_node(), others, asleep_ns + lease_ns)


def late_exit(n: Nemesis) -> None:
    """Whoever saw a process end tells it when the next one serves already, and cannot be told."""
    node = n.some_node()
    if node is None:
        return
    incarnation = node.incarnation
    n.crash(node, False, 20 * MS, "exit told late")

    def tell() -> None:
        _hide(n, node, n.world.managers, n.plan.lease_ns)
        n.report_exit_now(node, incarnation)

    n.soon(n.random.randrange(S, 4 * S), tell)


def last_disk_away(n: Nemesis) -> None:
    """The disk of the last that served is taken out while its server is down, and put back, as it
    was, a while after the server has started without it."""
    found = [
        (n.world.nodes[t.node], t.id)
        for chain in n.world.state.chains.values()
        for t in chain.targets
        if t.public is Public.LASTSRV
        and sum(other.public is Public.SERVING for other in chain.targets) == 0
    ]
    if not found:
        return
    node, target = n.random.choice(found)
    disk = node.disks[target]
    if not disk.present:
        return
    node.crash(power_loss=True)
    image, removed = disk.image(), disk.removed()
    disk.replace_with(None)
    disk.away = True
    n.landed["last disk away"] += 1
    n.restart(node, 10 * MS)

    def put_back() -> None:
        disk.away = False
        if disk.present:
            return  # somebody made the target anew, which takes its place for good
        node.crash(power_loss=True)
        disk.replace_with(image)
        disk.note_removed(removed)
        n.restart(node, 10 * MS)

    n.later(n.random.randrange(500 * MS, 2 * S), put_back)


def neighbours(n: Nemesis) -> None:
    """Two servers of a chain do not see each other, for one to four leases; everybody else sees
    both. A second such pair of the same chain may follow."""
    chain = n.random.choice(list(n.world.state.chains.values()))
    if len(chain.targets) < 2:
        return
    pair = n.random.sample(sorted(target.node for target in chain.targets), 2)
    names = [n.world.nodes[node].name for node in pair]
    n.landed["neighbours apart"] += 1
    n.world.loop.note("apart", *names)
    both = [(names[0], names[1]), (names[1], names[0])]
    _cut(n, both, n.random.randrange(n.plan.lease_ns, 4 * n.plan.lease_ns))


def rot(n: Nemesis) -> None:
    """A chunk rots in every replica that has it, or in all but one."""
    chain = n.random.choice(list(n.world.state.chains.values()))
    disks = [n.world.disk(target.id) for target in chain.targets]
    keys = [key for key, chunk in disks[0].chunks() if chunk.committed is not None]
    if not keys:
        return
    key = n.random.choice(keys)
    spared = n.random.choice((*disks, None))
    n.landed["rot" if spared else "rot everywhere"] += 1
    for disk in disks:
        if disk is not spared:
            disk.damage(key)


def _hide(
    n: Nemesis,
    node: StorageNode | None,
    managers: list[Manager],
    duration_ns: int,
    hears_ns: int = 0,
) -> None:
    hidden = [client.name for client in n.world.clients if n.random.random() < 0.5]
    hidden += [node.name] if node is not None else []
    n.landed["unseen"] += 1
    n.world.loop.note("unseen", *hidden)
    out = [(a, manager.name) for a in hidden for manager in managers]
    _cut(n, out, duration_ns)
    into = [(b, a) for a, b in out]
    if not hears_ns:
        _cut(n, into, duration_ns)
    else:
        n.soon(hears_ns, lambda: _cut(n, into, duration_ns - hears_ns))


def _cut(n: Nemesis, pairs: list[tuple[str, str]], duration_ns: int) -> None:
    for pair in pairs:
        n.world.network.cut(*pair)

    def mend() -> None:
        for pair in pairs:
            n.world.network.mend(*pair)

    n.later(duration_ns, mend)


AIMED: dict[str, Callable[[Nemesis], None]] = {
    strike.__name__: strike
    for strike in (
        unseen,
        unheard,
        unseen_clients,
        leaves_unseen,
        former_primary,
        late_exit,
        last_disk_away,
        neighbours,
        rot,
    )
}
