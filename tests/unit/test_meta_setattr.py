"""SETATTR: chmod, chown, utimens. Truncation has tests of its own."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb


def setattr_(world, inode, **fields):
    return world.call(pb.SETATTR, inode=inode, **fields).attr


@pytest.fixture
def mine(world):
    """A file of user 7, group 70."""
    directory = world.mkdir(b"d", mode=0o777)
    world.mine = world.create(b"f", directory, mode=0o644, uid=7, gid=70)
    world.clock.advance(1)
    return world


def test_chmod_by_the_owner(mine):
    attr = setattr_(mine, mine.mine, mode=0o600, uid=7, gid=70)
    assert attr.mode == 0o600
    assert attr.ctime_ns == mine.clock.wall_ns()
    assert attr.mtime_ns < attr.ctime_ns
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, mode=0o777, uid=8)
    mine.fails(errno.EINVAL, pb.SETATTR, inode=mine.mine, mode=0o10000)


def test_setgid_needs_the_group(mine):
    assert setattr_(mine, mine.mine, mode=0o2755, uid=7, gid=70).mode == 0o2755
    assert setattr_(mine, mine.mine, mode=0o2755, uid=7, gid=1).mode == 0o755
    assert setattr_(mine, mine.mine, mode=0o2755, uid=7, gid=1, groups=[70]).mode == 0o2755
    assert setattr_(mine, mine.mine, mode=0o2755).mode == 0o2755


def test_only_root_gives_files_away(mine):
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, set_uid=8, uid=7)
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, set_uid=8, uid=8)
    assert setattr_(mine, mine.mine, set_uid=7, uid=7).uid == 7
    assert setattr_(mine, mine.mine, set_uid=8).uid == 8
    assert setattr_(mine, mine.mine, set_uid=0).uid == 0


def test_the_owner_chooses_among_his_groups(mine):
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, set_gid=99, uid=7, gid=70)
    assert setattr_(mine, mine.mine, set_gid=71, uid=7, gid=70, groups=[71]).gid == 71
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, set_gid=71, uid=8, gid=71)


def test_chown_takes_setuid_and_setgid_away(mine):
    setattr_(mine, mine.mine, mode=0o6755)
    assert setattr_(mine, mine.mine, set_uid=9).mode == 0o755
    setattr_(mine, mine.mine, mode=0o2745)
    assert setattr_(mine, mine.mine, set_gid=9).mode == 0o2745  # no execution: it means locking
    directory = mine.mkdir(b"s")
    setattr_(mine, directory, mode=0o6755)
    assert setattr_(mine, directory, set_uid=9).mode == 0o6755


def test_explicit_times_are_the_owners(mine):
    times = {"atime_ns": 5, "mtime_ns": -7}
    attr = setattr_(mine, mine.mine, uid=7, **times)
    assert (attr.atime_ns, attr.mtime_ns) == (5, -7)
    assert attr.ctime_ns == mine.clock.wall_ns()
    setattr_(mine, mine.mine, mode=0o666)
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, uid=8, **times)


def test_both_times_now_needs_only_to_write(mine):
    now = {"atime_now": True, "mtime_now": True}
    mine.fails(errno.EACCES, pb.SETATTR, inode=mine.mine, uid=8, **now)
    setattr_(mine, mine.mine, mode=0o646)
    attr = setattr_(mine, mine.mine, uid=8, **now)
    assert attr.atime_ns == attr.mtime_ns == mine.clock.wall_ns()
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, uid=8, mtime_now=True)
    setattr_(mine, mine.mine, mode=0)
    setattr_(mine, mine.mine, uid=7, **now)


def test_one_time_alone_leaves_the_other(mine):
    before = mine.attr(mine.mine)
    attr = setattr_(mine, mine.mine, atime_ns=1)
    assert (attr.atime_ns, attr.mtime_ns) == (1, before.mtime_ns)


def test_refused_whole(mine):
    mine.fails(errno.EPERM, pb.SETATTR, inode=mine.mine, mode=0o600, set_uid=8, uid=7)
    assert mine.attr(mine.mine).mode == 0o644
    mine.fails(errno.ENOENT, pb.SETATTR, inode=99, mode=0)


def test_every_change_grows_the_version(mine):
    versions = [setattr_(mine, mine.mine, mode=mode).version for mode in (0o600, 0o600, 0o640)]
    assert versions == sorted(set(versions))


def test_a_writer_takes_privileges_away(mine):
    """For a mount, whose user need not own what he writes to."""
    drop = {"inode": mine.mine, "drop_privileges": True}
    setattr_(mine, mine.mine, mode=0o6757)
    assert setattr_(mine, mine.mine, uid=8, drop_privileges=True).mode == 0o757
    setattr_(mine, mine.mine, mode=0o6750)
    mine.fails(errno.EACCES, pb.SETATTR, uid=8, **drop)
    assert setattr_(mine, mine.mine, uid=7, gid=70, drop_privileges=True).mode == 0o750
    setattr_(mine, mine.mine, mode=0o4757)
    session = mine.open(mine.mine, uid=8).session
    setattr_(mine, mine.mine, mode=0o4750)
    mine.fails(errno.EACCES, pb.SETATTR, uid=8, session=b"s" * 16, **drop)
    assert mine.call(pb.SETATTR, uid=8, session=session, **drop).attr.mode == 0o750
