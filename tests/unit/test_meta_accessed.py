"""ACCESSED: which times of access count."""

import errno

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb


def tell(world, *times, **fields):
    times = [pb.AccessTime(inode=i, was_ns=was, atime_ns=now) for i, was, now in times]
    world.call(pb.ACCESSED, times=times, **fields)


@pytest.fixture
def read(world):
    """A file that was born, and read a second later."""
    world.f = world.create(b"f", mode=0o600)
    world.born_ns = world.attr(world.f).atime_ns
    world.clock.advance(1)
    world.read_ns = world.clock.wall_ns()
    world.clock.advance(1)
    return world


def test_only_the_time_of_access_changes(read):
    before = read.attr(read.f)
    tell(read, (read.f, read.born_ns, read.read_ns))
    after = read.attr(read.f)
    assert after.atime_ns == read.read_ns
    assert after.version > before.version
    assert (after.mtime_ns, after.ctime_ns) == (before.mtime_ns, before.ctime_ns)
    assert after.data_version == before.data_version


def test_it_never_goes_back_nor_ahead(read):
    tell(read, (read.f, read.born_ns, read.read_ns))
    tell(read, (read.f, read.born_ns, read.read_ns - 5))
    assert read.attr(read.f).atime_ns == read.read_ns
    tell(read, (read.f, read.born_ns, 1 << 62))
    assert read.attr(read.f).atime_ns == read.clock.wall_ns()


def test_a_time_that_was_set_meanwhile_is_right(read):
    read.call(pb.SETATTR, inode=read.f, atime_ns=5)
    tell(read, (read.f, read.born_ns, read.read_ns))
    assert read.attr(read.f).atime_ns == 5
    tell(read, (read.f, 5, read.read_ns))
    assert read.attr(read.f).atime_ns == read.read_ns


def test_what_does_not_count_is_passed_over(read):
    g = read.create(b"g", mode=0o644)
    born_ns = read.attr(g).atime_ns
    read.clock.advance(1)
    now_ns = read.clock.wall_ns()
    read.call(pb.SETFLAGS, inode=read.f, flags=pb.NO_ATIME)
    tell(read, (999, 0, now_ns), (read.f, read.born_ns, now_ns), (g, born_ns, now_ns))
    assert read.attr(read.f).atime_ns == read.born_ns
    assert read.attr(g).atime_ns == now_ns


def test_who_may_not_read_did_not(read):
    tell(read, (read.f, read.born_ns, read.read_ns), uid=7)
    assert read.attr(read.f).atime_ns == read.born_ns


def test_too_many_are_refused(read):
    times = [pb.AccessTime(inode=read.f)] * (limits.ACCESS_TIMES_MAX + 1)
    read.fails(errno.EINVAL, pb.ACCESSED, times=times)
