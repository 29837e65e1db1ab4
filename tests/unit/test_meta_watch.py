"""WATCH at the service: answers of changes wait for those who believe otherwise, whatever else they
wait for, whoever repeats them, and over a restart."""

import os

import pytest
from meta_world import CLIENT, OTHER_CLIENT, ROOT, World
from test_meta_several import SharedStore

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.meta.leases import GRACE_S, SESSION_S

THIRD = b"client-ccccccccc"


class Holder:
    """A client that caches."""

    def __init__(self, world: World, client: bytes = OTHER_CLIENT, formerly: bytes = b"") -> None:
        self.world = world
        self.client = client
        self.session = world.call(pb.WATCH, client=client, formerly=formerly).session
        self.received = self.acked = 0
        self.recalled: list[object] = []
        self.token: object = None

    def watch(self) -> None:
        """Sends the next WATCH; its answer may come later."""
        self.token = self.world.send(
            pb.WATCH,
            self.world.request(
                pb.WATCH,
                client=self.client,
                session=self.session,
                received=self.received,
                acked=self.acked,
                wait=True,
            ),
        )

    def hear(self) -> bool:
        """Obeys what has come; True when something had."""
        if self.token not in self.world.delivered:
            return False
        reply = self.world.answer(self.token, pb.WATCH)
        for recall in reply.recalls:
            name = (recall.parent, recall.name)
            self.recalled.append(recall.inode if recall.inode else name)
        self.received = self.acked = max(self.acked, reply.sequence)
        return True


@pytest.fixture
def holder(world: World) -> Holder:
    return Holder(world)


def begin(world: World, method: int, **fields) -> object:
    return world.send(method, world.request(method, **fields))


def test_a_change_is_answered_when_the_other_has_acknowledged(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    token = begin(world, pb.SETATTR, inode=inode, mode=0o600)
    assert token not in world.delivered
    assert holder.hear()
    assert holder.recalled == [inode]
    assert token not in world.delivered
    holder.watch()
    assert world.answer(token, pb.SETATTR).attr.mode == 0o600


def test_what_nobody_else_believes_costs_no_round(world, holder):
    inode = world.create(b"f")
    holder.watch()
    world.call(pb.SETATTR, inode=inode, mode=0o600)
    assert not holder.hear()


def test_a_read_waits_for_nobody(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    begin(world, pb.SETATTR, inode=inode, mode=0o600)
    assert world.attr(inode).mode == 0o600


def test_names_there_and_missing_are_recalled(world, holder):
    world.create(b"f")
    world.lookup(b"f", client=OTHER_CLIENT)
    world.call(pb.LOOKUP, parent=ROOT, name=b"g", negative=True, client=OTHER_CLIENT)
    for method, fields in (
        (pb.UNLINK, {"parent": ROOT, "name": b"f"}),
        (pb.MKDIR, {"parent": ROOT, "name": b"g", "mode": 0o755}),
    ):
        holder.watch()
        token = begin(world, method, **fields)
        assert token not in world.delivered
        assert holder.hear()
        holder.watch()
        world.answer(token, method)
        world.jobs.run()
        holder.hear()
    assert (ROOT, b"f") in holder.recalled
    assert (ROOT, b"g") in holder.recalled


def test_a_rename_recalls_both_names(world, holder):
    inode = world.create(b"f")
    world.create(b"g")
    for name in (b"f", b"g"):
        world.lookup(name, client=OTHER_CLIENT)
    holder.watch()
    token = begin(world, pb.RENAME, old_parent=ROOT, old_name=b"f", new_parent=ROOT, new_name=b"g")
    assert holder.hear()
    assert {(ROOT, b"f"), (ROOT, b"g"), inode} <= set(holder.recalled)
    holder.watch()
    world.answer(token, pb.RENAME)


def test_a_listing_grants_every_entry(world, holder):
    names = [b"%d" % number for number in range(5)]
    made = [world.create(name) for name in names]
    reply = world.call(pb.READDIR, inode=ROOT, attributes=True, client=OTHER_CLIENT)
    assert [entry.leased for entry in reply.entries] == [True] * 5
    assert reply.lease.id == holder.session
    leases = world.store.env.leases
    assert all(leases.holds_inode(OTHER_CLIENT, inode) for inode in made)
    assert all(leases.holds_name(OTHER_CLIENT, ROOT, name) for name in names)


def test_a_repeated_request_waits_behind_the_first(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    body = world.request(pb.SETATTR, inode=inode, mode=0o600)
    first = world.send(pb.SETATTR, body)
    again = world.send(pb.SETATTR, body)
    assert again not in world.delivered
    assert holder.hear()
    holder.watch()
    assert world.answer(first, pb.SETATTR).attr.mode == 0o600
    assert world.answer(again, pb.SETATTR).attr.mode == 0o600
    third = world.send(pb.SETATTR, body)
    assert world.answer(third, pb.SETATTR).attr.mode == 0o600


def test_a_truncate_waits_for_storage_and_for_holders(world, holder):
    inode = world.write_file(b"f", 300_000)
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    token = begin(world, pb.SETATTR, inode=inode, size=100)
    assert holder.hear()
    world.jobs.run()
    assert world.chunks.lengths[inode] == 100
    assert token not in world.delivered
    holder.watch()
    assert world.answer(token, pb.SETATTR).attr.size == 100


def test_a_durable_sync_waits_for_both(world, holder):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    token = begin(
        world, pb.SYNC, inode=inode, session=session, wrote=True, written_end=5, durable=True
    )
    world.jobs.run()
    assert token not in world.delivered
    assert holder.hear()
    holder.watch()
    assert world.answer(token, pb.SYNC).attr.size == 5
    world.call(pb.CLOSE, inode=inode, session=session)


def test_a_silent_holder_is_waited_for_until_its_session_has_ended(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    token = begin(world, pb.SETATTR, inode=inode, mode=0o600)
    world.clock.advance(SESSION_S)
    world.store.tick()
    assert token not in world.delivered
    world.clock.advance(GRACE_S + 0.1)
    world.store.tick()
    world.answer(token, pb.SETATTR)
    holder.watch()
    assert world.answer(holder.token, pb.WATCH).session == 0
    txn = world.kv.begin()
    assert txn.get(keys.watcher(OTHER_CLIENT)) is None


def test_what_the_service_does_by_itself_is_recalled(world, holder):
    """A client dies; its file gets its length from storage, and others see it."""
    inode = world.create(b"f")
    world.open(inode, client=THIRD)
    world.chunks.write(inode, 77)
    world.clock.advance(61)
    holder.session = world.call(pb.WATCH, client=OTHER_CLIENT).session
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    world.store.tick()
    world.jobs.waiting = [job for job in world.jobs.waiting if "prune" in str(job)]
    world.jobs.run()
    assert world.attr(inode).size == 77
    assert holder.hear()
    assert inode in holder.recalled


def test_after_a_restart_changes_wait_until_former_holders_are_back(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    world.restart()
    token = begin(world, pb.SETATTR, inode=inode, mode=0o600)
    assert token not in world.delivered
    holder.watch()
    assert world.answer(holder.token, pb.WATCH).session == 0
    assert token not in world.delivered
    Holder(world)
    world.answer(token, pb.SETATTR)


def test_a_change_of_before_a_restart_is_not_answered_before_either(world, holder):
    """It was committed and nobody was told of it: its answer, repeated, waits as well."""
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    body = world.request(pb.SETATTR, inode=inode, mode=0o600)
    world.send(pb.SETATTR, body)
    world.restart()
    again = world.send(pb.SETATTR, body)
    assert again not in world.delivered
    Holder(world)
    assert world.answer(again, pb.SETATTR).attr.mode == 0o600


def test_a_mount_that_ends_is_not_waited_for(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    world.call(pb.WATCH, client=OTHER_CLIENT, session=holder.session, close=True)
    world.call(pb.SETATTR, inode=inode, mode=0o600)
    world.restart()
    world.call(pb.SETATTR, inode=inode, mode=0o600)


def test_the_next_process_of_a_mount_continues_its_session(world, holder):
    inode = world.create(b"f")
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    token = begin(world, pb.SETATTR, inode=inode, mode=0o600)
    assert holder.token in world.delivered, "told, and killed before it obeyed"
    following = Holder(world, THIRD, formerly=OTHER_CLIENT)
    assert token not in world.delivered
    following.watch()
    assert following.hear()
    assert following.recalled == [inode]
    following.watch()
    world.answer(token, pb.SETATTR)
    rows = world.kv.begin().get_range(keys.WATCHER, keys.prefix_end(keys.WATCHER))
    assert [key for key, _ in rows] == [keys.watcher(THIRD)]


def test_who_continues_an_ill_formed_client_is_refused(world):
    with pytest.raises(OSError, match="formerly"):
        world.call(pb.WATCH, client=THIRD, formerly=b"short")


def test_who_opens_for_writing_and_truncates_is_waited_for(world, holder):
    inode = world.write_file(b"f", 10)
    world.call(pb.GETATTR, inode=inode, client=OTHER_CLIENT)
    holder.watch()
    token = begin(world, pb.OPEN, inode=inode, flags=os.O_WRONLY | os.O_TRUNC)
    world.jobs.run()
    assert token not in world.delivered
    assert holder.hear()
    holder.watch()
    world.call(pb.CLOSE, inode=inode, session=world.answer(token, pb.OPEN).session)


def test_a_shared_store_has_no_sessions():
    world = World(SharedStore(), service=b"a" * 16)
    assert world.call(pb.WATCH).unsupported
    world.create(b"f")
    lease = world.call(pb.LOOKUP, parent=ROOT, name=b"f").entry.lease
    assert (lease.id, lease.ttl_ms) == (0, 1000)


def test_a_watch_without_a_client_is_refused(world):
    with pytest.raises(OSError):
        world.call(pb.WATCH, client=b"")


def test_what_a_change_does_beside_what_it_was_asked_for_is_recalled_from_its_author(world):
    """A kernel knows that its unlink takes a name away, not that the trash has a new one."""
    holder = Holder(world, CLIENT)
    kept = world.mkdir(b"kept")
    world.call(pb.SETXATTR, inode=kept, name=b"user.fs3.trash", value=b"7d")
    for name in (b"first", b"second"):
        world.create(name, parent=kept)
    world.unlink(b"first", parent=kept)
    own = world.lookup(b"0", parent=world.lookup(b".trash").inode).inode
    (hour,) = world.names(own)
    at = world.lookup(hour, parent=own).inode
    name = b"second#%d" % world.lookup(b"second", parent=kept).inode
    world.call(pb.LOOKUP, parent=at, name=name, negative=True)
    holder.watch()
    token = begin(world, pb.UNLINK, parent=kept, name=b"second")
    assert holder.hear()
    assert (at, name) in holder.recalled
    assert (kept, b"second") not in holder.recalled
    holder.watch()
    world.answer(token, pb.UNLINK)


def test_own_changes_are_not_recalled(world):
    holder = Holder(world, CLIENT)
    inode = world.create(b"f")
    world.attr(inode)
    holder.watch()
    world.call(pb.SETATTR, inode=inode, mode=0o600)
    world.unlink(b"f")
    assert not holder.hear()
