"""The embedded engine: the contract, ownership, a kill at any moment, damage."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from conformance_kv import Conformance, contents, fill

from fs3.errors import Conflict, Damaged, Refused
from fs3.kv import rocksdb
from fs3.kv.rocksdb import RocksStore


class TestRocksStore(Conformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def make_store(self):
        return RocksStore(self.directory / "kv", owner="test")


def test_what_was_committed_is_there_after_reopening(tmp_path):
    store = RocksStore(tmp_path, owner="one")
    fill(store, a=b"1", b=b"2")
    version = store.version
    store.close()
    store = RocksStore(tmp_path, owner="two")
    assert contents(store) == {b"a": b"1", b"b": b"2"}
    assert store.version == version
    fill(store, a=b"3")
    assert store.version > version
    store.close()


def test_a_second_owner_is_told_who_the_first_is(tmp_path):
    store = RocksStore(tmp_path, owner="meta-1 incarnation 9f3c")
    with pytest.raises(Refused, match="incarnation 9f3c") as refused:
        RocksStore(tmp_path, owner="meta-2")
    assert str(os.getpid()) in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    store.close()
    RocksStore(tmp_path, owner="meta-2").close()


CHILD = """
import sys
from fs3.kv.rocksdb import RocksStore
store = RocksStore(sys.argv[1], owner="child")
start = int(sys.argv[2])
def operation(batch, member):
    def run(transaction):
        transaction.set(b"batch%08d/%d" % (batch, member), b"x" * 300)
        transaction.set(b"last", b"%d" % batch)
        if batch % 7 == 0:
            transaction.clear_range(b"batch%08d" % (batch - 3), b"batch%08d" % (batch - 2))
    return run
for batch in range(start, 10**8):
    store.run_batch([operation(batch, member) for member in range(5)])
    sys.stdout.write("%d\\n" % batch)
    sys.stdout.flush()
    if batch % 50 == 0:
        store.sync()
"""


def test_a_kill_loses_no_acknowledged_batch_and_leaves_none_in_part(tmp_path):
    next_batch = 4
    for acknowledged_wanted in (3, 40, 211):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "kv"), str(next_batch)],
            stdout=subprocess.PIPE,
            text=True,
        )
        acknowledged = 0
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= next_batch + acknowledged_wanted:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        acknowledged = max([acknowledged, *map(int, rest)])
        last = check_batches(tmp_path / "kv", acknowledged)
        next_batch = last + 1


def check_batches(directory, acknowledged: int) -> int:
    store = RocksStore(directory, owner="checker")
    found = contents(store)
    store.close()
    last = int(found.pop(b"last"))
    assert last in (acknowledged, acknowledged + 1)
    members: dict[int, int] = {}
    for key in found:
        batch = int(key[5:13])
        members[batch] = members.get(batch, 0) + 1
    cleared = {batch - 3 for batch in range(4, last + 1) if batch % 7 == 0}
    assert set(members) == set(range(4, last + 1)) - cleared
    assert set(members.values()) == {5}
    return last


def filled_directory(tmp_path):
    store = RocksStore(tmp_path, owner="one")
    for i in range(30):
        store.run_batch(
            [lambda t, i=i, j=j: t.set(b"%02d/%04d" % (i, j), os.urandom(200)) for j in range(50)]
        )
    store._db.flush()
    fill(store, tail=b"1")
    store.close()
    return tmp_path / "db"


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_missing_or_truncated_files_are_damage_by_the_name_of_the_directory(
    tmp_path, pattern, damage
):
    database = filled_directory(tmp_path)
    victims = sorted(database.glob(pattern))
    assert victims
    for victim in victims:
        if damage == "removed":
            victim.unlink()
        else:
            os.truncate(victim, victim.stat().st_size // 2)
    with pytest.raises(Damaged, match=str(tmp_path)):
        RocksStore(tmp_path, owner="two")


def killed_after(tmp_path, script: str):
    """Runs `script` on the store `store` in a child that is then killed; the directory it
    leaves."""
    opening = f"""
import os, signal
from fs3.kv.rocksdb import RocksStore
store = RocksStore({str(tmp_path)!r}, owner="child")
def put(key, value):
    store.run_batch([lambda t: t.set(key, value)])
"""
    code = opening + textwrap.dedent(script) + "os.kill(os.getpid(), signal.SIGKILL)\n"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (log,) = (tmp_path / "db").glob("*.log")
    return log


def test_a_log_without_synced_commits_is_damage(tmp_path):
    log = killed_after(
        tmp_path,
        """
        for i in range(30):
            put(b"k", b"%d" % i)
        store.sync()
        """,
    )
    os.truncate(log, log.stat().st_size // 2)
    with pytest.raises(Damaged, match="acknowledged commits are lost"):
        RocksStore(tmp_path, owner="two")


def test_a_torn_tail_that_was_never_synced_is_dropped_whole(tmp_path):
    log = killed_after(
        tmp_path,
        """
        put(b"a", b"1")
        store.sync()
        put(b"b", b"2")
        """,
    )
    os.truncate(log, log.stat().st_size - 3)
    store = RocksStore(tmp_path, owner="two")
    assert contents(store) == {b"a": b"1"}
    store.close()


def test_flipped_bits_in_a_table_are_found_by_the_read(tmp_path):
    database = filled_directory(tmp_path)
    table = max(database.glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    for at in range(2000, len(data) // 2, 500):
        data[at] ^= 0x10
    table.write_bytes(data)
    with pytest.raises(Damaged, match=str(tmp_path)):
        contents(RocksStore(tmp_path, owner="two"))


def test_a_foreign_format_is_refused(tmp_path):
    RocksStore(tmp_path, owner="one").close()
    (tmp_path / "FORMAT").write_bytes(b"fs3-kv 99\n")
    with pytest.raises(Damaged, match="FORMAT"):
        RocksStore(tmp_path, owner="two")


def test_a_failed_sync_stops_the_store(tmp_path, monkeypatch):
    store = RocksStore(tmp_path, owner="one")
    fill(store, a=b"1")

    def broken(version):
        raise OSError(5, "planned")

    monkeypatch.setattr(store, "_write_durable_mark", broken)
    with pytest.raises(OSError, match="planned"):
        store.sync()
    with pytest.raises(OSError, match="stopped"):
        store.begin()
    with pytest.raises(OSError, match="stopped"):
        store.run_batch([lambda t: None])
    store.close()


def test_a_transaction_that_is_too_old_conflicts(tmp_path, monkeypatch):
    monkeypatch.setattr(rocksdb, "_UNDO_KEYS_MAX", 10)
    store = RocksStore(tmp_path, owner="one")
    reader = store.begin()
    store.run_batch([lambda t, i=i: t.set(b"%d" % i, b"") for i in range(20)])
    with pytest.raises(Conflict, match="too old"):
        reader.get(b"1")
    reader.cancel()
    store.close()
