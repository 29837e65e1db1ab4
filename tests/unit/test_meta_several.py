"""Several metadata services on one store: what one begins and another ends, and who does the
chores."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from meta_world import CLIENT, ROOT, World

from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.errors import RetryElsewhere
from fs3.kv.api import Transaction
from fs3.kv.election import Fenced
from fs3.kv.memory import MemoryStore
from fs3.kv.transaction import SerialTransaction
from fs3.meta.clients import RECOUNT_S, SILENT_S
from fs3.meta.fsck import fsck
from fs3.meta.idempotency import GENERATION_S
from fs3.meta.leadership import LEASE_S
from fs3.meta.peers import DRAIN_S, Peers
from fs3.meta.pulse import BEAT_S, SLEPT_S, Pulse
from fs3.runtime.clock import ManualClock

A, B = b"a" * 16, b"b" * 16
OTHER = b"o" * 16


class SharedStore(MemoryStore):
    """As a database that others write to, too: every batch runs twice, as if the first run had met
    somebody."""

    shared = True

    def run_batch(self, operations: Sequence[Callable[[Transaction], Any]]) -> list[Any]:
        with self._lock:
            reader = self.begin()
            for operation in operations:
                scratch = SerialTransaction(reader)  # type: ignore[arg-type]
                scratch._view = reader._view  # type: ignore[attr-defined]
                try:
                    operation(scratch)
                except Exception:
                    continue
            reader.cancel()
            return super().run_batch(operations)


@pytest.fixture
def pair() -> Iterator[tuple[World, World]]:
    kv = SharedStore()
    first = World(kv, service=A)
    second = World(kv, beside=first, service=B)
    yield first, second
    assert fsck(kv) == []


def test_sessions_that_another_service_closed_do_not_count_against_the_client(pair, monkeypatch):
    monkeypatch.setattr("fs3.limits.SESSIONS_PER_CLIENT_MAX", 2)
    first, second = pair
    inode = first.create(b"f")
    for _ in range(5):
        session = first.open(inode).session
        second.call(pb.CLOSE, inode=inode, session=session)
        first.clock.advance(RECOUNT_S)
    held = [first.open(inode).session for _ in range(2)]
    first.fails(errno.EMFILE, pb.OPEN, inode=inode, flags=os.O_RDWR)
    for session in held:
        second.call(pb.CLOSE, inode=inode, session=session)
    first.fails(errno.EMFILE, pb.OPEN, inode=inode, flags=os.O_RDWR)
    first.clock.advance(RECOUNT_S)
    second.call(pb.CLOSE, inode=inode, session=first.open(inode).session)


def lead(world: World, *others: World) -> None:
    """`world` does the chores, after the lease of whoever did."""
    world.leadership.tick()
    world.clock.advance(LEASE_S)
    world.leadership.tick()
    assert world.leadership.leads
    assert not any(other.leadership.leads for other in others)


def cut_half_done(one: World) -> int:
    """A file whose truncate `one` has begun: the length is set, nothing is cut yet."""
    inode = one.write_file(b"f", 300_000)
    one.send(pb.SETATTR, one.request(pb.SETATTR, inode=inode, size=100))
    assert one.chunks.lengths[inode] == 300_000
    return inode


# ---- operations


def test_each_sees_what_the_other_committed(pair):
    one, two = pair
    directory = one.mkdir(b"d")
    inode = two.create(b"f", directory)
    one.rename(b"f", b"g", directory, ROOT)
    assert two.lookup(b"g").inode == inode
    two.unlink(b"g")
    one.fails(2, pb.LOOKUP, parent=ROOT, name=b"g")


def test_inode_ids_are_never_shared_and_a_repeated_attempt_takes_no_new_ones(pair):
    numbers = [[world.create(b"%d-%d" % (n, i)) for i in range(5)] for n, world in enumerate(pair)]
    assert len({*numbers[0], *numbers[1]}) == 10
    for mine in numbers:
        assert mine == list(range(mine[0], mine[0] + 5))


def test_a_request_that_moves_to_another_service_is_applied_once(pair):
    one, two = pair
    body = one.request(pb.MKDIR, parent=ROOT, name=b"d", mode=0o755)
    first = one.answer(one.send(pb.MKDIR, body), pb.MKDIR)
    again = two.answer(two.send(pb.MKDIR, body), pb.MKDIR)
    assert again.entry.attr == first.entry.attr
    unlink = one.request(pb.RMDIR, parent=ROOT, name=b"d")
    assert two.answer(two.send(pb.RMDIR, unlink), pb.RMDIR) == one.answer(
        one.send(pb.RMDIR, unlink), pb.RMDIR
    )


def test_a_reply_is_remembered_for_two_generations_whoever_turns_them(pair):
    one, two = pair
    for world in pair:
        world.store.tick()
    body = one.request(pb.MKDIR, parent=ROOT, name=b"d", mode=0o755)
    first = one.answer(one.send(pb.MKDIR, body), pb.MKDIR)
    for _ in range(2):
        one.clock.advance(GENERATION_S)
        for world in (two, one):
            world.store.tick()
        again = two.answer(two.send(pb.MKDIR, body), pb.MKDIR)
        assert again.entry.attr.inode == first.entry.attr.inode
    one.clock.advance(GENERATION_S)
    for world in (one, two):
        world.store.tick()
    with pytest.raises(OSError, match="exists"):
        two.answer(two.send(pb.MKDIR, body), pb.MKDIR)


def test_a_generation_lasts_its_time_however_many_services_count_it(pair):
    """They start at different moments: neither turns what the other has just turned."""
    one, two = pair
    one.store.tick()
    one.clock.advance(GENERATION_S / 2)
    two.store.tick()
    one.clock.advance(GENERATION_S / 2)
    one.store.tick()
    one.clock.advance(GENERATION_S / 2)
    two.store.tick()
    reader = one.kv.begin()
    assert one.store._idempotency.look(reader, 0) == 2
    reader.cancel()


# ---- truncates


def test_another_service_waits_for_a_truncate_and_does_not_cut(pair):
    one, two = pair
    inode = cut_half_done(one)
    token = two.send(pb.OPEN, two.request(pb.OPEN, inode=inode, flags=os.O_RDONLY))
    two.jobs.run(10)
    assert token not in two.delivered
    assert one.chunks.lengths[inode] == 300_000
    one.jobs.run()
    assert one.chunks.lengths[inode] == 100
    two.jobs.run(10)
    assert two.answer(token, pb.OPEN).attr.size == 100


def test_a_client_that_moves_in_a_truncate_is_answered_when_it_is_done(pair):
    one, two = pair
    inode = one.write_file(b"f", 300_000)
    body = one.request(pb.SETATTR, inode=inode, size=100)
    one.send(pb.SETATTR, body)
    token = two.send(pb.SETATTR, body)
    two.jobs.run(10)
    assert token not in two.delivered
    one.jobs.run()
    two.jobs.run(10)
    assert two.answer(token, pb.SETATTR).attr.size == 100


def test_the_truncate_of_a_dead_service_is_taken_over_and_a_late_one_cuts_nothing(pair):
    one, two = pair
    inode = cut_half_done(one)
    late, one.jobs.waiting = one.jobs.waiting, []
    lead(two, one)
    two.store.tick()
    two.jobs.run(10)
    assert one.chunks.lengths[inode] == 300_000
    two.gone.add(A)
    two.jobs.run(10)
    assert one.chunks.lengths[inode] == 100
    opened = two.open(inode)
    one.chunks.write(inode, 200_000)
    two.call(pb.SYNC, inode=inode, session=opened.session, written_end=200_000, wrote=True)
    one.jobs.waiting = late
    one.jobs.run(20)
    assert one.chunks.lengths[inode] == 200_000
    assert two.attr(inode).size == 200_000
    two.call(pb.CLOSE, inode=inode, session=opened.session)


# ---- chores


def test_one_service_does_the_chores_and_a_former_one_changes_nothing(pair):
    one, two = pair
    lead(one, two)
    one.write_file(b"f", 100)
    one.unlink(b"f")
    one.gc.step()
    one.clock.advance(LEASE_S + 1)
    assert not one.leadership.leads
    two.leadership.tick()
    lead(two, one)
    with pytest.raises(Fenced):
        one.gc.run_until_idle()
    assert one.chunks.lengths != {}
    two.gc.step()
    two.clock.advance(11)
    assert two.gc.run_until_idle() == 1
    assert one.chunks.lengths == {}
    one.leadership.tick()
    assert not one.leadership.leads


def test_rows_of_every_service_wait_out_the_delay_whatever_their_clocks_say(pair):
    one, two = pair
    lead(one, two)
    early = one.write_file(b"early", 100)
    late = two.write_file(b"late", 100)
    one.unlink(b"early")
    one.gc.step()
    one.clock.advance(9)
    wall_ns = two.clock.wall_ns()
    two.clock.wall_ns = lambda: wall_ns - 3600 * 10**9
    two.unlink(b"late")
    one.leadership.tick()
    one.clock.advance(2)
    one.leadership.tick()
    one.gc.run_until_idle()
    assert early not in one.chunks.lengths
    assert late in one.chunks.lengths


def test_a_reader_that_told_every_service_keeps_its_file_from_the_next_leader_too(pair):
    one, two = pair
    inode = one.write_file(b"f", 100)
    one.open(inode, os.O_RDONLY)
    for world in pair:
        world.call(pb.KEEPALIVE, open_inodes=[inode])
    one.unlink(b"f")
    for world, other in ((one, two), (two, one)):
        lead(world, other)
        assert world.collect() == 0
        world.clock.advance(LEASE_S)
        for each in pair:
            each.call(pb.KEEPALIVE, open_inodes=[inode])
    assert one.chunks.lengths == {inode: 100}
    for each in pair:
        each.call(pb.KEEPALIVE, open_inodes=[])
    lead(two, one)
    assert two.collect() == 1


def test_a_client_whose_only_service_died_with_it_is_pruned_by_the_leader(pair):
    one, two = pair
    inode = one.create(b"f")
    one.open(inode, client=OTHER)
    one.chunks.write(inode, 700)
    lead(two, one)
    two.store.tick()  # finds the client: silent from now on
    for _ in range(int((SILENT_S + 10) / (LEASE_S / 2))):
        two.clock.advance(LEASE_S / 2)
        two.leadership.tick()
        two.call(pb.KEEPALIVE, client=CLIENT)
    two.store.tick()
    two.jobs.run()
    assert two.attr(inode).size == 700


def test_a_service_that_does_not_lead_prunes_nobody(pair):
    one, two = pair
    inode = two.create(b"f")
    session = two.open(inode).session
    lead(one, two)
    two.clock.advance(SILENT_S + 1)
    two.store.tick()
    two.jobs.run()
    two.call(pb.CLOSE, inode=inode, session=session, written_end=0)


# ---- a service that slept


def test_a_service_without_a_lease_changes_nothing_and_still_reads(pair):
    one, _ = pair
    one.mkdir(b"d")
    one.store._may_change = lambda: False
    with pytest.raises(RetryElsewhere, match="no lease"):
        one.mkdir(b"e")
    assert one.lookup(b"d").inode
    one.fails(2, pb.LOOKUP, parent=ROOT, name=b"e")


def test_a_process_that_slept_takes_no_lease_whoever_wakes_first():
    for first in ("beat", "lease"):
        clock = ManualClock()
        pulse = Pulse(clock)
        for _ in range(5):
            clock.advance(BEAT_S)
            assert pulse.beat()
            assert pulse.take_lease(clock.boottime_ns() + 10**9)
        assert pulse.holds_lease()
        clock.advance(SLEPT_S + 1)
        assert not pulse.holds_lease()
        if first == "beat":
            assert not pulse.beat()
        assert not pulse.take_lease(clock.boottime_ns() + 10**9)
        assert not pulse.holds_lease()
        assert not pulse.beat()


def test_a_short_sleep_is_no_end_and_renewals_do_not_hide_a_long_one():
    clock = ManualClock()
    pulse = Pulse(clock)
    clock.advance(SLEPT_S - 1)
    assert pulse.take_lease(clock.boottime_ns() + 10**9)
    assert pulse.holds_lease()
    clock.advance(2)  # no beat since the start
    assert not pulse.take_lease(clock.boottime_ns() + 10**9)
    assert not pulse.holds_lease()


def test_a_dead_service_is_gone_only_when_its_capabilities_have_expired():
    clock = ManualClock()
    peers = Peers(clock)
    assert not peers.is_gone(A)  # nothing is known yet
    routing = common_pb2.RoutingInfo()
    routing.nodes.add(id=1, role="meta", incarnation=A, alive=True)
    peers.set_routing(routing)
    assert not peers.is_gone(A)
    routing.nodes[0].alive = False
    peers.set_routing(routing)
    assert not peers.is_gone(A)
    clock.advance(DRAIN_S - 1)
    assert not peers.is_gone(A)
    routing.nodes[0].alive = True  # it was only slow: the time begins anew
    peers.set_routing(routing)
    routing.nodes[0].alive = False
    peers.set_routing(routing)
    clock.advance(2)
    assert not peers.is_gone(A)
    clock.advance(DRAIN_S)
    assert peers.is_gone(A)
