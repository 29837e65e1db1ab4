"""Truncates by SETATTR and O_TRUNC, and the cut of the chunks among crashes and others."""

import errno
import os

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.meta.fsck import fsck

TRUNC = os.O_WRONLY | os.O_TRUNC


def test_shrinking_cuts_the_chunks_before_the_reply(world):
    inode = world.write_file(b"f", 5000)
    world.clock.advance(1)
    token = world.send(pb.SETATTR, world.request(pb.SETATTR, inode=inode, size=100))
    assert token not in world.delivered
    assert world.chunks.lengths == {inode: 5000}
    world.jobs.run()
    attr = world.answer(token, pb.SETATTR).attr
    assert attr.size == 100
    assert attr.mtime_ns == attr.ctime_ns == world.clock.wall_ns()
    assert world.chunks.lengths == {inode: 100}
    assert world.chunks.calls == [("truncate", inode, 5000, 100)]


def test_growing_and_files_that_nobody_wrote_cost_storage_nothing(world):
    inode = world.create(b"f")
    assert world.call(pb.SETATTR, inode=inode, size=1 << 40).attr.size == 1 << 40
    assert world.call(pb.SETATTR, inode=inode, size=10).attr.size == 10
    session = world.open(inode, TRUNC).session
    world.call(pb.CLOSE, inode=inode, session=session)
    assert world.attr(inode).size == 0
    assert world.chunks.calls == []
    full = world.write_file(b"g", 1000)
    assert world.call(pb.SETATTR, inode=full, size=2000).attr.size == 2000
    assert world.chunks.calls == []


def test_a_file_cut_to_nothing_is_as_new(world):
    inode = world.write_file(b"f", 5000)
    world.call(pb.SETATTR, inode=inode, size=0)
    assert world.chunks.calls == [("remove", inode, 5000)]
    world.call(pb.SETATTR, inode=inode, size=500)
    world.call(pb.SETATTR, inode=inode, size=0)
    world.unlink(b"f")
    assert world.collect() == 1
    assert len(world.chunks.calls) == 1


def test_unsettled_bytes_of_open_writers_are_cut_as_well(world):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.chunks.write(inode, 9000)  # acknowledged by storage, unknown to the service
    world.call(pb.SETATTR, inode=inode, size=100, client=b"client-bbbbbbbbb")
    assert world.chunks.lengths == {inode: 100}
    attr = world.call(pb.CLOSE, inode=inode, session=session, written_end=9000, wrote=True).attr
    assert attr.size == 100


def test_what_is_written_after_the_truncate_of_another_counts(world):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.chunks.write(inode, 9000)
    world.call(pb.SETATTR, inode=inode, size=100, client=b"client-bbbbbbbbb")
    world.chunks.write(inode, 3000)
    attr = world.call(pb.CLOSE, inode=inode, session=session, written_end=9000, wrote=True).attr
    assert attr.size == 3000


def test_the_client_that_truncates_is_believed(world):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.chunks.write(inode, 9000)
    world.call(pb.SETATTR, inode=inode, size=100, session=session)
    world.chunks.calls.clear()
    world.chunks.write(inode, 400)
    attr = world.call(pb.CLOSE, inode=inode, session=session, written_end=400, wrote=True).attr
    assert attr.size == 400
    assert world.chunks.calls == []


def test_permissions(world):
    inode = world.write_file(b"f", 100, uid=0)
    world.call(pb.SETATTR, inode=inode, mode=0o4777, set_uid=7)
    world.call(pb.SETATTR, inode=inode, mode=0o4777)
    assert world.call(pb.SETATTR, inode=inode, size=50, uid=8).attr.mode == 0o777
    world.call(pb.SETATTR, inode=inode, mode=0o644)
    world.fails(errno.EACCES, pb.SETATTR, inode=inode, size=5, uid=8)
    directory = world.mkdir(b"d")
    world.fails(errno.EISDIR, pb.SETATTR, inode=directory, size=5)
    link = world.call(pb.SYMLINK, parent=1, name=b"l", target=b"x").entry.attr.inode
    world.fails(errno.EINVAL, pb.SETATTR, inode=link, size=5)
    world.fails(errno.EFBIG, pb.SETATTR, inode=inode, size=limits.FILE_BYTES_MAX + 1)


def test_an_open_handle_needs_no_permission_any_more(world):
    inode = world.write_file(b"f", 100)
    world.call(pb.SETATTR, inode=inode, set_uid=7)
    session = world.open(inode, uid=7).session
    world.call(pb.SETATTR, inode=inode, mode=0o400)
    world.fails(errno.EACCES, pb.SETATTR, inode=inode, size=5, uid=7)
    world.fails(errno.EACCES, pb.SETATTR, inode=inode, size=5, uid=7, session=b"x" * 16)
    other = {"client": b"client-bbbbbbbbb", "session": session}
    world.fails(errno.EACCES, pb.SETATTR, inode=inode, size=5, uid=7, **other)
    world.call(pb.SETATTR, inode=inode, size=5, uid=7, session=session)
    world.call(pb.CLOSE, inode=inode, session=session)


def test_others_wait_for_a_truncate_in_progress(world):
    inode = world.write_file(b"f", 5000)
    first = world.send(pb.SETATTR, world.request(pb.SETATTR, inode=inode, size=100))
    opened = world.send(pb.OPEN, world.request(pb.OPEN, inode=inode, flags=os.O_RDWR))
    longer = world.send(pb.SETATTR, world.request(pb.SETATTR, inode=inode, size=9000))
    assert world.delivered == {}
    assert world.attr(inode).size == 100  # reading attributes does not wait
    world.jobs.run()
    assert world.answer(first, pb.SETATTR).attr.size == 100
    session = world.answer(opened, pb.OPEN).session
    assert world.answer(longer, pb.SETATTR).attr.size == 9000
    world.call(pb.CLOSE, inode=inode, session=session)
    assert world.chunks.lengths == {inode: 100}


def test_storage_may_refuse_for_a_while(world):
    inode = world.write_file(b"f", 5000)
    world.chunks.fail_next = 3
    assert world.call(pb.SETATTR, inode=inode, size=100).attr.size == 100
    assert len(world.chunks.calls) == 4


def test_the_caller_is_told_to_come_again_when_storage_stays_away(world):
    inode = world.write_file(b"f", 5000)
    body = world.request(pb.SETATTR, inode=inode, size=100)
    token = world.send(pb.SETATTR, body)
    world.clock.advance(31)
    world.store.tick()
    with pytest.raises(OSError) as busy:
        world.answer(token, pb.SETATTR)
    assert busy.value.errno == errno.EAGAIN
    again = world.send(pb.SETATTR, body)
    assert again not in world.delivered  # applied already, yet the chunks are still there
    world.jobs.run()
    assert world.answer(again, pb.SETATTR).attr.size == 100
    assert world.chunks.lengths == {inode: 100}


@pytest.mark.parametrize("crash_in", ["before the cut", "after the cut"])
def test_a_crash_between_the_two_transactions_is_resumed(world, crash_in):
    inode = world.write_file(b"f", 5000)
    body = world.request(pb.OPEN, inode=inode, flags=TRUNC)
    token = world.send(pb.OPEN, body)
    if crash_in == "after the cut":
        world.chunks.remove_chunks(inode, None, 5000)
    world.restart()
    assert world.attr(inode).size == 0
    again = world.send(pb.OPEN, body)
    assert token not in world.delivered
    assert again not in world.delivered
    world.jobs.run()
    reply = world.answer(again, pb.OPEN)
    assert reply.attr.size == 0
    assert len(reply.capability) == 80
    assert world.chunks.lengths == {}
    assert world.jobs.waiting == []
    world.call(pb.CLOSE, inode=inode, session=reply.session)
    assert fsck(world.kv) == []


def test_a_truncate_of_a_file_that_goes_meanwhile(world):
    inode = world.write_file(b"f", 5000)
    token = world.send(pb.SETATTR, world.request(pb.SETATTR, inode=inode, size=100))
    world.unlink(b"f")
    assert world.collect() == 0  # gc waits for the intent
    world.jobs.run()
    assert world.answer(token, pb.SETATTR).attr.size == 100
    assert world.collect() == 1
    assert world.chunks.lengths == {}
