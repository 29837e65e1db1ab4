"""Two metadata services on one PostgreSQL as real processes: load of several clients in one
directory while a service is killed, again and again, or stands still. Every operation is applied
exactly once, and the name space is sound."""

import itertools
import pathlib
import signal
import threading
from collections.abc import Iterator

import pytest

import fs3
from fs3 import _native
from fs3._proto import meta_pb2 as pb
from fs3.auth.keyring import Keyring
from fs3.errors import Fs3Error
from fs3.kv import keys
from fs3.kv.api import transact
from fs3.kv.postgres import PostgresStore
from fs3.meta.fsck import fsck
from fs3.meta.ops import VERBS
from tests.cluster.processes import Processes
from tests.cluster.storage_rig import wait_for
from tests.postgres_server import PostgresServer, postgres_server

ROOT = 1
NAMES = ("meta-a", "meta-b")
CLIENTS = 4
NOREPLACE = 1
ONE_STORAGE = ("--storage-nodes", "1", "--replicas", "1", "--chains", "2")


class Metas(Processes):
    """A manager and two metadata services on one database; storage when a test starts it."""

    def __init__(self, directory: pathlib.Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self._storage = ()
        self.processes = {}
        self.incarnations = {}
        self.ports: dict[str, str] = {}
        Keyring.create(directory / "keyring")
        self.manager = self.serve("mgmtd", "--kv", url, *ONE_STORAGE)["grpc"]
        for name in NAMES:
            self.start_meta(name)

    def start_meta(self, name: str) -> None:
        """Again at the address that it had before, as a service manager does."""
        options = ["--kv", self.url, "--mgmtd", self.manager, "--gc-delay-s", "0"]
        options += ["--node-id", str(201 + NAMES.index(name))]
        options += ["--keyring", str(self.directory / "keyring")]
        options += ["--listen", self.ports.get(name, "tcp://127.0.0.1:0")]
        self.ports[name] = self.serve("meta", *options, name=name)["addresses"][0]

    def kill_meta(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        self.stop_all()


class Client:
    """One native client, and what its operations must have left."""

    def __init__(self, addresses: list[str], number: int) -> None:
        self._native = _native.NativeClient(addresses, client_id=b"client-%09d" % number)
        self.number = number
        self.names: set[bytes] = set()
        self.applied = 0  # operations that changed the shared directory
        self.moves = itertools.count()

    def call(self, method: int, **fields: object) -> object:
        body = VERBS[method].request(**fields).SerializeToString()
        caller = pb.Caller(uid=0, gid=0).SerializeToString()
        reply = self._native.meta_call(method, caller, 0, body)
        return VERBS[method].reply.FromString(reply)

    def change(self, directory: int, step: int) -> None:
        """Each is refused when it is applied twice, or not at all."""
        name = b"c%d-%d" % (self.number, step)
        self.call(pb.CREATE, parent=directory, name=name, type=pb.FILE, exclusive=True)
        self.names.add(name)
        new = name + b"-renamed"
        self.call(
            pb.RENAME,
            old_parent=directory,
            old_name=name,
            new_parent=directory,
            new_name=new,
            flags=NOREPLACE,
        )
        self.names.remove(name)
        self.names.add(new)
        self.applied += 2
        if step % 2:
            self.call(pb.UNLINK, parent=directory, name=new)
            self.names.remove(new)
            self.applied += 1

    def close(self) -> None:
        self._native.shutdown()


class Storm:
    """All clients change one directory until stopped."""

    def __init__(self, addresses: list[str]) -> None:
        # Half of them begin with the one service, half with the other.
        self.clients = [Client(addresses[:: 1 - 2 * (n % 2)], n) for n in range(CLIENTS)]
        made = self.clients[0].call(pb.MKDIR, parent=ROOT, name=b"shared", mode=0o755)
        self.directory = made.entry.attr.inode
        self.version = made.entry.attr.version
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(client,)) for client in self.clients
        ]

    def __enter__(self) -> "Storm":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def applied(self) -> int:
        return sum(client.applied for client in self.clients)

    def more(self, count: int) -> None:
        """Each client gets on by so much."""
        goals = [(client, client.applied + count) for client in self.clients]
        wait_for(
            f"{count} more of each",
            lambda: bool(self.errors) or all(client.applied >= goal for client, goal in goals),
            60,
        )

    def check(self) -> None:
        """After the storm: names, and one version of the directory per operation."""
        client = self.clients[0]
        names, cookie, end = set(), 0, False
        while not end:
            page = client.call(pb.READDIR, inode=self.directory, cookie=cookie, limit=1000)
            names |= {entry.name for entry in page.entries}
            cookie, end = page.entries[-1].cookie if page.entries else 0, page.end
        assert names == set().union(*(client.names for client in self.clients))
        attr = client.call(pb.GETATTR, inode=self.directory).attr
        assert attr.version - self.version == self.applied()

    def _run(self, client: Client) -> None:
        try:
            for step in itertools.count():
                if self._stop.is_set():
                    return
                client.change(self.directory, step)
        except (Fs3Error, AssertionError) as error:
            self.errors.append(error)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def metas(server: PostgresServer, tmp_path: pathlib.Path) -> Iterator[Metas]:
    made = Metas(tmp_path, server.new_database())
    try:
        yield made
        store = PostgresStore(made.url, owner="fsck")
        assert fsck(store) == []
        store.close()
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()


def test_killed_and_stopped_services_under_a_storm_apply_each_operation_once(metas: Metas) -> None:
    storm = Storm(list(metas.ports.values()))
    with storm:
        storm.more(10)
        for name in (*NAMES, *NAMES):
            metas.kill_meta(name)
            storm.more(6)
            metas.start_meta(name)
            storm.more(6)
        for name in NAMES:
            metas.processes[name].send_signal(signal.SIGSTOP)
            storm.more(6)
            metas.processes[name].send_signal(signal.SIGCONT)
            storm.more(6)
    storm.check()
    for client in storm.clients:
        client.close()


def garbage(store: PostgresStore) -> int:
    """Rows in the gc queue."""
    rows = transact(store, lambda t: t.get_range(keys.GARBAGE, keys.prefix_end(keys.GARBAGE)))
    return len(rows)


def test_data_is_cut_and_collected_whichever_service_is_asked(metas: Metas) -> None:
    """Each cuts within the lease that the manager grants it; one of them collects."""
    metas.start(1)
    a, b = metas.ports.values()
    store = PostgresStore(metas.url, owner="test")
    with fs3.Client(meta_addresses=[a]) as one, fs3.Client(meta_addresses=[b]) as two:
        for number, (writer, cutter) in enumerate(((one, two), (two, one))):
            path = f"/file-{number}"
            with writer.open(path, "wb") as file:
                file.write(bytes(range(256)) * 10_000)
            cutter.truncate(path, 1000)
            with writer.open(path, "rb") as file:
                assert file.read() == (bytes(range(256)) * 4)[:1000]
            with cutter.open(path, "r+b") as file:
                file.seek(500_000)
                file.write(b"end")
            with writer.open(path, "rb") as file:
                assert file.read()[990:1010] == (bytes(range(256)) * 4)[990:1000] + bytes(10)
        for number in range(2):
            one.unlink(f"/file-{number}")
        wait_for("the queue is empty", lambda: garbage(store) == 0, 60)
        # The leader dies, and the other one collects.
        with two.open("/last", "wb") as file:
            file.write(b"x" * 100_000)
        two.unlink("/last")
    metas.kill_meta("meta-a")
    wait_for("the queue is empty", lambda: garbage(store) == 0, 60)
    store.close()
