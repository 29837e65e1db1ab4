"""SETFLAGS: who may, and what immutable and append-only refuse, root included."""

import errno
import os

import pytest

from fs3._proto import meta_pb2 as pb

EPERM = errno.EPERM


def chattr(world, inode, flags, **fields):
    return world.call(pb.SETFLAGS, inode=inode, flags=flags, **fields).attr


@pytest.fixture
def mine(world):
    """A file and a directory of user 7 in a directory where everybody may write."""
    world.d = world.mkdir(b"d", mode=0o777)
    world.f = world.create(b"f", world.d, mode=0o666, uid=7)
    world.sub = world.mkdir(b"sub", world.d, mode=0o777, uid=7)
    world.clock.advance(1)
    return world


def test_flags_are_set_and_told(mine):
    attr = chattr(mine, mine.f, pb.NO_DUMP | pb.NO_ATIME, uid=7)
    assert attr.flags == pb.NO_DUMP | pb.NO_ATIME
    assert attr.ctime_ns == mine.clock.wall_ns()
    assert mine.lookup(b"f", mine.d).flags == attr.flags
    assert chattr(mine, mine.f, pb.IMMUTABLE).flags == pb.IMMUTABLE
    assert chattr(mine, mine.f, 0).flags == 0


def test_who_may(mine):
    mine.fails(EPERM, pb.SETFLAGS, inode=mine.f, flags=pb.NO_DUMP, uid=8)
    for flag in (pb.IMMUTABLE, pb.APPEND_ONLY):
        mine.fails(EPERM, pb.SETFLAGS, inode=mine.f, flags=flag, uid=7)
        chattr(mine, mine.f, flag)
        mine.fails(EPERM, pb.SETFLAGS, inode=mine.f, flags=0, uid=7)
        chattr(mine, mine.f, flag | pb.NO_DUMP, uid=7)  # root's part stays
        chattr(mine, mine.f, 0)


def test_what_is_not_known_is_refused(mine):
    mine.fails(errno.EOPNOTSUPP, pb.SETFLAGS, inode=mine.f, flags=0x8)
    mine.fails(errno.EOPNOTSUPP, pb.SETFLAGS, inode=mine.f, flags=pb.HAS_XATTRS)
    fifo = mine.call(pb.CREATE, parent=mine.d, name=b"p", mode=0o666, type=pb.FIFO).attr.inode
    mine.fails(errno.ENOTTY, pb.SETFLAGS, inode=fifo, flags=pb.NO_DUMP)


def changes_of_the_file(w):
    """What neither flag lets pass."""
    yield pb.SETATTR, {"inode": w.f, "mode": 0o600}
    yield pb.SETATTR, {"inode": w.f, "set_uid": 9}
    yield pb.SETATTR, {"inode": w.f, "size": 0}
    yield pb.SETATTR, {"inode": w.f, "mtime_ns": 5}
    yield pb.SETXATTR, {"inode": w.f, "name": b"user.a"}
    yield pb.REMOVEXATTR, {"inode": w.f, "name": b"user.kept"}
    yield pb.LINK, {"inode": w.f, "parent": w.d, "name": b"g"}
    yield pb.UNLINK, {"parent": w.d, "name": b"f"}
    both = {"old_parent": w.d, "new_parent": w.d}
    yield pb.RENAME, {"old_name": b"f", "new_name": b"g", **both}
    yield pb.RENAME, {"old_name": b"other", "new_name": b"f", **both}
    yield pb.RENAME, {"old_name": b"other", "new_name": b"f", "flags": 2, **both}
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC):
        yield pb.OPEN, {"inode": w.f, "flags": flags}


@pytest.mark.parametrize("flag", [pb.IMMUTABLE, pb.APPEND_ONLY])
def test_nobody_changes_it(mine, flag):
    mine.create(b"other", mine.d)
    mine.call(pb.SETXATTR, inode=mine.f, name=b"user.kept", value=b"v")
    chattr(mine, mine.f, flag)
    before = mine.attr(mine.f)
    for method, fields in changes_of_the_file(mine):
        for uid in (0, 7):
            mine.fails(EPERM, method, uid=uid, **fields)
    mine.call(pb.OPEN, inode=mine.f, flags=os.O_RDONLY, uid=8)
    assert mine.call(pb.GETXATTR, inode=mine.f, name=b"user.kept").value == b"v"
    assert mine.attr(mine.f) == before
    chattr(mine, mine.f, 0)
    mine.call(pb.SETATTR, inode=mine.f, mode=0o600)


def test_append_only_is_written_at_the_end(mine):
    chattr(mine, mine.f, pb.APPEND_ONLY)
    opened = mine.open(mine.f, os.O_WRONLY | os.O_APPEND, uid=8)
    truncate = {"inode": mine.f, "size": 0, "session": opened.session}
    mine.fails(EPERM, pb.SETATTR, uid=8, **truncate)
    mine.fails(EPERM, pb.OPEN, inode=mine.f, flags=os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
    mine.chunks.write(mine.f, 10)
    mine.call(pb.CLOSE, inode=mine.f, session=opened.session, written_end=10, wrote=True, uid=8)
    assert mine.attr(mine.f).size == 10
    # touch(1), by whoever may write.
    mine.call(pb.SETATTR, inode=mine.f, atime_now=True, mtime_now=True, uid=8)


def test_an_immutable_file_is_not_even_touched(mine):
    chattr(mine, mine.f, pb.IMMUTABLE)
    mine.fails(EPERM, pb.SETATTR, inode=mine.f, atime_now=True, mtime_now=True, uid=7)
    mine.fails(EPERM, pb.ACCESS, inode=mine.f, mask=2)
    mine.call(pb.ACCESS, inode=mine.f, mask=4)
    flags = os.O_WRONLY | os.O_APPEND
    mine.fails(EPERM, pb.OPEN, inode=mine.f, flags=flags)


def test_an_immutable_directory_keeps_its_names(mine):
    mine.create(b"x", mine.sub)
    chattr(mine, mine.sub, pb.IMMUTABLE)
    made = {"parent": mine.sub, "name": b"y"}
    for uid in (0, 7):
        mine.fails(EPERM, pb.CREATE, mode=0o600, uid=uid, **made)
        mine.fails(EPERM, pb.MKDIR, mode=0o700, uid=uid, **made)
        mine.fails(EPERM, pb.SYMLINK, target=b"x", uid=uid, **made)
        mine.fails(EPERM, pb.UNLINK, parent=mine.sub, name=b"x", uid=uid)
        mine.fails(EPERM, pb.RMDIR, parent=mine.d, name=b"sub", uid=uid)
    mine.write_file(b"z", 5)
    assert mine.names(mine.sub) == [b"x"]


def test_an_append_only_directory_only_gets_names(mine):
    mine.create(b"x", mine.sub)
    chattr(mine, mine.sub, pb.APPEND_ONLY)
    mine.create(b"y", mine.sub, uid=8)
    mine.fails(EPERM, pb.UNLINK, parent=mine.sub, name=b"y")
    ends = {"old_parent": mine.sub, "new_parent": mine.sub}
    mine.fails(EPERM, pb.RENAME, old_name=b"y", new_name=b"z", **ends)
    assert sorted(mine.names(mine.sub)) == [b"x", b"y"]


def test_children_do_not_inherit_them(mine):
    chattr(mine, mine.sub, pb.APPEND_ONLY | pb.NO_ATIME)
    assert mine.attr(mine.create(b"x", mine.sub)).flags == 0
