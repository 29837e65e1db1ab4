"""The linearizability check of the nemesis' registers: every valid history passes, planted faults
do not."""

import random
from dataclasses import replace

import pytest

from tests.nemesis.registers import INITIAL, NEVER, Operation, violation


def history(seed: int, clients: int = 4, operations: int = 60) -> list[Operation]:
    """A valid one: every operation takes effect at a moment between its begin and its end."""
    rng = random.Random(seed)
    planned = []
    for client in range(clients):
        now_s = rng.random()
        for number in range(operations):
            begin_s = now_s + rng.random()
            now_s = begin_s + rng.random()
            effect_s = rng.uniform(begin_s, now_s)
            write = rng.random() < 0.5
            value = client * operations + number + 1 if write else INITIAL
            operation = Operation(rng.randrange(3), write, value, begin_s, now_s, f"c{client}")
            planned.append((effect_s, operation))
    contents: dict[int, int] = {}
    result = []
    for _, operation in sorted(planned, key=lambda pair: pair[0]):
        if operation.write:
            contents[operation.register] = operation.value
            result.append(operation)
        else:
            value = contents.get(operation.register, INITIAL)
            result.append(replace(operation, value=value))
    return result


@pytest.mark.parametrize("seed", range(30))
def test_valid_histories_pass(seed: int) -> None:
    assert violation(history(seed)) == ""


@pytest.mark.parametrize("seed", range(30))
def test_writes_of_unknown_outcome_may_have_happened_or_not(seed: int) -> None:
    rng = random.Random(seed)
    operations = history(seed)
    read = {(o.register, o.value) for o in operations if not o.write}
    unknown = [replace(o, end_s=NEVER) if o.write and rng.random() < 0.1 else o for o in operations]
    assert violation(unknown) == ""
    never_read = [o for o in unknown if o.end_s == NEVER and (o.register, o.value) not in read]
    assert violation([o for o in unknown if o not in never_read]) == ""


def test_stale_reads_are_caught() -> None:
    """A read that begins after everything else of its register, and returns an overwritten value
    whose successor was acknowledged before."""
    caught = 0
    for seed in range(30):
        operations = history(seed)
        writes = sorted((o for o in operations if o.register == 0 and o.write), key=_begin)
        overwritten = next(w for w in writes if any(x.begin_s > w.end_s for x in writes))
        late_s = max(o.end_s for o in operations) + 1
        stale = Operation(0, False, overwritten.value, late_s, late_s + 1, "late")
        caught += bool(violation([*operations, stale]))
    assert caught == 30


def test_a_value_that_comes_back_is_caught() -> None:
    first = Operation(0, True, 1, 1.0, 2.0, "a")
    second = Operation(0, True, 2, 3.0, 4.0, "a")
    read_new = Operation(0, False, 2, 3.1, 3.2, "b")
    read_old = Operation(0, False, 1, 3.3, 3.4, "c")
    assert violation([first, second, read_new]) == ""
    assert violation([first, second, read_old]) == ""
    assert violation([first, second, read_new, read_old]) != ""


def test_values_nobody_wrote_and_reads_before_the_write_are_caught() -> None:
    assert "nobody wrote" in violation([Operation(0, False, 7, 1.0, 2.0, "a")])
    early = [Operation(0, False, 7, 1.0, 2.0, "a"), Operation(0, True, 7, 3.0, 4.0, "b")]
    assert "before it was written" in violation(early)


def _begin(operation: Operation) -> float:
    return operation.begin_s
