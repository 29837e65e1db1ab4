"""LOOKUP and GETATTR."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb


def test_a_name_leads_to_its_attributes_under_a_lease(world):
    inode = world.create(b"f", mode=0o640)
    reply = world.call(pb.LOOKUP, parent=1, name=b"f")
    assert reply.entry.attr == world.attr(inode)
    assert reply.entry.attr.mode == 0o640
    assert reply.entry.lease.ttl_ms == 1000
    assert world.store.env.leases.holders(inode) == {b"client-aaaaaaaaa"}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"missing", errno.ENOENT),
        (b"x" * 255, errno.ENOENT),
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"", errno.EINVAL),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
    ],
)
def test_names_that_are_not_there_or_no_names(world, name, number):
    with pytest.raises(OSError) as refused:
        world.lookup(name)
    assert refused.value.errno == number


def test_the_parent_has_to_be_a_directory_that_exists(world):
    inode = world.create(b"f")
    world.fails(errno.ENOTDIR, pb.LOOKUP, parent=inode, name=b"x")
    world.fails(errno.ENOENT, pb.LOOKUP, parent=999, name=b"x")


def test_search_permission_is_needed(world):
    directory = world.mkdir(b"d", mode=0o744)
    world.create(b"f", directory)
    world.fails(errno.EACCES, pb.LOOKUP, parent=directory, name=b"f", uid=7)
    world.call(pb.SETATTR, inode=directory, mode=0o711)
    assert world.lookup(b"f", directory, uid=7).inode


def test_names_are_bytes(world):
    inode = world.create(b"\xff\xfe name\n")
    assert world.lookup(b"\xff\xfe name\n").inode == inode


def test_getattr_needs_no_permission_and_no_name(world):
    inode = world.create(b"f", mode=0)
    assert world.call(pb.GETATTR, inode=inode, uid=7).attr.inode == inode
    world.unlink(b"f")
    assert world.attr(inode).nlink == 0
    world.fails(errno.ENOENT, pb.GETATTR, inode=4711)


def test_attributes_of_the_root(world):
    root = world.attr(1)
    assert (root.type, root.mode, root.nlink, root.uid) == (pb.DIRECTORY, 0o755, 2, 0)
