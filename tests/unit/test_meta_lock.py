"""LOCK: who holds, who waits, who gets it next; after a restart, after a death, over services."""

import errno
import random

import pytest
from meta_world import CLIENT, OTHER_CLIENT, ROOT, World
from test_meta_several import SharedStore

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.kv.memory import MemoryStore
from fs3.meta import locks
from fs3.meta.clients import SILENT_S
from fs3.meta.fsck import fsck
from fs3.meta.leadership import LEASE_S
from fs3.meta.ranges import END_MAX, FLOCK, POSIX, READ, UNLOCK, WRITE

Request, Reply = pb.LockRequest, pb.LockReply
GRANTED = Reply.GRANTED
A, B = b"a" * 16, b"b" * 16


class Locker:
    """One owner: a process when POSIX, an open file when FLOCK."""

    def __init__(self, world: World, inode: int, number: int, client: bytes = CLIENT, kind=POSIX):
        self.world = world
        self.fixed = {"inode": inode, "owner": number, "client": client, "kind": kind}
        self.ticket = 0

    def body(self, action, type=READ, start=0, end=END_MAX, **fields) -> bytes:
        fields = {
            **self.fixed,
            "action": action,
            "type": type,
            "start": start,
            "end": end,
            **fields,
        }
        return self.world.request(pb.LOCK, pid=self.fixed["owner"], **fields)

    def call(self, action, *arguments, **fields) -> pb.LockReply:
        token = self.world.send(pb.LOCK, self.body(action, *arguments, **fields))
        return self.world.answer(token, pb.LOCK)

    def set(self, type, start=0, end=END_MAX) -> bool:
        return self.call(Request.SET, type, start, end).state == Reply.GRANTED

    def unlock(self, start=0, end=END_MAX) -> None:
        assert self.set(UNLOCK, start, end)

    def test(self, type=WRITE, start=0, end=END_MAX) -> pb.LockReply:
        return self.call(Request.TEST, type, start, end)

    def wait(self, type=WRITE, start=0, end=END_MAX, *, again=False):
        """The token of a call that may be answered later."""
        self.ticket += not again
        ticket = self.fixed["owner"] << 32 | self.ticket
        body = self.body(Request.SET, type, start, end, wait=True, ticket=ticket)
        return self.world.send(pb.LOCK, body)

    def state(self, token):
        """Of the answer; None when there is none yet."""
        if token not in self.world.delivered:
            return None
        return self.world.answer(token, pb.LOCK).state

    def cancel(self, type=WRITE):
        ticket = self.fixed["owner"] << 32 | self.ticket
        return self.call(Request.CANCEL, type, ticket=ticket).state

    def close(self) -> None:
        assert self.call(Request.RELEASE).state == Reply.GRANTED


@pytest.fixture
def file(world: World) -> int:
    return world.create(b"f")


def lockers(world: World, inode: int, count: int, kind: int = POSIX) -> list[Locker]:
    return [Locker(world, inode, 10 + number, kind=kind) for number in range(count)]


def rows(world: World) -> int:
    prefixes = (keys.LOCK, keys.LOCK_WAITER, keys.CLIENT_LOCK, keys.OWNER_WAIT)
    txn = world.kv.begin()
    return sum(len(txn.get_range(each, keys.prefix_end(each))) for each in prefixes)


def test_a_lock_excludes_others_until_it_is_let_go(world, file):
    one, two = lockers(world, file, 2)
    assert one.set(WRITE, 0, 9)
    assert not two.set(READ, 9, 20)
    assert two.set(READ, 10, 20)
    found = two.test(READ, 5, 5)
    assert (found.state, found.type, found.start, found.end) == (Reply.REFUSED, WRITE, 0, 9)
    assert found.pid == 10
    assert not found.elsewhere
    one.unlock()
    assert two.set(WRITE, 0, 20)
    two.close()
    assert rows(world) == 0


def test_clients_do_not_share_owners(world, file):
    here, there = Locker(world, file, 1), Locker(world, file, 1, OTHER_CLIENT)
    assert here.set(WRITE)
    assert not there.set(READ)
    assert there.test(READ).elsewhere


def test_flock_and_fcntl_do_not_meet(world, file):
    (one,), (two,) = lockers(world, file, 1), lockers(world, file, 1, FLOCK)
    assert one.set(WRITE)
    assert two.set(WRITE)


def test_waiters_are_served_in_the_order_in_which_they_came(world, file):
    one, *others = lockers(world, file, 4)
    assert one.set(WRITE)
    tokens = [each.wait() for each in others]
    assert [each.state(token) for each, token in zip(others, tokens, strict=True)] == [None] * 3
    one.unlock()
    assert others[0].state(tokens[0]) == Reply.GRANTED
    others[0].close()
    assert others[1].state(tokens[1]) == Reply.GRANTED
    others[1].close()
    assert others[2].state(tokens[2]) == Reply.GRANTED
    others[2].close()
    assert rows(world) == 0


def test_readers_that_wait_get_it_together(world, file):
    one, *others = lockers(world, file, 4)
    assert one.set(WRITE)
    tokens = [each.wait(READ) for each in others]
    assert one.set(READ)
    assert [each.state(token) for each, token in zip(others, tokens, strict=True)] == [
        Reply.GRANTED
    ] * 3


def test_who_asks_again_keeps_its_place(world, file):
    one, two, three = lockers(world, file, 3)
    assert one.set(WRITE)
    first = two.wait()
    later = three.wait()
    world.jobs.run(2)  # the service does not hold a call for long
    assert two.state(first) == three.state(later) == Reply.WAITING
    later = three.wait(again=True)
    one.unlock()
    assert three.state(later) is None
    assert two.state(two.wait(again=True)) == Reply.GRANTED, "granted while nobody asked"
    two.close()
    assert three.state(later) == Reply.GRANTED


def test_a_cancelled_wait_is_answered_and_gone(world, file):
    one, two, three = lockers(world, file, 3)
    assert one.set(WRITE)
    token, last = two.wait(), three.wait()
    assert two.cancel() == Reply.CANCELLED
    assert two.state(token) == Reply.CANCELLED
    assert two.cancel() == Reply.CANCELLED, "neither waiting nor held"
    one.unlock()
    assert two.test().state == Reply.REFUSED
    assert three.state(last) == Reply.GRANTED


def test_a_cancel_that_comes_late_finds_the_lock_granted(world, file):
    one, two = lockers(world, file, 2)
    assert one.set(WRITE)
    two.wait()
    one.unlock()
    assert two.cancel() == Reply.GRANTED
    assert not one.set(READ)


def test_flock_lets_go_before_it_converts(world, file):
    """As Linux: a conversion that is refused has lost the lock."""
    one, two, three = lockers(world, file, 3, FLOCK)
    assert one.set(READ)
    assert two.set(READ)
    token = three.wait(WRITE)
    assert not one.set(WRITE)
    two.close()
    assert three.state(token) == Reply.GRANTED


# ---- deadlocks


def test_a_circle_of_two_upgrades_is_refused(world, file):
    one, two = lockers(world, file, 2)
    assert one.set(READ)
    assert two.set(READ)
    token = one.wait(WRITE)
    with pytest.raises(OSError) as refused:
        two.call(Request.SET, WRITE, wait=True, ticket=1)
    assert refused.value.errno == errno.EDEADLK
    two.close()
    assert one.state(token) == Reply.GRANTED


def test_a_circle_over_files_and_clients_is_refused(world, file):
    files = [file, world.create(b"g"), world.create(b"h")]
    clients = [CLIENT, OTHER_CLIENT, b"client-ccccccccc"]
    for at in range(3):
        assert Locker(world, files[at], 7, clients[at]).set(WRITE, 0, 0)
    waits = [Locker(world, files[at + 1], 7, clients[at]) for at in range(2)]
    tokens = [each.wait(WRITE, 0, 0) for each in waits]
    last = Locker(world, files[0], 7, clients[2])
    assert last.test(WRITE, 0, 0).state == Reply.REFUSED
    with pytest.raises(OSError) as refused:
        last.call(Request.SET, WRITE, 0, 0, wait=True, ticket=1)
    assert refused.value.errno == errno.EDEADLK
    Locker(world, files[2], 7, clients[2]).unlock()
    assert waits[1].state(tokens[1]) == Reply.GRANTED
    assert waits[0].state(tokens[0]) is None


def test_waiting_in_a_line_is_no_circle(world, file):
    files = [file, world.create(b"g")]
    assert Locker(world, files[0], 1).set(WRITE)
    assert Locker(world, files[1], 2).set(WRITE)
    Locker(world, files[0], 2).wait()
    assert Locker(world, files[1], 3).state(Locker(world, files[1], 3).wait()) is None


# ---- ends


def test_locks_outlive_a_restart_and_waits_keep_their_place(world, file):
    one, two, three = lockers(world, file, 3)
    assert one.set(WRITE)
    two.wait()
    three.wait()
    world.restart()
    later, first = three.wait(again=True), two.wait(again=True)
    assert not three.set(READ)
    one.unlock()
    assert three.state(later) is None
    assert two.state(first) == Reply.GRANTED


def test_a_client_that_died_leaves_no_lock(world, file):
    dead = Locker(world, file, 1, OTHER_CLIENT)
    other = world.create(b"g")
    assert dead.set(WRITE)
    assert Locker(world, other, 1).set(WRITE)
    Locker(world, other, 2, OTHER_CLIENT).wait()
    one = Locker(world, file, 1)
    world.call(pb.KEEPALIVE, client=OTHER_CLIENT)
    token = one.wait()
    world.clock.advance(SILENT_S + 1)
    world.call(pb.KEEPALIVE)
    world.store.tick()
    world.jobs.run()
    assert one.state(token) in (Reply.GRANTED, Reply.WAITING)
    assert one.state(one.wait(again=True)) == Reply.GRANTED
    txn = world.kv.begin()
    assert not txn.get_range(*keys.client_locks(OTHER_CLIENT))


def test_the_locks_of_a_client_that_died_with_the_service_end_too(world, file):
    assert Locker(world, file, 1, OTHER_CLIENT).set(WRITE)
    world.restart()
    world.clock.advance(SILENT_S + 1)
    world.store.tick()
    world.jobs.run()
    assert Locker(world, file, 1).set(WRITE)


def test_a_locked_file_without_a_name_is_not_removed(world, file):
    one, two = lockers(world, file, 2)
    assert one.set(WRITE)
    world.unlink(b"f")
    world.collect()
    assert not two.set(READ)
    one.close()
    assert world.collect() == 1


# ---- bounds and refusals


def test_a_file_has_a_bound_of_locks(world, file, monkeypatch):
    monkeypatch.setattr(limits, "LOCKS_PER_FILE_MAX", 10)
    one, two = lockers(world, file, 2)
    for at in range(9):
        assert one.set(WRITE, 2 * at, 2 * at)
    with pytest.raises(OSError) as refused:
        two.set(WRITE, 100, 100)
    assert refused.value.errno == errno.ENOLCK
    with pytest.raises(OSError) as refused:
        two.call(Request.SET, WRITE, wait=True, ticket=1)
    assert refused.value.errno == errno.ENOLCK
    one.unlock()
    assert two.set(WRITE)


def test_ten_thousand_locks_are_read_once(world, file):
    one, two = lockers(world, file, 2)
    for at in range(10_000):
        assert one.set(WRITE, 2 * at, 2 * at)
    reads = []
    real = locks.decode_range
    locks.decode_range = lambda *arguments: reads.append(1) or real(*arguments)
    try:
        for at in range(100):
            assert not two.set(READ, 2 * at, 2 * at)
            assert two.set(READ, 2 * at + 1, 2 * at + 1)
    finally:
        locks.decode_range = real
    assert reads == []
    one.close()
    two.close()
    assert rows(world) == 0


def test_memory_of_locks_is_bounded(world, monkeypatch):
    monkeypatch.setattr(limits, "LOCKS_IN_MEMORY_MAX", 20)
    files = [world.create(b"%d" % number) for number in range(30)]
    for inode in files:
        for locker in lockers(world, inode, 2):
            assert locker.set(READ)
    assert len(world.store.env.locks._files) <= 10
    for inode in files:
        one, two = lockers(world, inode, 2)
        assert not one.set(WRITE)
        two.close()
        assert one.set(WRITE)


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (errno.EPROTO, {"start": 5, "end": 4}),
        (errno.EPROTO, {"end": END_MAX + 1}),
        (errno.EPROTO, {"kind": FLOCK, "start": 1}),
        (errno.EPROTO, {"type": 9}),
        (errno.EPROTO, {"wait": True}),
        (errno.EBADF, {"inode": ROOT}),
        (errno.ENOENT, {"inode": 12345}),
    ],
)
def test_refusals(world, file, number, fields):
    with pytest.raises(OSError) as refused:
        Locker(world, file, 1).call(Request.SET, **fields)
    assert refused.value.errno == number or number == errno.EPROTO


# ---- several services on one store


@pytest.fixture
def pair():
    kv = SharedStore()
    first = World(kv, service=A)
    second = World(kv, beside=first, service=B)
    yield first, second
    assert fsck(kv) == []


def test_two_services_grant_a_byte_once(pair):
    one, two = pair
    inode = one.create(b"f")
    here, there = Locker(one, inode, 1), Locker(two, inode, 1, OTHER_CLIENT)
    assert here.set(WRITE, 0, 9)
    assert not there.set(WRITE, 9, 9)
    assert there.set(WRITE, 10, 19)
    assert not here.set(READ, 10, 10)
    here.unlock()
    assert there.set(WRITE, 0, 19)
    assert not here.set(READ, 0, 0)


def test_a_wait_at_one_service_is_granted_by_the_other(pair):
    one, two = pair
    inode = one.create(b"f")
    here, there = Locker(one, inode, 1), Locker(two, inode, 1, OTHER_CLIENT)
    assert here.set(WRITE)
    token = there.wait()
    here.unlock()
    assert not here.set(READ), "handed over by the transaction that let go"
    two.jobs.run(1)
    assert there.state(token) == Reply.WAITING
    assert there.state(there.wait(again=True)) == Reply.GRANTED


def test_a_circle_over_two_services_is_refused(pair):
    one, two = pair
    files = [one.create(b"f"), one.create(b"g")]
    assert Locker(one, files[0], 1).set(WRITE)
    assert Locker(two, files[1], 1, OTHER_CLIENT).set(WRITE)
    Locker(one, files[1], 1).wait()
    with pytest.raises(OSError) as refused:
        Locker(two, files[0], 1, OTHER_CLIENT).call(Request.SET, WRITE, wait=True, ticket=1)
    assert refused.value.errno == errno.EDEADLK


def test_the_locks_of_a_client_of_a_dead_service_end(pair):
    one, two = pair
    inode = one.create(b"f")
    assert Locker(one, inode, 1, OTHER_CLIENT).set(WRITE)
    two.leadership.tick()
    two.clock.advance(LEASE_S)
    two.leadership.tick()
    two.store.tick()
    two.clock.advance(SILENT_S + 1)
    two.leadership.tick()
    two.store.tick()
    two.jobs.run()
    assert Locker(two, inode, 1).set(WRITE)


# ---- random histories: what is in memory is what the rows say


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_leave_sound_rows(seed):
    chance = random.Random(seed)
    kv = SharedStore() if seed % 2 else MemoryStore()
    world = World(kv, service=A)
    other = World(kv, beside=world, service=B) if seed % 2 else world
    files = [world.create(b"%d" % number) for number in range(2)]
    owners = [
        Locker(chance.choice([world, other]), inode, number, client, kind)
        for inode in files
        for number in range(2)
        for client in (CLIENT, OTHER_CLIENT)
        for kind in (POSIX, FLOCK)
    ]
    for _ in range(150):
        one = chance.choice(owners)
        span = sorted(chance.choices(range(8), k=2))
        if one.fixed["kind"] == FLOCK:
            span = [0, END_MAX]
        step = chance.random()
        if step < 0.4:
            one.set(chance.choice([READ, WRITE, UNLOCK]), *span)
        elif step < 0.6:
            token = one.wait(chance.choice([READ, WRITE]), *span)
            if token in one.world.delivered and one.world.delivered[token].status:
                assert one.world.delivered.pop(token).status == errno.EDEADLK
        elif step < 0.7:
            one.cancel()
        elif step < 0.85:
            one.close()
        elif seed % 2 == 0 and step > 0.97:
            world.restart()
        found = fsck(kv)
        assert found == [], f"seed {seed}"
    for one in owners:
        one.close()
    assert rows(world) == 0


# ---- what fsck finds


@pytest.fixture
def locked() -> World:
    """/f, where owner 1 holds bytes 0 to 9 and owner 2 waits for them; /g and /d without locks."""
    world = World(MemoryStore())
    world.f, world.g, world.d = world.create(b"f"), world.create(b"g"), world.mkdir(b"d")
    assert Locker(world, world.f, 1).set(WRITE, 0, 9)
    Locker(world, world.f, 2).wait(WRITE, 0, 9)
    assert fsck(world.kv) == []
    return world


def held_by(txn, world, inode, client):
    """Bytes 0 to 9, whoever else may have them."""
    held = txn.get(keys.lock_range(world.f, POSIX, CLIENT, 1, 0))
    txn.set(keys.lock(inode), txn.get(keys.lock(world.f)))
    txn.set(keys.lock_range(inode, POSIX, client, 7, 0), held)
    txn.set(keys.client_lock(client, inode), b"")


DAMAGE = {
    "row of the file": ("record", lambda t, w: t.set(keys.lock(w.g), b"\x01")),
    "key": ("record", lambda t, w: t.set(keys.lock(w.g) + b"\x01", b"\x01")),
    "wait": ("record", lambda t, w: t.set(keys.lock_waiter(w.g, 1), b"\x01")),
    "of a directory": ("lock_inode", lambda t, w: held_by(t, w, w.d, CLIENT)),
    "without their row": ("lock_inode", lambda t, w: t.clear(keys.lock(w.f))),
    "row without locks": ("lock_inode", lambda t, w: t.set(keys.lock(w.g), t.get(keys.lock(w.f)))),
    "without index": ("lock_inode", lambda t, w: t.clear(keys.client_lock(CLIENT, w.f))),
    "index without locks": ("lock_inode", lambda t, w: t.set(keys.client_lock(CLIENT, w.g), b"")),
    "wait without index": ("lock_inode", lambda t, w: t.clear_range(*keys.owner_waits(CLIENT, 2))),
    "index without wait": (
        "lock_inode",
        lambda t, w: t.set(keys.owner_wait(CLIENT, 2, w.g, 9), b""),
    ),
    "two on one byte": ("lock_conflict", lambda t, w: held_by(t, w, w.f, b"x" * 16)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_damage_of_locks_is_found(locked, damage):
    check, plant = DAMAGE[damage]
    locked.store.transact([lambda txn: plant(txn, locked)])
    assert check in {finding.check for finding in fsck(locked.kv)}
