"""CLOSE and SYNC: length, times, privileges, durability."""

import errno
import os

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb


@pytest.fixture
def opened(world):
    world.f = world.create(b"f")
    world.session = world.open(world.f).session
    world.clock.advance(1)
    return world


def close(world, **fields):
    return world.call(pb.CLOSE, inode=world.f, session=world.session, **fields).attr


def sync(world, **fields):
    return world.call(pb.SYNC, inode=world.f, session=world.session, **fields).attr


def test_the_length_grows_to_the_end_of_the_writes(opened):
    assert sync(opened, written_end=100, wrote=True).size == 100
    assert sync(opened, written_end=50, wrote=True).size == 100
    assert close(opened, written_end=300, wrote=True).size == 300
    assert opened.attr(opened.f).size == 300


def test_a_close_without_writes_changes_nothing(opened):
    before = opened.attr(opened.f)
    assert close(opened) == before


def test_times_and_data_version_move_with_content(opened):
    before = opened.attr(opened.f)
    attr = sync(opened, wrote=True, written_end=1)
    now_ns = opened.clock.wall_ns()
    assert attr.mtime_ns == attr.ctime_ns == now_ns
    assert attr.data_version > before.data_version
    opened.clock.advance(10)
    attr = sync(opened, wrote=True, written_end=1, mtime_ns=now_ns + 5)
    assert attr.mtime_ns == now_ns + 5
    assert close(opened, wrote=True, mtime_ns=1 << 62).mtime_ns == opened.clock.wall_ns()


def test_ctime_is_of_the_write_and_not_of_the_sync_after_it(opened):
    written_ns = opened.clock.wall_ns()
    opened.clock.advance(5)
    attr = sync(opened, wrote=True, written_end=1, mtime_ns=written_ns)
    assert attr.ctime_ns == written_ns
    changed_ns = opened.clock.wall_ns()
    opened.call(pb.SETATTR, inode=opened.f, mode=0o600)
    opened.clock.advance(5)
    assert close(opened, wrote=True, mtime_ns=written_ns).ctime_ns == changed_ns


def test_an_explicit_time_survives_the_close_of_what_was_written_before(opened):
    """cp -p: write, futimens, close."""
    written_ns = opened.clock.wall_ns()
    opened.clock.advance(1)
    opened.call(pb.SETATTR, inode=opened.f, mtime_ns=12345)
    assert sync(opened, wrote=True, written_end=9, mtime_ns=written_ns).mtime_ns == 12345
    opened.clock.advance(1)
    later_ns = opened.clock.wall_ns()
    assert close(opened, wrote=True, mtime_ns=later_ns).mtime_ns == later_ns


def test_a_sync_renews_the_capability_and_keeps_the_session(opened):
    reply = opened.call(pb.SYNC, inode=opened.f, session=opened.session)
    assert len(reply.capability) == 80
    assert reply.session == opened.session
    assert close(opened).inode == opened.f
    reply = opened.call(pb.SYNC, inode=opened.f, session=opened.session)
    assert not reply.capability


def test_a_write_takes_setuid_away(world):
    inode = world.create(b"f", mode=0o666)
    session = world.open(inode, os.O_WRONLY, uid=7).session
    world.call(pb.SETATTR, inode=inode, mode=0o6777)
    # The close comes under the name of the client process; the writer is who opened.
    world.call(pb.CLOSE, inode=inode, session=session, written_end=1, wrote=True, uid=0)
    assert world.attr(inode).mode == 0o777
    session = world.open(inode, os.O_WRONLY).session
    world.call(pb.SETATTR, inode=inode, mode=0o6777)
    world.call(pb.CLOSE, inode=inode, session=session, written_end=1, wrote=True)
    assert world.attr(inode).mode == 0o6777


def test_a_session_that_is_gone_loses_no_bytes(opened):
    close(opened)
    opened.chunks.write(opened.f, 700)
    attr = close(opened, written_end=900, wrote=True)
    assert attr.size == 700  # what storage really has
    opened.fails(
        errno.EACCES, pb.CLOSE, inode=opened.f, session=b"", written_end=9, wrote=True, uid=7
    )


def test_sessions_of_other_clients_are_not_closed(opened):
    opened.chunks.write(opened.f, 10)
    opened.call(
        pb.CLOSE,
        inode=opened.f,
        session=opened.session,
        written_end=50,
        wrote=True,
        client=b"client-bbbbbbbbb",
    )
    assert opened.attr(opened.f).size == 10
    assert opened.call(pb.SYNC, inode=opened.f, session=opened.session).session
    close(opened)


def test_beyond_the_largest_file(opened):
    opened.fails(
        errno.EFBIG,
        pb.SYNC,
        inode=opened.f,
        session=opened.session,
        written_end=limits.FILE_BYTES_MAX + 1,
        wrote=True,
    )
    close(opened)


def test_durable_syncs_share_one_flush(opened, monkeypatch):
    flushes = []
    monkeypatch.setattr(opened.kv, "sync", lambda: flushes.append(len(opened.delivered)))
    body = {"inode": opened.f, "session": opened.session, "durable": True}
    tokens = [opened.send(pb.SYNC, opened.request(pb.SYNC, **body)) for _ in range(5)]
    assert opened.delivered == {}
    opened.jobs.run()
    assert flushes == [0]
    for token in tokens:
        assert opened.answer(token, pb.SYNC).attr.inode == opened.f
    close(opened)
