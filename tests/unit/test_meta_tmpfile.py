"""O_TMPFILE: a file without a name, its first one, and its end with its session."""

import errno
import os

import pytest

from fs3._proto import meta_pb2 as pb
from fs3.meta.fsck import fsck

OTHER = b"client-bbbbbbbbb"


def tmpfile(world, parent, flags=os.O_RDWR, mode=0o666, **fields):
    flags |= os.O_TMPFILE
    return world.call(pb.CREATE, parent=parent, open=True, flags=flags, mode=mode, **fields)


def link(world, inode, name, **fields):
    return world.call(pb.LINK, inode=inode, parent=world.d, name=name, **fields).entry.attr


@pytest.fixture
def mine(world):
    world.d = world.mkdir(b"d", mode=0o777)
    world.clock.advance(1)
    return world


def test_it_has_no_name_and_the_directory_does_not_change(mine):
    before = mine.attr(mine.d)
    reply = tmpfile(mine, mine.d, uid=7, umask=0o022)
    assert reply.session
    assert reply.capability
    assert reply.created
    assert (reply.attr.nlink, reply.attr.mode, reply.attr.uid) == (0, 0o644, 7)
    assert mine.attr(mine.d) == before
    assert mine.names(mine.d) == []
    assert fsck(mine.kv) == []


def test_it_goes_when_its_session_ends(mine):
    reply = tmpfile(mine, mine.d)
    mine.chunks.write(reply.attr.inode, 100)
    mine.collect()
    assert mine.attr(reply.attr.inode).nlink == 0
    mine.restart()
    mine.collect()
    session = {"inode": reply.attr.inode, "session": reply.session}
    mine.call(pb.CLOSE, written_end=100, wrote=True, **session)
    mine.collect()
    mine.fails(errno.ENOENT, pb.GETATTR, inode=reply.attr.inode)
    assert not mine.chunks.lengths


def test_a_name_makes_it_stay(mine):
    reply = tmpfile(mine, mine.d)
    mine.clock.advance(1)
    attr = link(mine, reply.attr.inode, b"x")
    assert (attr.nlink, attr.ctime_ns) == (1, mine.clock.wall_ns())
    assert fsck(mine.kv) == []
    mine.call(pb.CLOSE, inode=attr.inode, session=reply.session)
    mine.collect()
    assert mine.lookup(b"x", mine.d).inode == attr.inode
    link(mine, attr.inode, b"y")
    mine.unlink(b"x", mine.d)
    mine.unlink(b"y", mine.d)
    mine.fails(errno.ENOENT, pb.LINK, inode=attr.inode, parent=mine.d, name=b"z")
    mine.collect()
    mine.fails(errno.ENOENT, pb.GETATTR, inode=attr.inode)


def test_an_exclusive_one_never_gets_a_name(mine):
    reply = tmpfile(mine, mine.d, os.O_RDWR | os.O_EXCL)
    mine.fails(errno.ENOENT, pb.LINK, inode=reply.attr.inode, parent=mine.d, name=b"x")


def test_only_who_has_it_open_names_it(mine):
    reply = tmpfile(mine, mine.d)
    names = {"inode": reply.attr.inode, "parent": mine.d, "name": b"x"}
    mine.fails(errno.ENOENT, pb.LINK, client=OTHER, **names)
    mine.call(pb.CLOSE, inode=reply.attr.inode, session=reply.session)
    mine.fails(errno.ENOENT, pb.LINK, **names)


def test_a_file_that_lost_its_name_gets_no_other(mine):
    inode = mine.create(b"x", mine.d)
    mine.open(inode)
    mine.unlink(b"x", mine.d)
    mine.fails(errno.ENOENT, pb.LINK, inode=inode, parent=mine.d, name=b"y")


def test_what_is_refused(mine):
    flags = os.O_RDONLY | os.O_TMPFILE
    mine.fails(errno.EINVAL, pb.CREATE, parent=mine.d, open=True, flags=flags)
    closed = mine.mkdir(b"closed", mode=0o755)
    flags = os.O_RDWR | os.O_TMPFILE
    mine.fails(errno.EACCES, pb.CREATE, parent=closed, open=True, flags=flags, uid=7)
    file = mine.create(b"f", mine.d)
    mine.fails(errno.ENOTDIR, pb.CREATE, parent=file, open=True, flags=flags)
    gone = mine.mkdir(b"gone", mine.d)
    mine.call(pb.RMDIR, parent=mine.d, name=b"gone")
    mine.fails(errno.ENOENT, pb.CREATE, parent=gone, open=True, flags=flags)


def test_a_repeated_request_makes_one(mine):
    fields = {"parent": mine.d, "open": True, "flags": os.O_RDWR | os.O_TMPFILE}
    body = mine.request(pb.CREATE, **fields)
    first = mine.answer(mine.send(pb.CREATE, body), pb.CREATE)
    again = mine.answer(mine.send(pb.CREATE, body), pb.CREATE)
    assert first.attr == again.attr
