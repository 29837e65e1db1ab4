"""The reference engine."""

from conformance_kv import Conformance, contents, fill

from fs3.kv.memory import MemoryStore


class TestMemoryStore(Conformance):
    def make_store(self):
        return MemoryStore()


def test_a_copy_has_what_was_committed_and_goes_its_own_way():
    store = MemoryStore()
    fill(store, a=b"1", b=b"2")
    open_transaction = store.begin()
    open_transaction.set(b"c", b"3")
    copy = store.copy()
    fill(store, a=b"9")
    assert contents(copy) == {b"a": b"1", b"b": b"2"}
    fill(copy, a=b"5")
    assert contents(store) == {b"a": b"9", b"b": b"2"}


def test_old_versions_go_when_nobody_reads_them():
    store = MemoryStore()
    reader = store.begin()
    for i in range(20):
        fill(store, k=b"%d" % i)
    assert len(store._histories[b"k"]) == 20
    reader.cancel()
    fill(store, k=b"last")
    assert store._histories[b"k"] == [(21, b"last")]
    assert len(store._window) == 0
