"""The witness check: valid histories pass, and each kind of damage is named by its invariant."""

from dataclasses import replace
from random import Random

import pytest
from sim_histories import atomic_history, mixed_read, stale_read

from tests.sim import witness
from tests.sim.ledger import Violation


def history_of(seed: int, **options):
    return atomic_history(seed, clients=4, operations=60, unknown=0.05, mix=(5, 5, 1, 1), **options)


@pytest.mark.parametrize("seed", range(20))
def test_valid_histories_pass(seed):
    operations, history = history_of(seed)
    witness.check(operations, history)


@pytest.mark.parametrize("seed", range(50))
def test_a_planted_stale_read_is_caught(seed):
    operations, history = history_of(seed)
    assert stale_read(operations, Random(seed))
    with pytest.raises(Violation, match="I3"):
        witness.check(operations, history)


def test_a_read_of_two_versions_is_caught():
    planted = 0
    for seed in range(20):
        operations, history = history_of(seed)
        if mixed_read(operations, Random(seed)):
            planted += 1
            with pytest.raises(Violation, match="I4"):
                witness.check(operations, history)
    assert planted >= 10


def acknowledged(operations, kind="write"):
    return next(o for o in operations[20:] if o.kind == kind and o.ok)


def test_a_lost_update_is_caught():
    operations, history = history_of(1)
    lost = next(s for s in reversed(history) if _of(operations, s).ok)
    with pytest.raises(Violation, match=r"I1|I4"):
        witness.check(operations, [step for step in history if step is not lost])


def test_a_lost_last_update_is_caught_though_the_rest_fits():
    operations, history = history_of(1)
    while not _of(operations, history[-1]).ok:
        history.pop()
    updates = [o for o in operations if o.kind != "read"]
    with pytest.raises(Violation, match="I1"):
        witness.check(updates, history[:-1])


def test_an_update_applied_twice_is_caught():
    operations, history = history_of(2)
    position = 1, history[-1].position[1] + 1
    with pytest.raises(Violation, match="I10"):
        witness.check(operations, [*history, replace(history[5], position=position)])


def test_other_bytes_than_asked_for_are_caught():
    operations, history = history_of(3)
    history[10] = replace(history[10], content=b"x" * 8)
    with pytest.raises(Violation, match="I4"):
        witness.check(operations, history)


def test_an_update_that_nobody_asked_for_is_caught():
    operations, history = history_of(4)
    stranger = bytes(16), 9, 9
    history.append(witness.Applied((2, 1), stranger, b""))
    with pytest.raises(Violation, match="I4"):
        witness.check(operations, history)


def test_an_acknowledgement_of_another_version_is_caught():
    operations, history = history_of(5)
    acknowledged(operations).version += 1
    with pytest.raises(Violation, match="I2"):
        witness.check(operations, history)


def test_a_history_out_of_order_is_caught():
    operations, history = history_of(6)
    history[3], history[4] = history[4], history[3]
    with pytest.raises(Violation, match="I5"):
        witness.check(operations, history)


def test_an_update_behind_an_earlier_one_is_caught():
    operations, history = history_of(7)
    writes = [o for o in operations if o.kind != "read" and o.ok]
    last = max(writes, key=lambda o: o.version)
    shift = last.ended_ns + 1
    first = min(writes, key=lambda o: o.version)
    first.began_ns, first.ended_ns = shift, shift + 1
    with pytest.raises(Violation, match="I2"):
        witness.check(operations, history)


def _of(operations, step):
    return next(o for o in operations if o.identity == step.identity)
