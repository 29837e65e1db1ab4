"""One run: load, faults by seed, liveness after each, then death of everything, and all checks.

1 start      cluster on its hosts, two mounts, three workloads
2 strike     one fault after the other; after each everything is healed and every workload must
             have an operation acknowledged again within RESUME_S; while two servers are cut apart
             too
3 verify     workloads ended; all chains whole; replicas equal; a fresh mount shows everything
4 all dies   every process is killed while writes are in flight, started again, verified again
"""

import pathlib
import random
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.nemesis.cluster import Cluster, wait_for
from tests.nemesis.crew import Crew
from tests.nemesis.failure import Failure
from tests.nemesis.faults import Nemesis
from tests.nemesis.hosts import Hosts

__all__ = ["Plan", "run"]

RESUME_S = 60.0  # I27
END_S = 120.0


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides before the run begins."""

    seed: int
    seconds: float
    storages: int
    lease_s: float
    only: tuple[str, ...] = ()  # kinds of faults; empty: all

    @staticmethod
    def draw(seed: int, seconds: float, only: Iterable[str] | None = None) -> "Plan":
        rng = random.Random(f"plan {seed}")
        storages, lease_s = rng.choice((3, 3, 4)), rng.choice((2.0, 4.0))
        return Plan(seed, seconds, storages, lease_s, tuple(only or ()))


def run(plan: Plan, directory: pathlib.Path, hosts: Hosts, say: Callable[[str], None]) -> None:
    """Raises Failure. `directory`: empty, on a local disk; keeps logs and data."""
    say(f"{plan}; {'network namespaces' if hosts.can_cut else 'loopback: no partitions'}")
    cluster = Cluster(directory, hosts, plan.storages, plan.lease_s)
    crew = Crew([cluster.point("mount-a"), cluster.point("mount-b")], plan.seed)
    try:
        nemesis = Nemesis(cluster, plan.only, said=say, goes_on=lambda: _goes_on(crew))
        cluster.start()
        _strike_while_working(plan, cluster, crew, nemesis)
        _verify(cluster, crew, say)
        _kill_everything_in_mid_write(cluster, crew, say)
        _verify(cluster, crew, say)
        landed = ", ".join(f"{name} {count}" for name, count in sorted(nemesis.landed.items()))
        say(f"landed: {landed}")
        say("acknowledged: " + ", ".join(f"{s.name} {s.acknowledged}" for s in crew.states()))
    except Failure:
        cluster.dump()
        raise
    finally:
        crew.close()
        cluster.stop()


def _strike_while_working(plan: Plan, cluster: Cluster, crew: Crew, nemesis: Nemesis) -> None:
    rng = random.Random(f"strikes {plan.seed}")
    crew.begin()
    until_s = time.monotonic() + plan.seconds
    while time.monotonic() < until_s or not nemesis.landed:
        _goes_on(crew)
        nemesis.strike(rng)
    _goes_on(crew)
    crew.end(END_S)


def _goes_on(crew: Crew) -> None:
    """Liveness: each workload gets something acknowledged, with everything healed or with what
    the cluster must live with."""
    before = {state.name: state.acknowledged for state in crew.states()}

    def moved() -> bool:
        states = crew.states()
        for state in states:
            if state.errors:
                raise Failure(f"{state.name}: {state.errors[0]}")
        return all(state.acknowledged > before[state.name] for state in states)

    wait_for(moved, "every workload goes on", RESUME_S)


def _verify(cluster: Cluster, crew: Crew, say: Callable[[str], None]) -> None:
    chunks = cluster.replicas_equal()
    for name in ("mount-a", "mount-b"):
        cluster.remount(name)
    compared = crew.verify(cluster.point("mount-b"))
    say(f"verified: {', '.join(compared)}, {chunks} chunks equal on their replicas")


def _kill_everything_in_mid_write(cluster: Cluster, crew: Crew, say: Callable[[str], None]) -> None:
    crew.begin()
    _goes_on(crew)
    wait_for(lambda: _in_flight(crew) > 0, "a write is in flight", RESUME_S)
    for name in (*cluster.storages, "meta", "mgmtd", "mount-a", "mount-b"):
        cluster.kill(name)
    say("  everything died with operations in flight, and is started again")
    crew.end(END_S)
    for name in ("mount-a", "mount-b"):
        subprocess.run(["umount", "-l", str(cluster.point(name))], capture_output=True, check=True)
    cluster.heal()
    crew.begin()
    _goes_on(crew)
    crew.end(END_S)


def _in_flight(crew: Crew) -> int:
    return sum(state.in_flight for state in crew.states())
