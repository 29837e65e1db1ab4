"""UNLINK, and what happens to the inode afterwards."""

import errno
import os

from fs3._proto import meta_pb2 as pb


def test_the_name_goes_at_once_and_the_inode_later(world):
    inode = world.write_file(b"f", 5000)
    world.clock.advance(1)
    reply = world.unlink(b"f")
    assert (reply.inode, reply.last) == (inode, True)
    world.fails(errno.ENOENT, pb.LOOKUP, parent=1, name=b"f")
    now_ns = world.clock.wall_ns()
    assert world.attr(1).mtime_ns == now_ns
    attr = world.attr(inode)
    assert (attr.nlink, attr.ctime_ns, attr.size) == (0, now_ns, 5000)
    assert world.chunks.lengths == {inode: 5000}
    assert world.collect() == 1
    assert world.chunks.lengths == {}
    world.fails(errno.ENOENT, pb.GETATTR, inode=inode)


def test_refusals(world):
    directory = world.mkdir(b"d", mode=0o777)
    world.create(b"f", directory)
    world.fails(errno.EISDIR, pb.UNLINK, parent=1, name=b"d")
    world.fails(errno.ENOENT, pb.UNLINK, parent=directory, name=b"x")
    world.fails(errno.EINVAL, pb.UNLINK, parent=directory, name=b"..")
    world.call(pb.SETATTR, inode=directory, mode=0o755)
    world.fails(errno.EACCES, pb.UNLINK, parent=directory, name=b"f", uid=7)
    world.fails(errno.ENOENT, pb.UNLINK, parent=directory, name=b"x", uid=7)


def test_sticky(world):
    directory = world.mkdir(b"tmp", mode=0o1777)
    world.create(b"of7", directory, uid=7)
    world.fails(errno.EPERM, pb.UNLINK, parent=directory, name=b"of7", uid=8)
    world.unlink(b"of7", directory, uid=7)
    world.create(b"of7", directory, uid=7)
    world.call(pb.SETATTR, inode=directory, set_uid=9)
    world.unlink(b"of7", directory, uid=9)  # the owner of the directory may as well


def test_an_unlinked_open_file_can_be_used_to_the_end(world):
    inode = world.write_file(b"f", 100)
    session = world.open(inode).session
    world.unlink(b"f")
    assert world.collect() == 0
    world.chunks.write(inode, 5000)
    synced = world.call(pb.SYNC, inode=inode, session=session, written_end=5000, wrote=True)
    assert synced.attr.size == 5000
    again = world.open(inode, os.O_RDONLY)
    assert again.attr.nlink == 0
    assert again.capability
    world.call(pb.SETATTR, inode=inode, size=10, session=session)
    assert world.chunks.lengths[inode] == 10
    world.call(pb.CLOSE, inode=inode, session=session)
    assert world.collect() == 1
    assert world.chunks.lengths == {}
