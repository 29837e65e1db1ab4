"""What every engine of fs3.kv must do. A test module subclasses Conformance and gives it
`make_store`.

The oracle of the property tests is a dictionary. Fixed scenarios check the histories that matter:
lost update, write skew, phantoms, reads of one version, atomicity of a batch.
"""

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fs3 import limits
from fs3.errors import BadRequest, Conflict
from fs3.kv.api import KEY_END, KeyValueStore, Transaction, transact

ALL = (b"", KEY_END)
KEYS = st.sampled_from([b"a", b"a\x00", b"ab", b"b", b"b\xff", b"c", b"d", b"dd", b"e"])
VALUES = st.binary(max_size=6)
STEP = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("clear"), KEYS),
    st.tuples(st.just("clear_range"), KEYS, KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("range"), KEYS, KEYS, st.integers(0, 4), st.booleans()),
)


def apply_step(transaction: Transaction, model: dict[bytes, bytes], step: tuple) -> None:
    """One step on both; every read is compared."""
    match step:
        case ("set", key, value):
            transaction.set(key, value)
            model[key] = value
        case ("clear", key):
            transaction.clear(key)
            model.pop(key, None)
        case ("clear_range", begin, end):
            transaction.clear_range(begin, end)
            for key in [k for k in model if begin <= k < end]:
                del model[key]
        case ("get", key):
            assert transaction.get(key) == model.get(key)
        case ("range", begin, end, limit, reverse):
            pairs = sorted((k, v) for k, v in model.items() if begin <= k < end)
            if reverse:
                pairs.reverse()
            expected = pairs[:limit] if limit else pairs
            assert transaction.get_range(begin, end, limit=limit, reverse=reverse) == expected


def contents(store: KeyValueStore) -> dict[bytes, bytes]:
    return dict(transact(store, lambda t: t.get_range(*ALL)))


def fill(store: KeyValueStore, **pairs: bytes) -> None:
    def write(transaction: Transaction) -> None:
        for key, value in pairs.items():
            transaction.set(key.encode(), value)

    transact(store, write)


class Conformance:
    EXAMPLES = 120  # of each property; fewer where a transaction costs round trips

    def make_store(self) -> KeyValueStore:
        """An empty store. Closed by the fixture."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterator[KeyValueStore]:
        store = self.make_store()
        yield store
        store.close()

    def check(self, **strategies: st.SearchStrategy) -> Callable[[Callable[..., None]], None]:
        """Runs the decorated property at once."""
        chosen = settings(
            deadline=None,
            max_examples=self.EXAMPLES,
            suppress_health_check=[HealthCheck.too_slow],
        )
        return lambda function: chosen(given(**strategies)(function))()

    # -- one transaction ---------------------------------------------------------------------

    def test_serial_transactions_equal_a_dictionary(self, store):
        @self.check(
            transactions=st.lists(st.tuples(st.booleans(), st.lists(STEP, max_size=12)), max_size=6)
        )
        def _(transactions):
            self._check_transactions(store, transactions)

    @staticmethod
    def _check_transactions(store, transactions):
        transact(store, lambda t: t.clear_range(*ALL))
        model: dict[bytes, bytes] = {}
        for commits, steps in transactions:
            attempt = dict(model)
            transaction = store.begin()
            for step in steps:
                apply_step(transaction, attempt, step)
            if commits:
                transaction.commit()
                model = attempt
            else:
                transaction.cancel()
            assert contents(store) == model

    def test_batches_equal_a_dictionary(self, store):
        @self.check(
            batches=st.lists(st.lists(st.tuples(st.booleans(), st.lists(STEP, max_size=8))))
        )
        def _(batches):
            self._check_batches(store, batches)

    def _check_batches(self, store, batches):
        transact(store, lambda t: t.clear_range(*ALL))
        model: dict[bytes, bytes] = {}
        for batch in batches:
            outcomes = store.run_batch([self._operation(model, fails, s) for fails, s in batch])
            for (fails, _), outcome in zip(batch, outcomes, strict=True):
                assert isinstance(outcome, KeyError) if fails else outcome == "done"
            assert contents(store) == model

    @staticmethod
    def _operation(model, fails, steps):
        def operation(transaction: Transaction) -> str:
            attempt = dict(model)
            for step in steps:
                apply_step(transaction, attempt, step)
            if fails:
                raise KeyError("planned")
            model.clear()
            model.update(attempt)
            return "done"

        return operation

    def test_an_open_transaction_keeps_reading_its_version(self, store):
        @self.check(
            before=st.lists(STEP, max_size=8),
            during=st.lists(st.lists(STEP, max_size=5), max_size=4),
            by_batch=st.booleans(),
        )
        def _(before, during, by_batch):
            self._check_versions(store, before, during, by_batch)

    def _check_versions(self, store, before, during, by_batch):
        transact(store, lambda t: t.clear_range(*ALL))
        old: dict[bytes, bytes] = {}
        transact(store, lambda t: [apply_step(t, old, step) for step in before])
        reader = store.begin()
        now = dict(old)
        for steps in during:
            if by_batch:
                store.run_batch([self._operation(now, False, steps)])
            else:
                transact(store, lambda t, s=steps: [apply_step(t, now, step) for step in s])
            assert dict(reader.get_range(*ALL)) == old
            assert reader.get_range(*ALL, reverse=True) == sorted(old.items(), reverse=True)
            assert all(reader.get(key) == old.get(key) for key in [b"a", b"b", b"c", b"d"])
        reader.cancel()
        assert contents(store) == now

    def test_long_ranges_are_whole_in_both_directions(self, store):
        pairs = [(b"%05d" % i, b"v%d" % i) for i in range(1500)]
        store.run_batch([lambda t, p=p: t.set(*p) for p in pairs])
        reader = store.begin()
        transact(store, lambda t: t.clear_range(b"00100", b"01400"))
        assert reader.get_range(*ALL) == pairs
        assert reader.get_range(*ALL, reverse=True) == pairs[::-1]
        assert reader.get_range(b"00200", b"00900", limit=600, reverse=True) == pairs[899:299:-1]
        reader.cancel()

    def test_an_empty_or_reversed_range_is_empty(self, store):
        fill(store, a=b"1")
        transaction = store.begin()
        assert transaction.get_range(b"a", b"a") == []
        assert transaction.get_range(b"b", b"a") == []
        transaction.clear_range(b"b", b"a")
        transaction.commit()
        assert contents(store) == {b"a": b"1"}

    def test_set_after_clear_range_stays(self, store):
        fill(store, a=b"1", b=b"2")

        def replace(transaction):
            transaction.clear_range(*ALL)
            transaction.set(b"b", b"3")
            assert transaction.get(b"a") is None

        transact(store, replace)
        assert contents(store) == {b"b": b"3"}

    def test_keys_outside_the_space_are_refused(self, store):
        transaction = store.begin()
        for key in (b"", KEY_END, KEY_END + b"x"):
            with pytest.raises(ValueError):
                transaction.set(key, b"")
            with pytest.raises(ValueError):
                transaction.clear(key)
        transaction.cancel()

    def test_an_ended_transaction_refuses_every_call(self, store):
        for end in ("commit", "cancel"):
            transaction = store.begin()
            transaction.set(b"k", b"v")
            getattr(transaction, end)()
            transaction.cancel()  # idempotent
            for call in (
                lambda t: t.get(b"k"),
                lambda t: t.get_range(*ALL),
                lambda t: t.set(b"k", b""),
                lambda t: t.clear(b"k"),
                lambda t: t.clear_range(*ALL),
                lambda t: t.commit(),
            ):
                with pytest.raises(ValueError):
                    call(transaction)

    def test_too_much_in_one_transaction_is_refused_whole(self, store):
        value = bytes(1 << 20)

        def too_many_bytes(transaction):
            for i in range(11):
                transaction.set(b"%d" % i, value)

        with pytest.raises(BadRequest, match="bytes"):
            transact(store, too_many_bytes)
        ((outcome, fine)) = store.run_batch([too_many_bytes, lambda t: t.set(b"ok", b"")])
        assert isinstance(outcome, BadRequest)
        assert fine is None
        assert contents(store) == {b"ok": b""}
        assert limits.TRANSACTION_BYTES_MAX == 10 << 20

    # -- two transactions --------------------------------------------------------------------

    def test_versions_grow(self, store):
        versions = []
        for i in range(5):
            transaction = store.begin()
            transaction.set(b"k", b"%d" % i)
            versions.append(transaction.commit())
        assert versions == sorted(set(versions))

    def test_lost_update_is_refused(self, store):
        fill(store, n=b"0")
        first, second = store.begin(), store.begin()
        for transaction in (first, second):
            transaction.set(b"n", transaction.get(b"n") + b"+")
        first.commit()
        with pytest.raises(Conflict):
            second.commit()
        assert contents(store) == {b"n": b"0+"}

    def test_write_skew_is_refused(self, store):
        fill(store, a=b"1", b=b"1")
        first, second = store.begin(), store.begin()
        for transaction, mine in ((first, b"a"), (second, b"b")):
            if sum(v == b"1" for _, v in transaction.get_range(*ALL)) > 1:
                transaction.set(mine, b"0")
        first.commit()
        with pytest.raises(Conflict):
            second.commit()

    def test_a_phantom_in_a_range_conflicts(self, store):
        for write in (
            lambda t: t.set(b"m5", b""),
            lambda t: t.clear(b"m1"),
            lambda t: t.clear_range(b"m0", b"m2"),
            lambda t: t.add_write_conflict_range(b"m3", b"m4"),
        ):
            fill(store, m1=b"1")
            reader = store.begin()
            reader.get_range(b"m", b"n")
            reader.set(b"out", b"")
            transact(store, write)
            with pytest.raises(Conflict):
                reader.commit()

    def test_a_phantom_in_an_empty_range_conflicts(self, store):
        reader = store.begin()
        assert reader.get_range(b"m", b"n") == []
        reader.set(b"out", b"")
        fill(store, m=b"1")
        with pytest.raises(Conflict):
            reader.commit()

    def test_a_missing_key_conflicts_when_it_appears(self, store):
        for write in (lambda t: t.set(b"k", b""), lambda t: t.clear_range(b"a", b"z")):
            reader = store.begin()
            reader.get(b"k")
            reader.set(b"out", b"")
            transact(store, write)
            with pytest.raises(Conflict):
                reader.commit()

    def test_beyond_the_limit_of_a_read_nothing_conflicts(self, store):
        for reverse, beyond, inside in ((False, b"k4", b"k2"), (True, b"k1", b"k3")):
            fill(store, k1=b"", k2=b"", k3=b"", k4=b"")
            for key, refused in ((beyond, False), (inside, True)):
                reader = store.begin()
                assert len(reader.get_range(b"k", b"l", limit=2, reverse=reverse)) == 2
                reader.set(b"out", b"")
                transact(store, lambda t, key=key: t.set(key, b"new"))
                if refused:
                    with pytest.raises(Conflict):
                        reader.commit()
                else:
                    reader.commit()

    def test_snapshot_reads_never_conflict(self, store):
        fill(store, k=b"1")
        reader = store.begin()
        assert reader.get(b"k", snapshot=True) == b"1"
        assert reader.get_range(*ALL, snapshot=True) == [(b"k", b"1")]
        reader.set(b"out", b"")
        fill(store, k=b"2", m=b"3")
        assert reader.get(b"k", snapshot=True) == b"1"
        reader.commit()

    def test_an_added_read_conflict_range_conflicts(self, store):
        reader = store.begin()
        reader.add_read_conflict_range(b"k", b"l")
        reader.set(b"out", b"")
        fill(store, k=b"2")
        with pytest.raises(Conflict):
            reader.commit()

    def test_own_writes_are_no_conflict(self, store):
        transaction = store.begin()
        transaction.set(b"k", b"1")
        assert transaction.get(b"k") == b"1"
        transaction.commit()

    def test_reading_only_never_conflicts(self, store):
        fill(store, k=b"1")
        reader = store.begin()
        assert reader.get(b"k") == b"1"
        fill(store, k=b"2")
        assert reader.get(b"k") == b"1"
        reader.commit()

    def test_a_batch_conflicts_with_an_open_transaction(self, store):
        fill(store, k=b"1")
        reader = store.begin()
        reader.get(b"k")
        reader.set(b"out", b"")
        store.run_batch([lambda t: t.set(b"k", b"2")])
        assert reader.get(b"k") == b"1"
        with pytest.raises(Conflict):
            reader.commit()

    def test_operations_of_a_batch_cannot_commit(self, store):
        outcomes = store.run_batch([lambda t: t.commit(), lambda t: t.cancel()])
        assert [type(o) for o in outcomes] == [ValueError, ValueError]

    # -- many threads ------------------------------------------------------------------------

    def test_bank_total_is_kept(self, store):
        """Transfers by optimistic transactions and by batches; readers always see the same
        total."""
        accounts = [b"acct%02d" % i for i in range(8)]
        store.run_batch([lambda t, a=a: t.set(a, b"100") for a in accounts])

        def transfer(source: bytes, target: bytes, amount: int):
            def operation(transaction: Transaction) -> None:
                have = int(transaction.get(source))
                if have < amount or source == target:
                    return
                transaction.set(source, b"%d" % (have - amount))
                transaction.set(target, b"%d" % (int(transaction.get(target)) + amount))

            return operation

        def total(transaction: Transaction) -> int:
            return sum(int(v) for _, v in transaction.get_range(b"acct", b"accu"))

        def work(seed: int) -> None:
            for i in range(60):
                source, target = accounts[(seed + i) % 8], accounts[(seed * 3 + i * 5) % 8]
                if seed % 2:
                    transact(store, transfer(source, target, i % 40), retries=10_000)
                else:
                    store.run_batch([transfer(source, target, i % 40)] * 3)
                totals.append(transact(store, total))

        totals: list[int] = []
        run_threads(work, 4)
        assert set(totals) == {800}

    def test_cycle_stays_a_cycle(self, store):
        """FoundationDB's Cycle: a permutation ring whose links are swapped by concurrent
        transactions."""
        size = 12
        key = b"ring%02d"
        store.run_batch(
            [lambda t, i=i: t.set(key % i, b"%d" % ((i + 1) % size)) for i in range(size)]
        )

        def swap(start: int):
            def operation(transaction: Transaction) -> None:
                first = int(transaction.get(key % start))
                second = int(transaction.get(key % first))
                third = int(transaction.get(key % second))
                transaction.set(key % start, b"%d" % second)
                transaction.set(key % second, b"%d" % first)
                transaction.set(key % first, b"%d" % third)

            return operation

        def work(seed: int) -> None:
            for i in range(60):
                operation = swap((seed * 7 + i * 5) % size)
                if seed == 0:
                    store.run_batch([operation])
                else:
                    transact(store, operation, retries=10_000)

        run_threads(work, 4)
        ring = transact(store, lambda t: [int(v) for _, v in t.get_range(b"ring", b"rinh")])
        seen, at = [], 0
        for _ in range(size):
            seen.append(at)
            at = ring[at]
        assert at == 0
        assert sorted(seen) == list(range(size))

    def test_a_closed_store_refuses(self, store):
        transaction = store.begin()
        store.close()
        store.close()
        with pytest.raises(ValueError):
            transaction.get(b"k")
        with pytest.raises(OSError):
            store.begin()
        with pytest.raises(OSError):
            store.run_batch([lambda t: t.get(b"k")])


def run_threads(work, count: int) -> None:
    failures: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
