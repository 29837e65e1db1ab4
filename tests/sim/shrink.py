"""Makes a failing seed smaller: fewer faults, clients, chunks, seconds, while the same rule breaks.

Greedy and bounded: one change after another is kept when the run still fails. The result is the
seed with values set by hand, as `--seed 7 --set clients=1 --set strikes=kill`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from tests.sim.bugs import Bugs
from tests.sim.cluster import simulate
from tests.sim.ledger import Violation
from tests.sim.loop import S
from tests.sim.plan import Plan

__all__ = ["command", "shrink"]

RUNS_MAX = 120
Changes = dict[str, str]


def shrink(
    seed: int,
    rule: str,
    bugs: Callable[[], Bugs] = Bugs,
    runs_max: int = RUNS_MAX,
    begin: Mapping[str, str] = MappingProxyType({}),
) -> Changes:
    """What has to be set so that the seed still breaks `rule`, with what it began with; that alone
    when nothing can go."""
    changes: Changes = dict(begin)
    runs = 0
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(Plan.draw(seed).changed(changes)):
            if runs == runs_max:
                return changes
            runs += 1
            if _fails(seed, {**changes, **candidate}, rule, bugs):
                changes = {**changes, **candidate}
                smaller = True
                break
    return changes


def command(seed: int, changes: Changes) -> str:
    settings = "".join(f" --set {name}={value}" for name, value in changes.items())
    return f"tests/run sim --seed {seed}{settings} --trace"


def _fails(seed: int, changes: Changes, rule: str, bugs: Callable[[], Bugs]) -> bool:
    try:
        simulate(seed, bugs(), changes=changes)
    except Violation as violation:
        return violation.rule == rule
    return False


def _candidates(plan: Plan) -> Iterator[Changes]:
    """From what helps a reader most to what helps least; only values that would change."""
    kinds = list(plan.strikes)
    for kind in kinds:
        yield {"strikes": ",".join(other for other in kinds if other != kind)}
    if kinds and plan.strikes_max > 1:
        yield {"strikes_max": str(1 if plan.strikes_max > 64 else plan.strikes_max // 2)}
        for most in (2, 4, 8, 16):
            if most < plan.strikes_max:
                yield {"strikes_max": str(most)}
    for name in ("loss", "duplicate", "late", "reset", "conflict", "unknown", "drift"):
        holder = next(part for part in (plan, plan.network, plan.store) if hasattr(part, name))
        if getattr(holder, name):
            yield {name: "0"}
    for name, value in (
        ("clients", plan.load.clients),
        ("channels", plan.load.channels),
        ("chains", plan.load.chains),
        ("chunks", plan.load.chunks),
        ("managers", plan.managers),
    ):
        if value > 1:
            yield {name: "1"}
            yield {name: str(value - 1)}
    duration_ns = plan.load.duration_ns
    if duration_ns > S:
        yield {"duration_ns": str(duration_ns // 2)}
        yield {"duration_ns": str(duration_ns * 4 // 5)}
