"""LINK."""

import errno

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.meta import inode as inodes


def test_a_second_name(world):
    inode = world.create(b"f")
    directory = world.mkdir(b"d")
    world.clock.advance(1)
    attr = world.call(pb.LINK, inode=inode, parent=directory, name=b"g").entry.attr
    now_ns = world.clock.wall_ns()
    assert (attr.nlink, attr.ctime_ns) == (2, now_ns)
    assert attr.mtime_ns < now_ns
    assert world.attr(directory).mtime_ns == now_ns
    assert world.lookup(b"g", directory).inode == inode
    assert not world.unlink(b"f").last
    assert world.unlink(b"g", directory).last


def test_refusals(world):
    inode = world.create(b"f")
    directory = world.mkdir(b"d")
    world.fails(errno.EPERM, pb.LINK, inode=directory, parent=1, name=b"x")
    world.fails(errno.EEXIST, pb.LINK, inode=inode, parent=1, name=b"d")
    world.fails(errno.ENOENT, pb.LINK, inode=999, parent=1, name=b"x")
    world.fails(errno.ENOTDIR, pb.LINK, inode=inode, parent=inode, name=b"x")
    world.fails(errno.ENAMETOOLONG, pb.LINK, inode=inode, parent=1, name=b"x" * 256)
    world.fails(errno.EPERM, pb.LINK, inode=inode, parent=1, name=b"x", uid=7)


def test_an_unlinked_inode_gets_no_name_again(world):
    inode = world.create(b"f")
    world.unlink(b"f")
    world.fails(errno.ENOENT, pb.LINK, inode=inode, parent=1, name=b"x")


def test_files_of_others_only_when_they_could_be_written(world):
    directory = world.mkdir(b"d", mode=0o777)
    open_to_all = world.create(b"open", directory, mode=0o666)
    setuid = world.create(b"setuid", directory, mode=0o4777)
    private = world.create(b"private", directory, mode=0o644)
    world.call(pb.LINK, inode=open_to_all, parent=directory, name=b"l1", uid=7)
    world.fails(errno.EPERM, pb.LINK, inode=setuid, parent=directory, name=b"l2", uid=7)
    world.fails(errno.EPERM, pb.LINK, inode=private, parent=directory, name=b"l3", uid=7)
    mine = world.create(b"mine", directory, mode=0o4700, uid=7)
    world.call(pb.LINK, inode=mine, parent=directory, name=b"l4", uid=7)


def test_too_many_links(world):
    inode = world.create(b"f")

    def pretend(txn):
        record = inodes.load(txn, inode, "test")
        record.nlink = limits.LINKS_MAX
        inodes.store(txn, record)

    def restore(txn):
        record = inodes.load(txn, inode, "test")
        record.nlink = 1
        inodes.store(txn, record)

    world.store.transact([pretend])
    world.fails(errno.EMLINK, pb.LINK, inode=inode, parent=1, name=b"g")
    world.store.transact([restore])
