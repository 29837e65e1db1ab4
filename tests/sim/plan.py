"""What a seed brings: the shape of the cluster, its load, and which faults. Drawn before the run.

Swarm: most kinds of faults are off in most runs, and what is on has its own rate, so that rare
combinations get whole runs for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random

from tests.sim.disk import DiskFaults
from tests.sim.loop import MS, S
from tests.sim.network import NetworkFaults
from tests.sim.store import StoreFaults
from tests.sim.strikes import STRIKES
from tests.sim.strikes_aimed import AIMED

__all__ = ["Load", "Plan"]


@dataclass(frozen=True, slots=True)
class Load:
    clients: int
    channels: int
    chains: int
    chunks: int
    mix: tuple[float, float, float, float]  # write, read, truncate, remove
    think_ns: int
    deadline_ns: int
    duration_ns: int
    call_ns: int = S  # how long an attempt waits: the longer, the later an answer that still counts


@dataclass(frozen=True, slots=True)
class Plan:
    nodes: int
    replicas: int
    managers: int
    lease_ns: int
    load: Load
    network: NetworkFaults
    disk: DiskFaults
    store: StoreFaults
    drift: float
    strikes: dict[str, int] = field(default_factory=dict)  # kind -> mean interval, ns
    strikes_max: int = 1000  # then the nemesis rests
    engine: bool = False  # the chunk engine itself under the servers, instead of its model

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """Each part from a stream of its own, so that a new kind of fault leaves the rest of a
        seed as it was."""
        random = Random(f"shape {seed}")
        nodes = random.choice((3, 3, 3, 4, 5))
        lease_ns = random.choice((2, 2, 3, 4)) * S
        return cls(
            nodes=nodes,
            replicas=min(nodes, random.choice((1, 2, 2, 3, 3, 3, 3, 4))),
            managers=random.choice((1, 1, 2, 3)),
            lease_ns=lease_ns,
            load=_draw_load(Random(f"load {seed}")),
            network=_draw_network(Random(f"network {seed}"), lease_ns),
            disk=_draw_disk(Random(f"disk {seed}")),
            store=_draw_store(Random(f"store {seed}")),
            drift=random.choice((0.0, 0.01)),
            strikes=_draw_strikes(seed),
        )

    def changed(self, changes: Mapping[str, str]) -> Plan:
        """With some values set by hand, as `clients=1 strikes=kill,pause loss=0`. Raises ValueError
        that names what is unknown."""
        plan = self
        for name, text in changes.items():
            if name == "strikes":
                kept = {kind: plan.strikes.get(kind, S) for kind in text.split(",") if kind}
                known = {**STRIKES, **AIMED}
                if not kept.keys() <= known.keys():
                    raise ValueError(f"strikes={text}: there are {', '.join(sorted(known))}")
                plan = replace(plan, strikes=kept)
                continue
            plan = _with_number(plan, name, text)
        return plan

    def __str__(self) -> str:
        parts = [
            f"{f.name}={_shown(f.name, getattr(self, f.name))}"
            for f in fields(self)
            if f.name not in ("load", "network", "disk", "store", "strikes", "strikes_max")
        ]
        for part in (self.load, self.network, self.disk, self.store):
            parts += [f"{f.name}={_shown(f.name, getattr(part, f.name))}" for f in fields(part)]
        strikes = " ".join(f"{kind}/{every / S:.1f}s" for kind, every in self.strikes.items())
        return f"{' '.join(parts)} strikes: {strikes or 'none'}"


def _with_number(plan: Plan, name: str, text: str) -> Plan:
    for part in ("", "load", "network", "disk", "store"):
        holder = getattr(plan, part) if part else plan
        if name in {f.name for f in fields(holder)} and not isinstance(
            old := getattr(holder, name), (dict, tuple)
        ):
            changed = replace(holder, **{name: type(old)(float(text))})
            return replace(plan, **{part: changed}) if part else changed
    raise ValueError(f"{name}: no number of a plan has this name; the first line of a run shows it")


def _shown(name: str, value: object) -> str:
    if name.endswith("_ns") and isinstance(value, int):
        return f"{value / S:g}s"
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value)


def _draw_strikes(seed: int) -> dict[str, int]:
    count = Random(f"strikes {seed}").choice((1, 1, 2, 2, 3, 4))
    drawn = {kind: Random(f"{kind} {seed}") for kind in STRIKES}
    ranked = sorted(drawn, key=lambda kind: drawn[kind].random())
    return {kind: drawn[kind].randrange(700, 4000) * MS for kind in sorted(ranked[:count])}


def _draw_disk(random: Random) -> DiskFaults:
    return DiskFaults(random.choice((0.0, 0.0, 0.0, 0.01, 0.05)), random.choice((1, 3, 5)) * S)


def _draw_store(random: Random) -> StoreFaults:
    return StoreFaults(random.choice((0.0, 0.0, 0.1)), random.choice((0.0, 0.0, 0.1)))


def _draw_load(random: Random) -> Load:
    return Load(
        clients=random.randrange(1, 6),
        channels=random.randrange(1, 3),
        chains=random.choice((1, 1, 2, 3)),
        chunks=random.randrange(1, 6),
        mix=random.choice(((5, 5, 1, 0), (5, 5, 1, 1), (8, 2, 0, 0), (3, 6, 1, 1), (4, 3, 1, 2))),
        think_ns=random.choice((20, 100, 400)) * MS,
        deadline_ns=random.choice((2, 8, 20)) * S,
        duration_ns=random.randrange(6, 14) * S,
        call_ns=random.choice((1, 1, 6)) * S,
    )


def _draw_network(random: Random, lease_ns: int) -> NetworkFaults:
    def rate(*choices: float) -> float:
        return random.choice((0.0, 0.0, *choices))

    return NetworkFaults(
        loss=rate(0.01, 0.05, 0.3),
        duplicate=rate(0.02, 0.2, 0.5),
        slow=rate(0.05, 0.2),
        slow_ns=random.choice((50, 300, 2000)) * MS,
        late=rate(0.005, 0.03),
        late_ns=10 * lease_ns,
        reset=rate(0.01, 0.1),
    )
