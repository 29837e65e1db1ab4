"""The kinds of faults that strike processes and the network, and the table of all kinds.

The numbers F1.. are those of the list of faults to inject that the project keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fs3.mgmtd.transitions import Public
from tests.sim import strikes_disk
from tests.sim.loop import MS, S
from tests.sim.points import READ, RESYNC, WRITE, Points

if TYPE_CHECKING:
    from tests.sim.faults import Nemesis

__all__ = ["STRIKES"]


# ---- storage servers: F1 kill, F2 pause, F3 storms, F8 power, F15 clocks


def kill(n: Nemesis) -> None:
    node = n.some_node()
    if node is not None:
        n.crash(node, False, n.away_ns(), "kill")


def power(n: Nemesis) -> None:
    node = n.some_node()
    if node is not None:
        n.crash(node, True, n.away_ns(), "power loss")


def storm(n: Nemesis) -> None:
    """The same server again and again."""
    node = n.some_node()
    if node is None:
        return
    for i in range(4):
        n.soon(i * 400 * MS, lambda: n.crash(node, False, 50 * MS, "storm"))


def storm_of_all(n: Nemesis) -> None:
    """Every server, three times each, in any order within two seconds."""
    for node in n.world.nodes.values():
        for _ in range(3):
            away_ns = n.random.randrange(20 * MS, 200 * MS)
            n.soon(
                n.random.randrange(2 * S),
                lambda node=node, away=away_ns: n.crash(node, False, away, "storm of all"),
            )


def all_power(n: Nemesis) -> None:
    for node in n.world.nodes.values():
        n.crash(node, True, n.away_ns(), "all power lost")


def most_die(n: Nemesis) -> None:
    """All but one, one after the other."""
    nodes = list(n.world.nodes.values())
    n.random.shuffle(nodes)
    for i, node in enumerate(nodes[1:]):
        n.soon(i * n.random.randrange(S), lambda node=node: n.crash(node, True, 3 * S, "most die"))


def pause(n: Nemesis) -> None:
    node = n.some_node()
    lease_ns = n.plan.lease_ns
    choices = (100 * MS, lease_ns * 8 // 10, lease_ns, lease_ns * 12 // 10, 3 * lease_ns)
    if node is not None:
        n.landed["pause"] += 1
        node.pause(n.random.choice(choices))


def wall_clock(n: Nemesis) -> None:
    """Somebody sets the clock of a server, by up to an hour either way."""
    node = n.some_node()
    if node is not None:
        n.landed["wall clock jump"] += 1
        node.wall_jump_ns += n.random.choice((-3600, -5, 5, 3600)) * S


def _at_some_point(n: Nemesis, points: tuple[str, ...], actions: tuple[str, ...]) -> None:
    """The next server that passes a named point does so for the last time in a while."""
    if n.world.points is None or n.world.points.fired:
        point, action = n.random.choice(points), n.random.choice(actions)
        n.landed[f"at a point: {action}"] += 1
        n.world.points = Points(n.world, point, action)


def pause_in_read(n: Nemesis) -> None:
    """F2, exactly where a lease may end between a check and an answer."""
    _at_some_point(n, READ, ("pause",))


def at_write_point(n: Nemesis) -> None:
    _at_some_point(n, WRITE, ("kill", "pause", "delay"))


def at_resync_point(n: Nemesis) -> None:
    _at_some_point(n, RESYNC, ("kill", "pause", "delay"))


# ---- mgmtd: F16, F17, F19


def pause_manager(n: Nemesis) -> None:
    manager = n.primary()
    if manager is not None:
        n.landed["pause mgmtd"] += 1
        manager.pause(n.random.randrange(2 * n.plan.lease_ns))


def restart_manager(n: Nemesis) -> None:
    manager = n.primary()
    if manager is not None:
        n.crash_manager(manager, n.random.randrange(2 * S), "mgmtd crash")


def failover_twice(n: Nemesis) -> None:
    """The second primary dies inside the first hand-over."""
    restart_manager(n)
    n.soon(n.random.randrange(n.plan.lease_ns), lambda: restart_manager(n))


def death_in_resync(n: Nemesis) -> None:
    """Either end of a resync dies, and sometimes mgmtd with it."""
    node = n.node_with(Public.SYNCING) if n.random.random() < 0.6 else None
    node = node or n.node_with(Public.SERVING)
    if node is None or n.node_with(Public.SYNCING) is None:
        return
    n.crash(node, n.random.random() < 0.5, n.away_ns(), "death in resync")
    if n.random.random() < 0.3:
        restart_manager(n)


def store_down(n: Nemesis) -> None:
    """The key-value store of mgmtd does not answer for a while."""
    if n.world.store.down:
        return
    n.landed["kv down"] += 1
    n.world.store.down = True

    def up() -> None:
        n.world.store.down = False

    n.later(n.random.randrange(3 * S), up)


# ---- the network: F11, F12


def partition(n: Nemesis) -> None:
    """One node from all others, from some, from mgmtd alone, or in one direction only."""
    node = n.some_node()
    if node is None:
        return
    others = [other.name for other in n.world.everybody() if other is not node]
    shape = n.random.choice(("all", "mgmtd", "some", "out", "in"))
    if shape == "mgmtd":
        others = [manager.name for manager in n.world.managers]
    elif shape == "some":
        others = [name for name in others if n.random.random() < 0.5]
    pairs = [(node.name, other) for other in others] if shape != "in" else []
    pairs += [(other, node.name) for other in others] if shape != "out" else []
    _cut(n, pairs, f"partition: {shape}")


def halves(n: Nemesis) -> None:
    """Two halves that do not see each other; in some, a bridge sees both."""
    names = [process.name for process in n.world.everybody()]
    n.random.shuffle(names)
    bridge = names.pop() if n.random.random() < 0.3 else None
    middle = n.random.randrange(1, len(names))
    pairs = [(a, b) for a in names[:middle] for b in names[middle:]]
    pairs += [(b, a) for a, b in pairs]
    _cut(n, pairs, "partition: halves" if bridge is None else "partition: bridge")


def client_alone(n: Nemesis) -> None:
    """A client sees some of the servers, or none."""
    client = n.random.choice(n.world.clients)
    others = [p.name for p in n.world.everybody() if p is not client]
    chosen = others if n.random.random() < 0.5 else n.random.sample(others, len(others) // 2)
    both = n.random.random() < 0.7
    pairs = [(client.name, other) for other in chosen]
    pairs += [(other, client.name) for other in chosen] if both else []
    _cut(n, pairs, "partition: client")


def manager_alone(n: Nemesis) -> None:
    """Nobody reaches the primary, in both directions or in one."""
    manager = n.primary()
    if manager is None:
        return
    others = [p.name for p in n.world.everybody() if p is not manager]
    shape = n.random.choice(("both", "in", "out"))
    pairs = [(manager.name, other) for other in others] if shape != "in" else []
    pairs += [(other, manager.name) for other in others] if shape != "out" else []
    _cut(n, pairs, "partition: mgmtd alone")


def _cut(n: Nemesis, pairs: list[tuple[str, str]], kind: str) -> None:
    n.landed[kind] += 1
    n.world.loop.note(kind, *(f"{a}>{b}" for a, b in pairs[:4]))
    for source, target in pairs:
        n.world.network.cut(source, target)

    def mend() -> None:
        for pair in pairs:
            n.world.network.mend(*pair)

    n.later(n.random.choice((n.random.randrange(S), n.random.randrange(4 * S))), mend)


def clog(n: Nemesis) -> None:
    """Nothing gets into or out of a process for up to 5 s, then all of it does."""
    process = n.random.choice(list(n.world.everybody()))
    n.world.network.clog(process.name, n.random.randrange(5 * S))


def swizzle(n: Nemesis) -> None:
    """Clogs some servers one after another, and frees them in another order."""
    nodes = [node for node in n.world.nodes.values() if n.random.random() < 0.6]
    for i, node in enumerate(nodes):
        held_ns = n.random.randrange(300 * MS, 3 * S)
        n.soon(
            i * 200 * MS,
            lambda name=node.name, held=held_ns: n.world.network.clog(name, held),
        )


# ---- operators: F25


def leave(n: Nemesis) -> None:
    """An operator takes a target out of its chain, and later back in."""
    target = n.random.choice(list(n.world.placed))
    n.landed["leave"] += 1
    n.left.add(target)
    n.operator(target, leaving=True)
    n.soon(n.random.randrange(4 * S), lambda: n.operator(target, leaving=False))


STRIKES: dict[str, Callable[[Nemesis], None]] = {
    strike.__name__: strike
    for strike in (
        kill,
        power,
        storm,
        storm_of_all,
        all_power,
        most_die,
        pause,
        wall_clock,
        pause_in_read,
        at_write_point,
        at_resync_point,
        pause_manager,
        restart_manager,
        failover_twice,
        death_in_resync,
        store_down,
        partition,
        halves,
        client_alone,
        manager_alone,
        clog,
        swizzle,
        leave,
        *strikes_disk.KINDS,
    )
}
