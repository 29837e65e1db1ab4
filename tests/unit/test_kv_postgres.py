"""The engine on PostgreSQL: the contract, two stores on one database, deaths at any moment."""

import itertools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest
from conformance_kv import Conformance, contents, fill, run_threads

from fs3.errors import BadRequest, Conflict, Damaged, Denied, Fs3Error, OutcomeUnknown, RetryLater
from fs3.kv import postgres, postgres_pool
from fs3.kv.api import transact
from fs3.kv.postgres import PostgresStore
from tests.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.new_database()


class TestPostgresStore(Conformance):
    EXAMPLES = 25

    @pytest.fixture(autouse=True)
    def _database(self, url):
        self.url = url

    def make_store(self):
        return PostgresStore(self.url, owner="test")


# ---- two stores on one database


def two_stores(url: str) -> tuple[PostgresStore, PostgresStore]:
    return PostgresStore(url, owner="one"), PostgresStore(url, owner="two")


def add_one(transaction):
    transaction.set(b"n", b"%d" % (int(transaction.get(b"n") or b"0") + 1))


def test_what_one_store_commits_the_other_reads(url):
    one, two = two_stores(url)
    fill(one, a=b"1")
    assert contents(two) == {b"a": b"1"}
    reader = two.begin()
    reader.get(b"a")
    reader.set(b"out", b"")
    one.run_batch([lambda t: t.set(b"a", b"2")])
    with pytest.raises(Conflict):
        reader.commit()
    assert two.statistics().conflicts == 1
    one.close()
    two.close()


def test_versions_grow_across_stores(url):
    stores = two_stores(url)
    versions = []
    for i in range(10):
        transaction = stores[i % 2].begin()
        transaction.set(b"%d" % i, b"")
        versions.append(transaction.commit())
    assert versions == sorted(set(versions))
    for store in stores:
        store.close()


def test_a_storm_of_batches_on_one_key_makes_progress_and_loses_nothing(url):
    stores = [PostgresStore(url, owner=str(i)) for i in range(3)]

    def work(seed: int) -> None:
        for _ in range(15):
            assert stores[seed % 3].run_batch([add_one] * 5) == [None] * 5

    run_threads(work, 6)
    assert contents(stores[0]) == {b"n": b"%d" % (6 * 15 * 5)}
    for store in stores:
        store.close()


def test_a_batch_that_always_conflicts_takes_the_turn_first(url):
    one, two = two_stores(url)
    runs = itertools.count(1)
    number = 0

    def disturbed(transaction):
        nonlocal number
        number = next(runs)
        add_one(transaction)
        if number <= postgres.OPTIMISTIC_ATTEMPTS:
            two.run_batch([add_one])

    assert one.run_batch([disturbed]) == [None]
    assert number == postgres.OPTIMISTIC_ATTEMPTS + 1
    assert contents(one) == {b"n": b"%d" % number}
    assert one.statistics().turns_first == 1
    one.close()
    two.close()


def test_an_operation_that_only_reads_does_not_conflict_in_a_batch(url):
    """Nor one that is refused: both are answered by the snapshot that they read."""
    one, two = two_stores(url)
    fill(one, seen=b"1")
    runs = 0

    def read(transaction):
        value = transaction.get(b"seen")
        two.run_batch([lambda t: t.set(b"seen", b"2")])
        return value

    def refuse(transaction):
        transaction.get_range(b"s", b"t")
        raise KeyError("planned")

    def write(transaction):
        nonlocal runs
        runs += 1
        transaction.set(b"own", b"")

    results = one.run_batch([read, refuse, write])
    assert (results[0], type(results[1]), results[2]) == (b"1", KeyError, None)
    assert runs == 1
    one.close()
    two.close()


def test_an_answer_that_rests_on_the_batch_is_checked_with_it(url):
    """b reads what a wrote, beside a key that somebody changes: both run again."""
    one, two = two_stores(url)
    fill(one, other=b"old")
    disturbances = [True]

    def write(transaction):
        transaction.set(b"mine", b"1")

    def read(transaction):
        seen = transaction.get(b"mine"), transaction.get(b"other")
        if disturbances:
            disturbances.pop()
            two.run_batch([lambda t: t.set(b"other", b"new")])
        return seen

    assert one.run_batch([write, read]) == [None, (b"1", b"new")]
    one.close()
    two.close()


# ---- tidying


def test_tombstones_go_and_a_transaction_older_than_they_is_refused(server, url):
    database = url.split("/")[3].split("?")[0]
    store = PostgresStore(url, owner="test")
    old = store.begin()
    old.set(b"late", b"")
    for i in range(5):
        fill(store, **{f"k{i}": b""})
    transact(store, lambda t: t.clear_range(b"k", b"l"))
    for _ in range(2):  # the second period takes what was there before the first
        server.execute(
            "UPDATE fs3.store SET marked_at = clock_timestamp() - interval '1 hour'", database
        )
        fill(store, tick=b"")
    fill(store, tick=b"")
    assert server.execute("SELECT count(*) FROM fs3.pairs WHERE value IS NULL", database) == [(0,)]
    assert server.execute("SELECT count(*) FROM fs3.cleared", database) == [(0,)]
    with pytest.raises(Conflict, match="too old"):
        old.commit()
    assert contents(store) == {b"tick": b""}
    store.close()


# ---- opening


def test_two_clusters_cannot_share_a_database(url):
    one, two = two_stores(url)
    one.claim(b"a" * 16)
    one.claim(b"a" * 16)
    with pytest.raises(Denied, match="belongs to cluster 6161"):
        two.claim(b"b" * 16)
    one.close()
    two.close()


def test_many_processes_may_open_a_new_database_at_once(url):
    run_threads(lambda seed: PostgresStore(url, owner=str(seed)).close(), 6)


def test_another_schema_version_is_refused(server, url):
    PostgresStore(url, owner="one").close()
    server.execute("UPDATE fs3.store SET schema = 99", url.split("/")[3].split("?")[0])
    with pytest.raises(Damaged, match="schema 99"):
        PostgresStore(url, owner="two")


def test_a_foreign_schema_of_the_name_is_refused(server, url):
    server.execute("CREATE SCHEMA fs3", url.split("/")[3].split("?")[0])
    with pytest.raises(OSError, match="use another database"):
        PostgresStore(url, owner="one")


def test_a_server_that_is_not_there_and_an_address_that_is_none(tmp_path):
    with pytest.raises(RetryLater, match="nothing was changed"):
        PostgresStore(f"postgres://u:geheim@/db?host={tmp_path}", owner="one")
    with pytest.raises(BadRequest, match="no address"):
        PostgresStore("postgres://[", owner="one")


def test_messages_do_not_tell_the_password(tmp_path):
    with pytest.raises(OSError) as refused:
        PostgresStore(f"postgres://u:geheim@/db?host={tmp_path}", owner="one")
    assert "geheim" not in str(refused.value)


def test_a_missing_driver_is_named(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadRequest, match=r"fs3-filesystem\[postgres\]"):
        PostgresStore(url, owner="one")


def test_connections_are_bounded(url, monkeypatch):
    monkeypatch.setattr(postgres_pool, "WAIT_S", 0.01)
    store = PostgresStore(url, owner="one", connections_max=2)
    first, second = store.begin(), store.begin()
    with pytest.raises(RetryLater, match="2 connections"):
        store.begin()
    first.cancel()
    store.begin().cancel()
    second.cancel()
    store.close()


# ---- deaths


def test_a_commit_whose_answer_is_lost_is_unknown_and_the_store_goes_on(url, monkeypatch):
    store = PostgresStore(url, owner="one")
    lost = store._driver.OperationalError("planned")

    def no_answer(version):
        raise lost

    monkeypatch.setattr(store, "_committed", no_answer)
    with pytest.raises(OutcomeUnknown, match="lost in COMMIT"):
        store.run_batch([add_one])
    monkeypatch.undo()
    assert contents(store) == {b"n": b"1"}
    store.close()


def test_a_backend_that_dies_before_its_commit_leaves_nothing(server, url):
    """Its turn has not come yet: the outcome is unknown to the client, and nothing happened."""
    store = PostgresStore(url, owner="victim")
    fill(store, a=b"1")
    outcome: list[object] = []

    def commit() -> None:
        try:
            outcome.append(store.run_batch([lambda t: t.set(b"a", b"2")]))
        except Fs3Error as error:
            outcome.append(error)

    with store._driver.connect(url) as holder:
        holder.execute("LOCK TABLE fs3.turn IN EXCLUSIVE MODE")
        thread = threading.Thread(target=commit)
        thread.start()
        waiting = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'fs3 victim' AND wait_event_type = 'Lock'"
        )
        while not server.execute(waiting):
            pass
        thread.join()
    assert isinstance(outcome[0], OutcomeUnknown)
    assert contents(store) == {b"a": b"1"}
    store.close()


CHILD = """
import sys
from fs3.errors import OutcomeUnknown, RetryLater
from fs3.kv.postgres import PostgresStore
store = PostgresStore(sys.argv[1], owner="child")
def operation(batch, member):
    def run(transaction):
        transaction.set(b"batch%08d/%d" % (batch, member), b"x" * 300)
        transaction.set(b"last", b"%d" % batch)
        if batch % 7 == 0:
            transaction.clear_range(b"batch%08d" % (batch - 3), b"batch%08d" % (batch - 2))
    return run
for batch in range(int(sys.argv[2]), 10**8):
    store.run_batch([operation(batch, member) for member in range(5)])
    print(batch, flush=True)
"""


@pytest.mark.parametrize("victim", ["server", "client"])
def test_a_kill_loses_no_acknowledged_batch_and_leaves_none_in_part(victim):
    with postgres_server() as server:
        url = server.new_database()
        next_batch = 4
        for wanted in (3, 60):
            acknowledged = run_until_killed(server, url, next_batch, wanted, victim)
            next_batch = check_batches(url, acknowledged) + 1


def run_until_killed(server, url: str, start: int, wanted: int, victim: str) -> int:
    """The last batch that was acknowledged before the kill."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), url, str(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    acknowledged = 0
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= start + wanted:
            break
    if victim == "server":
        server.kill()
    else:
        child.kill()
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    if victim == "server":
        server.start()
    return max([acknowledged, *map(int, rest)])


def check_batches(url: str, acknowledged: int) -> int:
    store = PostgresStore(url, owner="checker")
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


def test_the_store_survives_a_restart_of_the_server():
    with postgres_server() as server:
        store = PostgresStore(server.new_database(), owner="one")
        fill(store, a=b"1")
        server.kill()
        with pytest.raises(RetryLater):
            store.begin()
        with pytest.raises(RetryLater):
            store.run_batch([add_one])
        server.start()
        assert store.run_batch([add_one]) == [None]
        assert contents(store) == {b"a": b"1", b"n": b"1"}
        store.close()
