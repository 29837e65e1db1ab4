"""Plans, shrinking and determinism of the simulator."""

import os
import subprocess
import sys

import pytest

from tests.sim.bugs_table import PLANTED
from tests.sim.cluster import simulate
from tests.sim.ledger import Violation
from tests.sim.plan import Plan
from tests.sim.shrink import command, shrink
from tests.sim.strikes import STRIKES


def test_a_plan_prints_all_that_was_drawn_and_takes_changes_by_name():
    plan = Plan.draw(7)
    changed = plan.changed({"clients": "1", "loss": "0.5", "nodes": "5", "strikes": "kill,pause"})
    assert (changed.load.clients, changed.network.loss, changed.nodes) == (1, 0.5, 5)
    assert set(changed.strikes) == {"kill", "pause"}
    text = str(changed)
    for part in ("clients=1", "loss=0.5", "nodes=5", "kill/", "managers=", "stall=", "unknown="):
        assert part in text
    assert changed.load.chunks == plan.load.chunks


@pytest.mark.parametrize("changes", [{"cleints": "1"}, {"strikes": "nothing"}, {"mix": "1"}])
def test_an_unknown_name_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Plan.draw(1).changed(changes)


def test_every_kind_of_fault_is_drawn():
    drawn = {kind for seed in range(1, 301) for kind in Plan.draw(seed).strikes}
    assert drawn == STRIKES.keys()


def test_shrinking_keeps_the_failure_and_takes_things_away():
    bug = PLANTED["done-before-the-last-chunk"]
    with pytest.raises(Violation) as failure:
        simulate(1, bug())
    rule = failure.value.rule
    changes = shrink(1, rule, bug, runs_max=12)
    assert changes
    with pytest.raises(Violation, match=rule):
        simulate(1, bug(), changes=changes)
    assert all(f"--set {name}={value}" in command(1, changes) for name, value in changes.items())


def test_a_seed_leaves_the_same_trace_whatever_the_hashes_are():
    traces = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim.run", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    ]
    assert "fingerprint" in traces[0]
    assert traces[0] == traces[1]
