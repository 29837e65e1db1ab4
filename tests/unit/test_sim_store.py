"""The store of the simulator: an engine like the others while nothing goes wrong, and what its
faults leave behind."""

from collections import Counter
from random import Random

import pytest
from conformance_kv import Conformance, contents, fill

from fs3.errors import OutcomeUnknown, RetryElsewhere
from fs3.kv.api import transact
from tests.sim.store import FaultyStore, StoreFaults


class TestFaultyStore(Conformance):
    def make_store(self):
        return _Closing()


class _Closing(FaultyStore):
    """It outlives its users; the suite wants to see it closed."""

    def __init__(self) -> None:
        super().__init__(Random(1), Counter())

    def close(self) -> None:
        self.inner.close()


def faulty(**faults: float) -> FaultyStore:
    store = FaultyStore(Random(7), Counter())
    store.faults = StoreFaults(**faults)
    return store


def test_an_unknown_commit_happened_or_did_not():
    store = faulty(unknown=1.0)
    there = 0
    for number in range(100):
        key = b"%d" % number
        with pytest.raises(OutcomeUnknown):
            transact(store, lambda txn, key=key: txn.set(key, b"1"))
        there += key in contents(store.inner)
    assert 20 < there < 80


def test_a_batch_is_lost_whole_or_there_whole():
    store = faulty(unknown=1.0)
    seen = set()
    for number in range(50):
        keys = [b"%d/%d" % (number, i) for i in range(3)]
        with pytest.raises(OutcomeUnknown):
            store.run_batch([lambda txn, key=key: txn.set(key, b"1") for key in keys])
        seen.add(sum(key in contents(store.inner) for key in keys))
    assert seen == {0, 3}


def test_a_conflict_runs_the_operation_again_and_leaves_nothing_of_the_attempt():
    store = faulty(conflict=1.0)
    fill(store.inner, counter=b"\0")
    attempts = []

    def count(txn):
        attempts.append(1)
        txn.set(b"counter", bytes([txn.get(b"counter")[0] + 1]))

    store.run_batch([count, count])
    assert contents(store.inner) == {b"counter": b"\2"}
    assert len(attempts) == 4


def test_a_store_that_is_away_refuses():
    store = faulty()
    store.down = True
    with pytest.raises(RetryElsewhere):
        store.begin()
    with pytest.raises(RetryElsewhere):
        store.run_batch([])


def test_the_observer_sees_what_was_applied_and_nothing_else():
    store = faulty(unknown=0.5)
    seen = []
    store.observer = lambda operations, results: seen.extend(results)
    for number in range(50):
        key = b"%d" % number

        def write(txn, key=key):
            txn.set(key, b"1")
            return key

        try:
            store.run_batch([write])
        except OutcomeUnknown:
            continue
    assert sorted(seen) == sorted(contents(store.inner))
