"""One run: load, faults by seed, liveness after each, then death of everything, and all checks.

1 start      cluster on its hosts, two mounts, three workloads
2 strike     one fault after the other; after each everything is healed and every workload must
             have an operation acknowledged again within RESUME_S
3 verify     workloads ended; all chains whole; replicas equal; a fresh mount shows everything
4 all dies   every process is killed while writes are in flight, started again, verified again
"""

import pathlib
import random
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.nemesis.cluster import Cluster, Failure, wait_for
from tests.nemesis.faults import Nemesis
from tests.nemesis.hosts import Hosts
from tests.nemesis.workloads import Manifest, Names, Registers, Workload

__all__ = ["Plan", "run"]

RESUME_S = 20.0  # I27
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
    try:
        cluster.start()
        mounts = [cluster.point("mount-a"), cluster.point("mount-b")]
        workloads: list[Workload] = [
            Manifest(mounts, plan.seed),
            Registers(mounts, plan.seed),
            Names(mounts, plan.seed),
        ]
        nemesis = Nemesis(cluster, only=plan.only, said=say)
        _strike_while_working(plan, cluster, workloads, nemesis)
        _verify(cluster, workloads, say)
        _kill_everything_in_mid_write(cluster, workloads, say)
        _verify(cluster, workloads, say)
        landed = ", ".join(f"{name} {count}" for name, count in sorted(nemesis.landed.items()))
        say(f"landed: {landed}")
        say("acknowledged: " + ", ".join(f"{type(w).__name__} {w.acknowledged}" for w in workloads))
    except Failure:
        cluster.dump()
        raise
    finally:
        cluster.stop()


def _strike_while_working(
    plan: Plan, cluster: Cluster, workloads: list[Workload], nemesis: Nemesis
) -> None:
    rng = random.Random(f"strikes {plan.seed}")
    for workload in workloads:
        workload.begin()
    try:
        until_s = time.monotonic() + plan.seconds
        while time.monotonic() < until_s or not nemesis.landed:
            _goes_on(workloads)
            nemesis.strike(rng)
        _goes_on(workloads)
    finally:
        cluster.heal()
        _end(workloads)


def _goes_on(workloads: list[Workload]) -> None:
    """Liveness: with everything healed, each workload gets something acknowledged."""
    for workload in workloads:
        before = workload.acknowledged
        wait_for(
            lambda w=workload, b=before: w.acknowledged > b or bool(w.errors),  # type: ignore[misc]
            f"{type(workload).__name__} goes on after everything was healed",
            RESUME_S,
        )
        if workload.errors:
            raise Failure(workload.errors[0])


def _end(workloads: list[Workload]) -> None:
    for workload in workloads:
        workload.end(END_S)


def _verify(cluster: Cluster, workloads: list[Workload], say: Callable[[str], None]) -> None:
    chunks = cluster.replicas_equal()
    for name in ("mount-a", "mount-b"):
        cluster.remount(name)
    fresh = cluster.point("mount-b")
    compared = [workload.verify(fresh) for workload in workloads]
    say(f"verified: {', '.join(compared)}, {chunks} chunks equal on their replicas")


def _kill_everything_in_mid_write(
    cluster: Cluster, workloads: list[Workload], say: Callable[[str], None]
) -> None:
    for workload in workloads:
        workload.begin()
    _goes_on(workloads)
    wait_for(lambda: workloads[0].in_flight > 0, "a write is in flight", RESUME_S)
    in_flight = sum(workload.in_flight for workload in workloads)
    for name in (*cluster.storages, "meta", "mgmtd", "mount-a", "mount-b"):
        cluster.kill(name)
    if not in_flight:
        raise Failure("nothing was in flight when everything was killed: nothing was tested")
    say(f"  everything died with {in_flight} operations in flight, and is started again")
    _end(workloads)
    for name in ("mount-a", "mount-b"):
        subprocess.run(["umount", "-l", str(cluster.point(name))], capture_output=True, check=True)
    cluster.heal()
    for workload in workloads:
        workload.begin()
    _goes_on(workloads)
    _end(workloads)
