"""Leases and recalls (fs3/meta/leases.py): the rules one by one, and random schedules in which
messages overtake one another, get lost, and clients stop, against the one promise: when a change is
answered, nobody believes what it changed."""

import random

import pytest

from fs3 import limits
from fs3.meta.leases import (
    ANSWER_S,
    COOL_S,
    GRACE_S,
    LEASE_S,
    SESSION_S,
    Barrier,
    Changes,
    LeaseTable,
    Recall,
)

A, B, C, D = b"a" * 16, b"b" * 16, b"c" * 16, b"d" * 16
S = 1_000_000_000


def inode(*numbers: int) -> Changes:
    return Changes({number: lambda: 7 for number in numbers}, set())


def name(parent: int, text: bytes) -> Changes:
    return Changes({}, {(parent, text)})


@pytest.fixture
def table() -> LeaseTable:
    table = LeaseTable(0)
    for number, client in enumerate((A, B, C), start=1):
        table.open(client, number, 1, 0)
    return table


def test_a_change_waits_for_those_who_believe_and_for_nobody_else(table):
    table.grant_inode(B, 5, 0)
    assert table.change(A, inode(6), 0) is None
    barrier = table.change(A, inode(5), 0)
    assert barrier.waits_for == 1
    assert table.take_recalls(B) == ([Recall(5, 7)], 1)
    assert table.watch(B, 2, received=1, acked=1, now_ns=1)
    assert table.take_open_barriers() == [barrier]
    assert table.change(A, inode(5), 2) is None, "who was told believes no longer"


def test_a_second_change_waits_for_who_has_not_answered_the_first(table):
    table.grant_inode(B, 5, 0)
    first = table.change(A, inode(5), 0)
    second = table.change(C, inode(5), 0)
    assert (first.waits_for, second.waits_for) == (1, 1)
    assert table.watch(B, 2, received=1, acked=1, now_ns=1)
    assert table.take_open_barriers() == [first, second]


def test_who_changes_is_not_recalled_and_keeps_his_lease(table):
    table.grant_inode(A, 5, 0)
    assert table.change(A, inode(5), 0) is None
    assert table.change(B, inode(5), 0).waits_for == 1


def test_names_are_recalled_one_by_one(table):
    table.grant_name(B, 1, b"x", 0)
    table.grant_name(B, 1, b"y", 0)
    assert table.change(A, name(1, b"z"), 0) is None
    assert table.change(A, name(2, b"x"), 0) is None
    assert table.change(A, name(1, b"x"), 0).waits_for == 1
    assert table.take_recalls(B)[0] == [Recall(parent=1, name=b"x")]
    assert table.holds_name(B, 1, b"y")


def test_a_grant_tells_how_many_recalls_came_before_it(table):
    assert table.grant_inode(B, 5, 0).sequence == 0
    table.change(A, inode(5), 0)
    assert table.grant_inode(B, 6, 0).sequence == 1


def test_what_was_just_recalled_is_not_granted_for_a_while(table):
    table.grant_inode(B, 5, 0)
    table.change(A, inode(5), 0)
    assert table.grant_inode(C, 5, 1) is None
    assert table.grant_inode(C, 5, int(COOL_S * S) + 1) is not None


def test_recalls_that_got_lost_are_sent_again(table):
    table.grant_inode(B, 5, 0)
    table.grant_inode(B, 6, 0)
    table.change(A, inode(5), 0)
    assert table.take_recalls(B)[1] == 1
    assert not table.has_recalls(B)
    table.change(A, inode(6), 0)
    assert table.watch(B, 2, received=0, acked=0, now_ns=1)
    assert table.take_recalls(B) == ([Recall(5, 7), Recall(6, 7)], 2)


def test_a_silent_client_holds_a_change_up_until_its_session_has_ended(table):
    table.grant_inode(B, 5, 0)
    table.grant_inode(B, 6, 0)
    barrier = table.change(A, inode(5), 0)
    end = int((SESSION_S + GRACE_S) * S)
    assert table.expire(end) == []
    assert set(table.expire(end + 1)) == {A, B, C}
    assert table.take_open_barriers() == [barrier]
    assert table.change(A, inode(6), end + 2) is None, "it costs the next one nothing"
    assert not table.watch(B, 2, 0, 0, end + 3)


def test_a_client_that_lives_and_does_not_answer_loses_its_session_too(table):
    table.grant_inode(B, 5, 0)
    barrier = table.change(A, inode(5), 0)
    now = 0
    ended: list[bytes] = []
    while B not in ended:
        now += S // 2
        table.watch(A, 1, 9, 9, now)
        table.watch(B, 2, 1, 0, now)
        ended += table.expire(now)
        assert now < (ANSWER_S + SESSION_S + GRACE_S + 1) * S
    assert barrier in table.take_open_barriers()
    assert A not in ended


def test_a_new_session_believes_nothing(table):
    table.grant_inode(B, 5, 0)
    barrier = table.change(A, inode(5), 0)
    assert table.open(B, 9, 2, 1) == 9
    assert table.take_open_barriers() == [barrier]
    assert not table.watch(B, 2, 0, 0, 2)
    assert table.watch(B, 9, 0, 0, 2)


def test_an_open_that_comes_late_or_twice_changes_nothing(table):
    assert table.open(B, 9, 5, 1) == 9
    table.grant_inode(B, 5, 1)
    assert table.open(B, 10, 5, 2) == 9
    assert table.open(B, 11, 4, 2) == 0
    assert table.holds_inode(B, 5)
    assert table.watch(B, 9, 0, 0, 3)


def test_the_next_process_of_a_mount_continues_what_its_kernel_believes(table):
    table.grant_inode(B, 5, 0)
    table.grant_name(B, 1, b"x", 0)
    barrier = table.change(A, inode(5), 0)
    now = int(ANSWER_S * S)
    assert table.open(D, 9, 1, now, formerly=B) == 9
    assert not table.has_session(B)
    assert table.take_recalls(D) == ([Recall(5, 7)], 1), "the one before may not have obeyed"
    assert table.watch(D, 9, received=1, acked=0, now_ns=now)
    assert table.prolonged(D), "it has the whole time to answer"
    assert table.change(D, name(1, b"x"), now) is None, "its own change is no news to its kernel"
    second = table.change(A, name(1, b"x"), now)
    assert (barrier.waits_for, second.waits_for) == (1, 1)
    table.acknowledge(D, 9, 2, now)
    assert table.take_open_barriers() == [barrier, second]


def test_a_continuation_that_is_repeated_under_another_request_continues_as_well(table):
    table.grant_inode(B, 5, 0)
    table.open(D, 9, 1, 0, formerly=B)  # the answer gets lost
    assert table.open(D, 10, 2, 0, formerly=B) == 10
    assert table.change(A, inode(5), 0).waits_for == 1
    assert table.open(D, 11, 3, 0) == 11, "believing nothing"
    assert table.change(C, inode(5), 0) is None


def test_what_the_service_before_granted_ends_by_time_whoever_continues():
    table = LeaseTable(0)
    table.former(B, 0)
    table.open(D, 9, 1, 0, formerly=B)
    assert table.change(D, inode(5), 0).waits_for == 1


def test_after_a_restart_every_change_waits_for_the_former_sessions():
    table = LeaseTable(0)
    table.former(B, 0)
    table.former(C, 0)
    table.open(A, 1, 1, 0)
    barrier = table.change(A, inode(5), 0)
    assert barrier.waits_for == 2
    assert table.change(A, Changes({}, set()), 0) is None
    assert not table.watch(B, 77, 0, 0, 1), "its session was one of the former service"
    table.open(B, 2, 1, 1)
    assert table.take_open_barriers() == []
    table.expire(int((SESSION_S + GRACE_S) * S) + 1)
    assert table.take_open_barriers() == [barrier]


def test_rows_are_bounded_and_forgotten_after_a_lease(table, monkeypatch):
    monkeypatch.setattr(limits, "LEASE_ROWS_MAX", 10)
    granted = [table.grant_inode(B, number, 0) for number in range(12)]
    assert [lease is not None for lease in granted] == [True] * 10 + [False] * 2
    now = 0
    for request in range(2, 5):
        now += int(LEASE_S * S) + 1
        table.open(B, 2, request, now)
        table.expire(now)
    assert table.statistics().rows == 0
    assert table.grant_inode(B, 1, now) is not None


def test_a_shared_store_grants_by_time_alone():
    table = LeaseTable(0, shared=True)
    lease = table.grant_inode(A, 5, 0)
    assert (lease.id, lease.ttl_ms) == (0, 1000)
    assert table.change(B, inode(5), 0) is None


# ---- random schedules


class Peer:
    """A mount as native/fuse/leases.h is one: what it believes, and until when. It may be killed;
    then the next process goes on under another client id, and its kernel with what it was told."""

    def __init__(self, world: "Schedule", client: bytes) -> None:
        self.world = world
        self.client = client
        self.number = 0
        self.until_ns = 0
        self.received = 0
        self.acked = 0
        self.opening = 0  # request id of the last WATCH that opens
        self.believed: dict[object, tuple[int, int, int]] = {}  # to value, session, until
        self.recalled: dict[object, int] = {}  # to sequence
        self.stopped = False
        self.kernel: dict[object, tuple[int, int]] = {}  # told by processes before: value, until
        self.formerly = b""  # whose leases that was under
        self.leases_of = b""  # the last client that had a session
        self.opens_ns = 0  # no session before

    def believes(self, thing: object) -> int | None:
        value, number, until_ns = self.believed.get(thing, (0, -1, 0))
        now = self.world.now
        if number != self.number or now >= min(until_ns, self.until_ns):
            return None
        return value

    def kernel_believes(self, thing: object) -> int | None:
        value, until_ns = self.kernel.get(thing, (0, 0))
        return value if self.world.now < until_ns else None

    def forget(self, thing: object) -> None:
        self.believed.pop(thing, None)
        self.kernel.pop(thing, None)

    def killed(self, client: bytes) -> None:
        for thing, (value, _, until_ns) in self.believed.items():
            if self.believes(thing) is not None:
                self.kernel[thing] = value, min(until_ns, self.until_ns)
        self.client, self.formerly = client, self.leases_of
        self.number = self.opens_ns = 0
        self.inherited_until_ns = self.world.now + int(SESSION_S * S)
        self.believed.clear()
        self.recalled.clear()

    inherited_until_ns = 0


class Schedule:
    """Requests, WATCH calls and their answers are in a bag; which is delivered next is chance."""

    THINGS = (("inode", 1), ("inode", 2), ("name", 1, b"x"), ("name", 1, b"y"))

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0
        self.table = LeaseTable(0)
        self.values = dict.fromkeys(self.THINGS, 0)
        self.peers = [Peer(self, client) for client in (A, B, C)]
        self.bag: list[tuple] = []
        self.waiting: dict[Barrier, tuple[object, int, Peer]] = {}
        self.kept: dict[bytes, tuple] = {}
        self.number = 0
        self.answered = 0
        self.hits = 0
        self.kills = 0

    def send(self, *message: object) -> None:
        if self.chance.random() > 0.05:  # else it gets lost
            self.bag.append(message)

    # what the world does

    def step(self) -> None:
        choice = self.chance.random()
        if choice < 0.1:
            self.now += self.chance.choice([1, S // 100, S // 2, S])
            self.tick()
        elif choice < 0.12:
            self.chance.choice(self.peers).stopped ^= True
        elif choice < 0.125:
            self.kills += 1
            self.chance.choice(self.peers).killed(self.kills.to_bytes(16, "big"))
        elif choice < 0.55 and self.bag:
            at = self.chance.randrange(len(self.bag))
            self.bag[at], self.bag[-1] = self.bag[-1], self.bag[at]
            kind, *arguments = self.bag.pop()
            getattr(self, "on_" + str(kind))(*arguments)
        else:
            peer = self.chance.choice(self.peers)
            if not peer.stopped:
                getattr(self, "do_" + self.chance.choice(["read", "read", "change", "watch"]))(peer)

    def tick(self) -> None:
        self.table.expire(self.now)
        for client in [client for client in self.kept if self.chance.random() < 0.5]:
            self.answer_watch(client)
        self.open_barriers()

    def do_read(self, peer: Peer) -> None:
        thing = self.chance.choice(self.THINGS)
        believed = peer.believes(thing)
        if believed is None:
            self.send("read", peer, peer.client, thing)
        else:
            self.hits += 1

    def do_change(self, peer: Peer) -> None:
        self.send("change", peer, peer.client, self.chance.choice(self.THINGS))

    def do_watch(self, peer: Peer) -> None:
        if not peer.number:
            if self.now < peer.opens_ns:
                return
            peer.opening += 1
        request = peer.number, peer.opening, peer.received, peer.acked, peer.formerly
        self.send("watch", peer, peer.client, *request, self.now)

    # at the service

    def on_read(self, peer: Peer, client: bytes, thing: tuple) -> None:
        if thing[0] == "inode":
            lease = self.table.grant_inode(client, thing[1], self.now)
        else:
            lease = self.table.grant_name(client, thing[1], thing[2], self.now)
        self.send("value", peer, thing, self.values[thing], lease, self.now)

    def on_change(self, peer: Peer, client: bytes, thing: tuple) -> None:
        self.values[thing] += 1
        value = self.values[thing]
        changes = inode(thing[1]) if thing[0] == "inode" else name(*thing[1:])
        barrier = self.table.change(client, changes, self.now)
        peer.forget(thing)
        if barrier is None:
            self.finished(thing, value, peer)
        else:
            self.waiting[barrier] = (thing, value, peer)
        for client in list(self.kept):
            if self.table.has_recalls(client):
                self.answer_watch(client)

    def on_watch(self, peer, client, number, opening, received, acked, formerly, sent_ns) -> None:
        if not number:
            self.number += 1
            opened = self.table.open(client, self.number, opening, self.now, formerly=formerly)
            self.send("opened", peer, opened, opening, sent_ns)
        elif not self.table.watch(client, number, received, acked, self.now):
            self.send("lost", peer, number)
        else:
            self.kept[client] = (peer, number, sent_ns)
            if self.table.has_recalls(client):
                self.answer_watch(client)
        self.open_barriers()

    def answer_watch(self, client: bytes) -> None:
        peer, number, sent_ns = self.kept.pop(client)
        if not self.table.knows(client, number):
            self.send("lost", peer, number)
            return
        recalls, sequence = self.table.take_recalls(client)
        until_ns = sent_ns + int(SESSION_S * S) if self.table.prolonged(client) else 0
        self.send("recalls", peer, number, recalls, sequence, until_ns)

    def open_barriers(self) -> None:
        for barrier in self.table.take_open_barriers():
            if barrier in self.waiting:
                self.finished(*self.waiting.pop(barrier))

    def finished(self, thing: object, value: int, author: Peer) -> None:
        """The promise."""
        self.answered += 1
        for peer in self.peers:
            for believed in (peer.believes(thing), peer.kernel_believes(thing)):
                assert peer is author or believed is None or believed >= value

    # at a client

    def on_value(self, peer: Peer, thing: tuple, value: int, lease, asked_ns: int) -> None:
        if peer.stopped or lease is None or lease.id != peer.number:
            return
        if peer.recalled.get(thing, 0) > lease.sequence:
            return  # it was on its way when it was recalled
        peer.believed[thing] = (value, peer.number, asked_ns + lease.ttl_ms * 1_000_000)

    def on_opened(self, peer: Peer, number: int, opening: int, sent_ns: int) -> None:
        if peer.stopped or peer.number or not number or opening != peer.opening:
            return
        peer.number, peer.until_ns = number, sent_ns + int(SESSION_S * S)
        peer.received = peer.acked = 0
        peer.formerly, peer.leases_of = b"", peer.client
        peer.believed.clear()
        peer.recalled.clear()

    def on_lost(self, peer: Peer, number: int) -> None:
        if not peer.stopped and peer.number == number:
            peer.number = 0
            peer.opens_ns = peer.inherited_until_ns
            peer.believed.clear()

    def on_recalls(self, peer, number, recalls, sequence, until_ns) -> None:
        if peer.stopped or peer.number != number or sequence < peer.received:
            return
        for recall in recalls:
            thing = (
                ("inode", recall.inode) if recall.inode else ("name", recall.parent, recall.name)
            )
            peer.forget(thing)
            peer.recalled[thing] = sequence
        peer.until_ns = max(peer.until_ns, until_ns)
        peer.received = peer.acked = sequence


@pytest.mark.parametrize("seed", range(60))
def test_when_a_change_is_answered_nobody_believes_what_it_changed(seed):
    schedule = Schedule(seed)
    for _ in range(3000):
        schedule.step()
    assert schedule.answered > 20
    # Everybody stops: what waits ends by time alone.
    for peer in schedule.peers:
        peer.stopped = True
    schedule.bag.clear()
    schedule.now += int((ANSWER_S + SESSION_S + GRACE_S + 1) * S)
    schedule.tick()
    assert not schedule.waiting


def test_the_schedules_use_leases():
    schedule = Schedule(1)
    for _ in range(20_000):
        schedule.step()
    assert schedule.hits > 100
    assert schedule.table.statistics().recalled > 100


def run(seeds: range) -> None:
    for seed in seeds:
        schedule = Schedule(seed)
        for _ in range(3000):
            schedule.step()


@pytest.mark.parametrize(
    "broken",
    ["no sequence", "no wait", "session from the answer", "closed by the next", "recalled before"],
)
def test_the_schedules_find_a_broken_rule(broken, monkeypatch):
    """Each rule is needed: without it some schedule breaks the promise."""
    if broken == "no sequence":
        lease = LeaseTable._lease

        def later(self, session):
            granted = lease(self, session)
            granted.sequence = 1 << 60
            return granted

        monkeypatch.setattr(LeaseTable, "_lease", later)
    elif broken == "closed by the next":
        open_ = LeaseTable.open

        def closing(self, client, number, request, now_ns, *, formerly=b""):
            self.close(formerly)
            return open_(self, client, number, request, now_ns)

        monkeypatch.setattr(LeaseTable, "open", closing)
    elif broken == "recalled before":
        continue_ = LeaseTable._continue

        def obeyed(self, session, *arguments):
            while session.unanswered:
                self._acknowledged(session, session.unanswered.popleft())
            return continue_(self, session, *arguments)

        monkeypatch.setattr(LeaseTable, "_continue", obeyed)
    elif broken == "no wait":
        monkeypatch.setattr(LeaseTable, "change", lambda self, *arguments: None)
    else:
        recalls = Schedule.on_recalls

        def from_arrival(self, peer, number, recalled, sequence, until_ns):
            recalls(self, peer, number, recalled, sequence, self.now + int(SESSION_S * S))

        monkeypatch.setattr(Schedule, "on_recalls", from_arrival)
    with pytest.raises(AssertionError):
        run(range(600))
