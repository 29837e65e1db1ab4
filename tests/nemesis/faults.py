"""What the nemesis does, drawn from a seed. Each fault lasts, then is healed by itself or by the
next heal of everything; it counts as landed when it hit a process that ran.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.nemesis.cluster import CONTROL, Cluster
from tests.nemesis.failure import Failure

__all__ = ["Nemesis"]

Act = Callable[[random.Random], None]


@dataclass
class Nemesis:
    """`strike(rng)` does one fault and heals it; the cluster may be asked to go on after it."""

    cluster: Cluster
    only: tuple[str, ...] = ()
    landed: Counter[str] = field(default_factory=Counter)
    said: Callable[[str], None] = print
    goes_on: Callable[[], None] = lambda: None  # raises Failure when a workload stands still

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.only) - set(self.kinds())):
            raise Failure(f"no fault is called {unknown[0]!r}; here: {', '.join(self.kinds())}")

    def kinds(self) -> dict[str, Act]:
        kinds: dict[str, Act] = {
            "kill storage": self._kill_storage,
            "kill storage, proven": self._kill_storage_proven,
            "storm": self._storm,
            "kill two storages": self._kill_two,
            "kill all storages": self._kill_all,
            "pause storage": self._pause_storage,
            "kill meta": lambda rng: self._kill("meta", rng),
            "pause meta": lambda rng: self._pause("meta", rng),
            "kill mgmtd": lambda rng: self._kill("mgmtd", rng),
            "pause mgmtd": lambda rng: self._pause("mgmtd", rng),
            "kill mgmtd and storage": self._kill_mgmtd_and_storage,
            "kill during resync": self._kill_during_resync,
        }
        if self.cluster.hosts.can_cut:
            kinds |= {
                "isolate storage": self._isolate_storage,
                "cut one direction": self._cut_one_direction,
                "isolate mgmtd": lambda rng: self._isolate("mgmtd", rng),
                "cut storages apart": self._cut_pair,
                "halves": self._halves,
                "cut mount": lambda rng: self._isolate(rng.choice(("mount-a", "mount-b")), rng),
            }
        return kinds

    def strike(self, rng: random.Random) -> str:
        kinds = self.kinds()
        name = rng.choice(self.only or sorted(kinds))
        self.said(f"  {name}")
        kinds[name](rng)
        self.cluster.heal()
        self.landed[name] += 1
        return name

    # ---- deaths ----

    def _kill(self, name: str, rng: random.Random, *, proven: bool = False) -> None:
        self.cluster.kill(name, proven=proven)
        self._last(rng, longest_s=1.5 * self.cluster.lease_s)
        self.cluster.restart(name)

    def _kill_storage(self, rng: random.Random) -> None:
        self._kill(rng.choice(self.cluster.storages), rng)

    def _kill_storage_proven(self, rng: random.Random) -> None:
        self._kill(rng.choice(self.cluster.storages), rng, proven=True)

    def _storm(self, rng: random.Random) -> None:
        name = rng.choice(self.cluster.storages)
        for _ in range(rng.randrange(3, 8)):
            self.cluster.kill(name, proven=rng.random() < 0.5)
            self.cluster.restart(name)

    def _kill_two(self, rng: random.Random) -> None:
        for name in rng.sample(self.cluster.storages, 2):
            self.cluster.kill(name)
            self._last(rng, longest_s=1.5 * self.cluster.lease_s)

    def _kill_all(self, rng: random.Random) -> None:
        names = rng.sample(self.cluster.storages, len(self.cluster.storages))
        for name in names:
            self.cluster.kill(name)
            if rng.random() < 0.5:
                self._last(rng, longest_s=1.2 * self.cluster.lease_s)
        for name in rng.sample(names, len(names)):
            self.cluster.restart(name)
            self._last(rng, longest_s=0.5)

    def _kill_mgmtd_and_storage(self, rng: random.Random) -> None:
        self.cluster.kill("mgmtd")
        self.cluster.kill(rng.choice(self.cluster.storages))
        self._last(rng, longest_s=1.5 * self.cluster.lease_s)

    def _kill_during_resync(self, rng: random.Random) -> None:
        first, second = rng.sample(self.cluster.storages, 2)
        self.cluster.kill(first)
        self._last(rng, longest_s=1.5 * self.cluster.lease_s)
        self.cluster.restart(first)
        self._last(rng, longest_s=0.5)
        self.cluster.kill(rng.choice((first, second)))
        self._last(rng, longest_s=0.5)

    # ---- pauses ----

    def _pause(self, name: str, rng: random.Random) -> None:
        """From a hiccup to three leases: the sleeper wakes in a world that went on."""
        self.cluster.pause(name)
        time.sleep(self.cluster.lease_s * rng.choice((0.05, 0.8, 1.0, 1.5, 3.0)))
        self.cluster.go_on(name)

    def _pause_storage(self, rng: random.Random) -> None:
        self._pause(rng.choice(self.cluster.storages), rng)

    # ---- cuts ----

    def _isolate(self, host: str, rng: random.Random) -> None:
        for other in self._others(host):
            self._cut_both(host, other)
        self._last(rng, longest_s=2 * self.cluster.lease_s)

    def _isolate_storage(self, rng: random.Random) -> None:
        self._isolate(rng.choice(self.cluster.storages), rng)

    def _cut_one_direction(self, rng: random.Random) -> None:
        host = rng.choice(self.cluster.storages)
        outward = rng.random() < 0.5
        for other in self._others(host):
            sender, receiver = (host, other) if outward else (other, host)
            self.cluster.hosts.cut(sender, receiver)
        self._last(rng, longest_s=2 * self.cluster.lease_s)

    def _cut_pair(self, rng: random.Random) -> None:
        """Two storage servers do not see each other; everybody else sees both. mgmtd takes one of
        them out of their chains, so that work goes on although nothing is healed."""
        self._cut_both(*rng.sample(self.cluster.storages, 2))
        time.sleep(self.cluster.lease_s)
        self.goes_on()
        self._last(rng, longest_s=self.cluster.lease_s)

    def _halves(self, rng: random.Random) -> None:
        """mgmtd with some of the storage servers here, the others with meta and a mount there."""
        here = {"mgmtd", *rng.sample(self.cluster.storages, rng.randrange(1, 3))}
        there = [host for host in self._hosts() if host not in here]
        for host in here:
            for other in there:
                self._cut_both(host, other)
        self._last(rng, longest_s=2 * self.cluster.lease_s)

    def _cut_both(self, host: str, other: str) -> None:
        self.cluster.hosts.cut(host, other)
        self.cluster.hosts.cut(other, host)

    def _hosts(self) -> list[str]:
        return [h for h in Cluster.host_names(len(self.cluster.storages)) if h != CONTROL]

    def _others(self, host: str) -> list[str]:
        return [other for other in self._hosts() if other != host]

    def _last(self, rng: random.Random, *, longest_s: float) -> None:
        time.sleep(rng.random() * longest_s)
