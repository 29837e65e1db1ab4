"""MKDIR and RMDIR."""

import errno
import stat

from fs3._proto import meta_pb2 as pb


def test_a_directory_counts_in_its_parent(world):
    directory = world.mkdir(b"d", mode=0o777, umask=0o027, uid=0, gid=3)
    attr = world.attr(directory)
    assert (attr.type, attr.mode, attr.nlink, attr.gid) == (pb.DIRECTORY, 0o750, 2, 3)
    assert world.attr(1).nlink == 3
    world.mkdir(b"e", directory)
    assert world.attr(directory).nlink == 3


def test_setuid_and_setgid_cannot_be_asked_for_but_sticky_can(world):
    attr = world.attr(world.mkdir(b"d", mode=0o7777))
    assert attr.mode == 0o1777


def test_setgid_is_inherited(world):
    parent = world.mkdir(b"p", mode=0o777)
    world.call(pb.SETATTR, inode=parent, set_gid=50)
    world.call(pb.SETATTR, inode=parent, mode=0o2777)
    attr = world.attr(world.mkdir(b"d", parent, mode=0o700, uid=7, gid=7))
    assert attr.gid == 50
    assert attr.mode == stat.S_ISGID | 0o700


def test_refusals(world):
    file = world.create(b"f")
    world.fails(errno.EEXIST, pb.MKDIR, parent=1, name=b"f")
    world.fails(errno.ENOTDIR, pb.MKDIR, parent=file, name=b"x")
    world.fails(errno.ENAMETOOLONG, pb.MKDIR, parent=1, name=b"x" * 256)
    world.fails(errno.EACCES, pb.MKDIR, parent=1, name=b"x", uid=7)
    world.fails(errno.EEXIST, pb.MKDIR, parent=1, name=b"f", uid=7)


def test_rmdir(world):
    directory = world.mkdir(b"d")
    world.clock.advance(1)
    reply = world.call(pb.RMDIR, parent=1, name=b"d")
    assert (reply.inode, reply.last) == (directory, True)
    root = world.attr(1)
    assert (root.nlink, root.mtime_ns) == (2, world.clock.wall_ns())
    assert world.attr(directory).nlink == 0  # for whoever still holds it
    assert world.names(directory) == []
    world.fails(errno.ENOENT, pb.LOOKUP, parent=1, name=b"d")
    world.collect()
    world.fails(errno.ENOENT, pb.GETATTR, inode=directory)


def test_rmdir_refusals(world):
    directory = world.mkdir(b"d", mode=0o777)
    world.create(b"f", directory)
    world.fails(errno.ENOTEMPTY, pb.RMDIR, parent=1, name=b"d")
    world.fails(errno.ENOTDIR, pb.RMDIR, parent=directory, name=b"f")
    world.fails(errno.ENOENT, pb.RMDIR, parent=1, name=b"x")
    world.fails(errno.EINVAL, pb.RMDIR, parent=1, name=b".")
    world.unlink(b"f", directory)
    world.fails(errno.EACCES, pb.RMDIR, parent=1, name=b"d", uid=7)
    world.call(pb.RMDIR, parent=1, name=b"d")


def test_sticky_protects_directories_of_others(world):
    parent = world.mkdir(b"tmp", mode=0o1777)
    world.mkdir(b"mine", parent, uid=7)
    world.fails(errno.EPERM, pb.RMDIR, parent=parent, name=b"mine", uid=8)
    world.call(pb.RMDIR, parent=parent, name=b"mine", uid=7)
