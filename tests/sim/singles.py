"""Single faults, enumerated and not sampled: every named point x action x role, and every order in
which the targets of a chain can go and come back. Each is one deterministic run with all end
checks.

    python -m tests.sim.singles                  all of them
    python -m tests.sim.singles NAME... --trace  some of them again (names as they are printed)
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from fs3.runtime import failpoint
from tests.sim import failpoints
from tests.sim.cluster import Script, World, run_plan
from tests.sim.disk import DiskFaults
from tests.sim.ledger import Violation
from tests.sim.loop import MS, S
from tests.sim.network import NetworkFaults
from tests.sim.plan import Load, Plan
from tests.sim.points import ACTIONS, READ, RESYNC, WRITE, Points
from tests.sim.singles_meta import META, run_meta
from tests.sim.store import StoreFaults

__all__ = ["Case", "cases", "main", "run_case"]

LEASE_NS = 2 * S
TAIL_LACKS = {  # the tail has no successor, and commits as it stages
    "write.before_forward",
    "write.after_forward",
    "write.successor_acked",
    "write.commit_staged",
    "write.commit_durable",
}
NO_ERROR = {"write.replied", "read.sent", "resync.marked_uptodate", "write.data_pulled"}
ROLES = ("head", "middle", "tail")


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    kind: str  # write, read, resync, mgmtd, meta, order, apart
    script: Script | None = None  # none: a case of singles_meta.py
    managers: int = 1
    duration_ns: int = 6 * S


def cases() -> Iterator[Case]:
    for point, role, action in itertools.product((*WRITE, *READ), ROLES, ACTIONS):
        lacks = role == "tail" and point in TAIL_LACKS
        if lacks or (action == "error" and point in NO_ERROR):
            continue
        kind = point.partition(".")[0]
        yield Case(f"{point}/{role}/{action}", kind, partial(_at_point, point, role, action))
    for point, lost, action in itertools.product(RESYNC, range(3), ACTIONS):
        if action == "error" and point in NO_ERROR:
            continue
        name = f"{point}/lost-{ROLES[lost]}/{action}"
        yield Case(name, "resync", partial(_in_resync, point, lost, action))
    for point, action in itertools.product(failpoints.MGMTD, ACTIONS):
        script = partial(_in_mgmtd, point, action)
        yield Case(f"{point}/{action}", "mgmtd", script, managers=2, duration_ns=9 * S)
    for action in ("kill", "pause", "delay"):
        script = partial(_lease_lost, action)
        yield Case(f"mgmtd.lease_lost/{action}", "mgmtd", script, managers=2, duration_ns=9 * S)
    for point, action in itertools.product(META, ACTIONS):
        yield Case(f"{point}/{action}", "meta")
    yield from _orders()
    for pair in (*itertools.combinations(range(3), 2), (0, 1, 2)):
        name = f"apart/{'-'.join(ROLES[i] for i in pair)}"
        yield Case(name, "apart", partial(_apart, pair), duration_ns=12 * S)


def _orders() -> Iterator[Case]:
    """6 x 6 orders of going and coming back, near and far apart, with and without power loss."""
    for away, back in itertools.product(itertools.permutations(range(3)), repeat=2):
        for far, power in itertools.product((False, True), repeat=2):
            name = (
                f"order/{''.join(map(str, away))}-{''.join(map(str, back))}"
                f"/{'far' if far else 'near'}/{'power' if power else 'kill'}"
            )
            script = partial(_order, away, back, far, power)
            yield Case(name, "order", script, duration_ns=20 * S if far else 8 * S)


def run_case(case: Case, trace: bool = False) -> None:
    """Raises Violation; "nothing landed" is one."""
    if case.script is None:
        point, _, action = case.name.partition("/")
        run_meta(point, action, print if trace else None)
        return
    plan = Plan(
        nodes=3,
        replicas=3,
        managers=case.managers,
        lease_ns=LEASE_NS,
        load=Load(
            clients=2,
            channels=2,
            chains=1,
            chunks=4,
            mix=(6, 5, 1, 1),
            think_ns=100 * MS,
            deadline_ns=8 * S,
            duration_ns=case.duration_ns,
        ),
        network=NetworkFaults(),
        disk=DiskFaults(),
        store=StoreFaults(),
        drift=0.0,
    )
    with failpoints.armed():
        run_plan(plan, 1, trace=print if trace else None, script=case.script)
        if case.kind == "mgmtd" and not case.name.startswith("mgmtd.lease_lost"):
            point = case.name.partition("/")[0]
            if not failpoint.passed(point):
                raise Violation("coverage", f"{case.name}: the point was never passed")


# ---- what happens in a run


def _members(world: World) -> list[int]:
    """Nodes of the chain, head first."""
    return [t.node for chain in world.state.chains.values() for t in chain.targets]


def _at_point(point: str, role: str, action: str, world: World) -> None:
    points = Points(world, point, action, role)
    world.loop.after(S, lambda: _arm(world, points, f"{point}/{role}/{action}"))


def _arm(world: World, points: Points, name: str) -> None:
    world.points = points

    def must_have_fired() -> None:
        if not points.fired:
            raise Violation("coverage", f"{name}: the point was never passed")

    world.loop.after(4 * S, must_have_fired)


def _in_resync(point: str, lost: int, action: str, world: World) -> None:
    points = Points(world, point, action)
    node = world.nodes[_members(world)[lost]]

    def lose() -> None:
        world.nemesis.landed["kill"] += 1
        incarnation = node.incarnation
        node.crash(power_loss=False)
        world.nemesis.report_exit_now(node, incarnation)
        _arm(world, points, f"{point}/{lost}/{action}")

    world.loop.after(S, lose)
    world.loop.after(2 * S, lambda: node.alive or node.start())


def _in_mgmtd(point: str, action: str, world: World) -> None:
    """The primary sleeps through its lease, so another takes over; and a server dies."""
    first = next(m for m in world.managers if m.primary)
    world.loop.after(S, lambda: failpoint.arm(failpoints.specification(point, action, LEASE_NS)))
    world.loop.after(1200 * MS, lambda: first.pause(LEASE_NS))
    node = world.nodes[_members(world)[1]]
    world.loop.after(1500 * MS, lambda: node.crash(power_loss=False))
    world.loop.after(5 * S, lambda: node.alive or node.start())


def _lease_lost(action: str, world: World) -> None:
    """The primary cannot renew: it is killed, stopped, or cut off from the store."""
    first = next(m for m in world.managers if m.primary)
    if action == "kill":
        world.loop.after(S, first.crash)
        world.loop.after(4 * S, lambda: first.alive or first.start())
    elif action == "pause":
        world.loop.after(S, lambda: first.pause(2 * LEASE_NS))
    else:

        def down(state: bool) -> None:
            world.store.down = state

        world.loop.after(S, lambda: down(True))
        world.loop.after(4 * S, lambda: down(False))


def _order(
    away: tuple[int, ...], back: tuple[int, ...], far: bool, power: bool, world: World
) -> None:
    step_ns = 2 * LEASE_NS if far else 300 * MS
    members = _members(world)
    for i, index in enumerate(away):
        node = world.nodes[members[index]]
        world.loop.after(S + i * step_ns, lambda n=node: n.crash(power_loss=power))
    for i, index in enumerate(back):
        node = world.nodes[members[index]]
        world.loop.after(S + (3 + i) * step_ns, lambda n=node: n.alive or n.start())


def _apart(indices: tuple[int, ...], world: World) -> None:
    """Servers of the chain do not see each other, and everybody else sees them: writes stand still
    for a lease and a second at most, and go on although nothing heals."""
    names = [world.nodes[_members(world)[index]].name for index in indices]
    pairs = list(itertools.permutations(names, 2))
    acknowledged = 0

    def cut() -> None:
        world.nemesis.landed["neighbours apart"] += 1
        for pair in pairs:
            world.network.cut(*pair)

    def count() -> int:
        return sum(o.ok for o in world.ledger.operations if o.kind != "read")

    def note() -> None:
        nonlocal acknowledged
        acknowledged = count()

    def must_have_gone_on() -> None:
        if count() == acknowledged:
            raise Violation("I27", f"{' and '.join(names)} are apart, and no write goes on")

    world.loop.after(S, cut)
    world.loop.after(S + LEASE_NS + S, note)
    # An attempt of a client waits a second for the answer that the former chain owed it.
    world.loop.after(S + LEASE_NS + 3 * S, must_have_gone_on)
    world.loop.after(10 * S, lambda: [world.network.mend(*pair) for pair in pairs] and None)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.singles")
    parser.add_argument("names", nargs="*", help="only cases whose name begins so")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    logging.getLogger("fs3").addHandler(logging.NullHandler())
    counted: Counter[str] = Counter()
    failed: list[str] = []
    begin_s = time.process_time()
    for case in cases():
        if options.names and not any(case.name.startswith(name) for name in options.names):
            continue
        counted[case.kind] += 1
        try:
            run_case(case, options.trace)
        except Violation as violation:
            failed.append(case.name)
            print(f"FAIL {case.name} -> python -m tests.sim.singles {case.name} --trace")
            print(f"     {violation}", flush=True)
    kinds = ", ".join(f"{kind} {count}" for kind, count in counted.items())
    spent_s = time.process_time() - begin_s
    print(f"{counted.total()} single faults enumerated ({kinds}) in {spent_s:.1f} s of one core")
    print(f"{len(failed)} failed")
    return 1 if failed or not counted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
