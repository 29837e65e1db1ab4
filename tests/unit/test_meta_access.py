"""ACCESS: the answer of access(2)."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb


@pytest.mark.parametrize(
    ("uid", "gid", "granted"), [(7, 70, 6), (8, 70, 5), (8, 8, 3), (0, 0, 7), (7, 8, 6)]
)
def test_exactly_one_class_counts(world, uid, gid, granted):
    inode = world.create(b"f", mode=0o653)
    world.call(pb.SETATTR, inode=inode, set_uid=7, set_gid=70)
    for mask in range(8):
        if mask & ~granted:
            world.fails(errno.EACCES, pb.ACCESS, inode=inode, mask=mask, uid=uid, gid=gid)
        else:
            reply = world.call(pb.ACCESS, inode=inode, mask=mask, uid=uid, gid=gid)
            assert reply.attr == world.attr(inode)


def test_supplementary_groups_count(world):
    inode = world.create(b"f", mode=0o040)
    world.call(pb.SETATTR, inode=inode, set_uid=7, set_gid=70)
    world.fails(errno.EACCES, pb.ACCESS, inode=inode, mask=4, uid=8)
    world.call(pb.ACCESS, inode=inode, mask=4, uid=8, groups=[70])


def test_what_is_not_there_and_bits_that_mean_nothing(world):
    world.fails(errno.ENOENT, pb.ACCESS, inode=4711)
    with pytest.raises(OSError, match="mask"):
        world.call(pb.ACCESS, inode=1, mask=8)
