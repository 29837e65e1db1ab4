"""The black-box linearizability check: it passes what is valid, catches what is planted, decides
within its bar, and agrees with trying every order."""

import itertools
from random import Random

import pytest
from sim_histories import atomic_history, mixed_read, stale_read

from tests.sim.blackbox import FOREVER, Call, Verdict, fits, judge, settled
from tests.sim.checks import blind_call


def calls_of(operations) -> list[Call]:
    return [blind_call(operation) for operation in operations]


@pytest.mark.parametrize("seed", range(25))
def test_valid_histories_at_the_bar_pass(seed):
    operations, _ = atomic_history(seed, clients=4, operations=100, unknown=0.02)
    assert fits(settled(calls_of(operations)))
    assert judge(calls_of(operations)) is Verdict.LINEARIZABLE


@pytest.mark.parametrize("damage", [stale_read, mixed_read])
def test_planted_reads_are_caught_at_the_bar(damage):
    caught = planted = 0
    for seed in range(30):
        operations, _ = atomic_history(seed, clients=4, operations=100, unknown=0.02)
        if damage(operations, Random(seed)):
            planted += 1
            caught += judge(calls_of(operations)) is Verdict.VIOLATION
    assert planted >= 25
    assert caught == planted


def test_a_lost_write_is_caught():
    calls = [
        Call("write", 0, 10, 0, 2, value=7),
        Call("read", 11, 20, seen=()),
    ]
    assert judge(calls) is Verdict.VIOLATION


def test_a_write_without_outcome_may_happen_late_or_never():
    never = [Call("write", 0, FOREVER, 0, 1, value=7), Call("read", 5, 6, seen=())]
    late = [*never, Call("read", 7, 8, seen=(7,))]
    gone = [*late, Call("read", 9, 10, seen=())]
    assert judge(never) is Verdict.LINEARIZABLE
    assert judge(late) is Verdict.LINEARIZABLE
    assert judge(gone) is Verdict.VIOLATION


def test_a_truncate_without_outcome_may_happen_late_or_never():
    base = [Call("write", 0, 1, 0, 2, value=7), Call("truncate", 2, FOREVER, count=1)]
    assert judge([*base, Call("read", 3, 4, seen=(7, 7))]) is Verdict.LINEARIZABLE
    assert judge([*base, Call("read", 3, 4, seen=(7,))]) is Verdict.LINEARIZABLE
    both = [*base, Call("read", 3, 4, seen=(7,)), Call("read", 5, 6, seen=(7, 7))]
    assert judge(both) is Verdict.VIOLATION


def test_a_search_that_is_cut_short_says_so():
    operations, _ = atomic_history(1, clients=4, operations=100)
    assert judge(calls_of(operations), steps_max=10) is Verdict.UNDECIDED


def test_what_is_beyond_the_bar_is_told():
    operations, _ = atomic_history(1, clients=12, operations=20)
    assert not fits(settled(calls_of(operations)))


@pytest.mark.parametrize("block", range(10))
def test_it_agrees_with_trying_every_order(block):
    verdicts = set()
    for seed in range(block * 40, block * 40 + 40):
        random = Random(seed)
        calls = [_random_call(random, number + 1) for number in range(random.randrange(2, 7))]
        expected = Verdict.LINEARIZABLE if _by_brute_force(calls) else Verdict.VIOLATION
        assert judge(calls) is expected, calls
        verdicts.add(expected)
    assert len(verdicts) == 2, "the block tries both kinds of history"


def _random_call(random: Random, number: int) -> Call:
    began = random.randrange(12)
    ended = began + random.randrange(1, 6)
    kind = random.choice(("write", "write", "read", "read", "truncate", "remove"))
    if kind == "read":
        seen = tuple(random.choice((0, 1, 1, 2, 3)) for _ in range(random.randrange(3)))
        return Call(kind, began, ended, seen=seen)
    outcome = FOREVER if random.random() < 0.3 else ended
    return Call(kind, began, outcome, random.randrange(2), random.randrange(1, 3), number)


def _by_brute_force(calls: list[Call]) -> bool:
    """Every subset with all known operations, in every order that time allows."""
    known = [call for call in calls if call.ended < FOREVER]
    unknown = [call for call in calls if call.ended == FOREVER]
    for size in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, size):
            for order in itertools.permutations([*known, *chosen]):
                if _in_time(order) and _explains(order):
                    return True
    return False


def _in_time(order: tuple[Call, ...]) -> bool:
    return all(
        not later.ended < earlier.began for earlier, later in itertools.combinations(order, 2)
    )


def _explains(order: tuple[Call, ...]) -> bool:
    row: list[int] = []
    for call in order:
        if call.kind == "read":
            if tuple(row) != call.seen:
                return False
        elif call.kind == "remove":
            row = []
        elif call.kind == "truncate":
            row = [row[i] if i < len(row) else 0 for i in range(call.count)]
        else:
            row += [0] * (call.first + call.count - len(row))
            row[call.first : call.first + call.count] = [call.value] * call.count
    return True
