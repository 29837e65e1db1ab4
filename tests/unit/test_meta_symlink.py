"""SYMLINK and READLINK."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb


@pytest.mark.parametrize("target", [b"x", b"../a/b", b"/abs", b"\xff\xfe", b"y" * 4095])
def test_the_target_is_kept_as_it_is(world, target):
    attr = world.call(pb.SYMLINK, parent=1, name=b"l", target=target, uid=0, gid=4).entry.attr
    assert (attr.type, attr.mode, attr.size) == (pb.LINK_SYMBOLIC, 0o777, len(target))
    assert (attr.gid, attr.nlink) == (4, 1)
    assert world.call(pb.READLINK, inode=attr.inode).target == target


def test_refusals(world):
    world.create(b"f")
    make = {"parent": 1, "name": b"l"}
    world.fails(errno.ENAMETOOLONG, pb.SYMLINK, target=b"y" * 4096, **make)
    world.fails(errno.ENOENT, pb.SYMLINK, target=b"", **make)
    world.fails(errno.EINVAL, pb.SYMLINK, target=b"a\0b", **make)
    world.fails(errno.EEXIST, pb.SYMLINK, parent=1, name=b"f", target=b"x")
    world.fails(errno.EACCES, pb.SYMLINK, target=b"x", uid=7, **make)
    world.fails(errno.EINVAL, pb.READLINK, inode=1)
    world.fails(errno.ENOENT, pb.READLINK, inode=99)
