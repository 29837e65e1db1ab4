"""What directories keep when it is removed: where it goes, who sees it, when it ends."""

import errno
import time

import pytest

from fs3._proto import meta_pb2 as pb
from fs3.meta.inode import IMMUTABLE
from fs3.trash import KEEPS, REMOVED_FROM, Bucket

ALICE, BOB = {"uid": 7, "gid": 70}, {"uid": 8, "gid": 80}


def keep(world, inode, value=b"2h", **fields):
    return world.call(pb.SETXATTR, inode=inode, name=KEEPS, value=value, **fields)


def under(world, *names):
    """The inode at a path from the root."""
    inode = 1
    for name in names:
        inode = world.lookup(name, inode).inode
    return inode


def bucket_of(world, uid=0):
    """The one directory of what `uid` has removed; its inode."""
    own = under(world, b".trash", b"%d" % uid)
    (name,) = world.names(own)
    return under(world, b".trash", b"%d" % uid, name)


def trashed(world, uid=0):
    return world.names(bucket_of(world, uid))


def removed_from(world, inode):
    return world.call(pb.GETXATTR, inode=inode, name=REMOVED_FROM).value


def pass_time(world, seconds):
    world.clock.advance(seconds)
    for _ in range(3):
        world.gc.run_until_idle()
        world.clock.advance(11)
    world.collect()


@pytest.fixture
def d(world):
    inode = world.mkdir(b"d", mode=0o777)
    keep(world, inode)
    return inode


def test_a_removed_file_is_kept_with_its_place(world, d):
    file = world.write_file(b"f", 10, d, **ALICE)
    world.clock.advance(1)
    assert not world.unlink(b"f", d, **ALICE).last
    assert world.names(d) == []
    assert trashed(world, 7) == [b"f#%d" % file]
    assert removed_from(world, file) == b"%d f" % d
    attr = world.attr(file)
    assert (attr.nlink, attr.size, attr.ctime_ns) == (1, 10, world.clock.wall_ns())
    pass_time(world, 3600)
    assert world.chunks.lengths[file] == 10


def test_when_its_time_has_come_it_goes_for_good(world, d):
    file = world.write_file(b"f", 10, d)
    world.unlink(b"f", d)
    expires_s = Bucket.of(world.clock.wall_ns() // 10**9, 7200).expires_s
    left_s = expires_s - world.clock.wall_ns() / 1e9
    assert 7200 <= left_s <= 7260
    world.clock.advance(left_s - 1)
    world.gc.run_until_idle()
    assert trashed(world) == [b"f#%d" % file]
    pass_time(world, 62)
    assert world.names(under(world, b".trash", b"0")) == []
    assert file not in world.chunks.lengths


def test_mv_brings_it_back(world, d):
    file = world.write_file(b"f", 10, d)
    world.unlink(b"f", d)
    world.rename(b"f#%d" % file, b"f", old_parent=bucket_of(world), new_parent=d)
    assert world.lookup(b"f", d).inode == file
    pass_time(world, 8000)
    assert world.lookup(b"f", d).size == 10
    world.unlink(b"f", d)
    assert trashed(world) == [b"f#%d" % file]


def test_only_the_last_name_is_kept(world, d):
    file = world.create(b"f", d)
    world.call(pb.LINK, inode=file, parent=1, name=b"other")
    world.unlink(b"f", d)
    assert b".trash" not in world.names()
    world.unlink(b"other")  # from a directory that keeps nothing
    assert b".trash" not in world.names()


def test_what_a_rename_replaces_is_kept(world, d):
    old = world.write_file(b"f", 10, d)
    world.create(b"new", d)
    reply = world.rename(b"new", b"f", old_parent=d, new_parent=d)
    assert (reply.replaced_inode, reply.replaced_last) == (old, False)
    assert trashed(world) == [b"f#%d" % old]


def test_what_a_rename_out_of_the_root_replaces_is_kept(world, d):
    """The root changes twice in one transaction: it loses a name and gets the trash."""
    old = world.mkdir(b"below", d)
    world.mkdir(b"new")
    assert world.attr(1).nlink == 4
    world.rename(b"new", b"below", new_parent=d)
    assert world.attr(1).nlink == 4
    assert trashed(world) == [b"below#%d" % old]


def test_a_removed_tree_is_kept_whole(world, d):
    top = world.mkdir(b"top", d)
    file = world.write_file(b"f", 10, world.mkdir(b"below", top))
    reply = world.call(pb.REMOVE_TREE, parent=d, name=b"top")
    assert not reply.last
    assert trashed(world) == [b"top#%d" % top]
    assert world.attr(bucket_of(world)).nlink == 3
    world.rename(b"top#%d" % top, b"top", old_parent=bucket_of(world), new_parent=d)
    assert under(world, b"d", b"top", b"below", b"f") == file
    world.call(pb.REMOVE_TREE, parent=d, name=b"top")
    pass_time(world, 7300)
    pass_time(world, 100)
    assert file not in world.chunks.lengths
    assert world.names(under(world, b".trash", b"0")) == []


def test_directories_removed_one_by_one_are_kept_with_their_places(world, d):
    """As by rm -r: a file says which directory it was in, and that one where it was."""
    top = world.mkdir(b"top", d)
    file = world.create(b"f", top)
    world.unlink(b"f", top)
    world.call(pb.RMDIR, parent=d, name=b"top")
    assert sorted(trashed(world)) == sorted([b"f#%d" % file, b"top#%d" % top])
    assert removed_from(world, file) == b"%d f" % top
    assert removed_from(world, top) == b"%d top" % d


def test_new_directories_begin_with_the_time_of_theirs(world, d):
    below = world.mkdir(b"below", d)
    file = world.create(b"f", world.mkdir(b"deep", below))
    world.unlink(b"f", under(world, b"d", b"below", b"deep"))
    assert trashed(world) == [b"f#%d" % file]
    keep(world, below, b"0")
    world.create(b"g", below)
    assert world.unlink(b"g", below).last
    world.call(pb.REMOVEXATTR, inode=d, name=KEEPS)
    world.create(b"g", d)
    assert world.unlink(b"g", d).last


def test_in_the_trash_nothing_is_kept(world, d):
    top = world.mkdir(b"top", d)
    world.create(b"f", top)
    world.call(pb.REMOVE_TREE, parent=d, name=b"top")
    assert world.unlink(b"f", top).last
    world.call(pb.RMDIR, parent=bucket_of(world), name=b"top#%d" % top)
    assert trashed(world) == []


def test_everybody_has_a_trash_of_his_own(world, d):
    hers = world.create(b"hers", d, mode=0o600, **ALICE)
    his = world.create(b"his", d, **BOB)
    world.unlink(b"hers", d, **BOB)  # the directory lets him
    world.unlink(b"his", d, **BOB)
    assert sorted(trashed(world, 8)) == sorted([b"hers#%d" % hers, b"his#%d" % his])
    own = under(world, b".trash", b"8")
    assert (world.attr(own).uid, world.attr(own).mode & 0o777) == (8, 0o700)
    world.fails(errno.EACCES, pb.READDIR, inode=own, **ALICE)
    world.fails(errno.EACCES, pb.MKDIR, parent=under(world, b".trash"), name=b"7", **ALICE)


def test_somebody_elses_directory_gets_nothing(world, d):
    """A squatter cannot make others put their files into his hands."""
    world.mkdir(b".trash", mode=0o777)
    world.create(b"f", d, **ALICE)
    world.fails(errno.EPERM, pb.UNLINK, parent=d, name=b"f", **ALICE)
    assert world.names(d) == [b"f"]


def test_names_are_cut_to_fit(world, d):
    file = world.create(b"n" * 255, d)
    world.unlink(b"n" * 255, d)
    (name,) = trashed(world)
    assert len(name) == 255
    assert name.endswith(b"#%d" % file)
    assert removed_from(world, file) == b"%d " % d + b"n" * 255


def test_what_its_remover_may_not_remove_for_good_is_kept_for_an_administrator(world, d):
    top = world.mkdir(b"top", d, **ALICE)
    locked = world.create(b"locked", top, **ALICE)
    world.call(pb.REMOVE_TREE, parent=d, name=b"top", **ALICE)
    world.call(pb.SETFLAGS, inode=locked, flags=IMMUTABLE)
    pass_time(world, 7300)
    pass_time(world, 100)
    assert world.names(under(world, b"lost+found")) == [b"#%d" % locked]


def test_a_retry_removes_nothing_twice(world, d):
    world.create(b"f", d)
    body = world.request(pb.UNLINK, parent=d, name=b"f")
    first, again = (world.answer(world.send(pb.UNLINK, body), pb.UNLINK) for _ in range(2))
    assert first == again
    assert len(trashed(world)) == 1


@pytest.mark.parametrize("value", [b"", b"7", b"7w", b"-1d", b"0d", b"4000d", b"1.5h", b"7d "])
def test_times_that_are_none(world, d, value):
    world.fails(errno.EINVAL, pb.SETXATTR, inode=d, name=KEEPS, value=value)


def test_only_directories_keep(world, d):
    file = world.create(b"f", d)
    world.fails(errno.EINVAL, pb.SETXATTR, inode=file, name=KEEPS, value=b"7d")


def test_nobody_says_where_something_was(world, d):
    world.fails(errno.EPERM, pb.SETXATTR, inode=d, name=REMOVED_FROM, value=b"1 x")
    world.create(b"f", d)
    world.unlink(b"f", d)
    bucket = bucket_of(world)
    file = world.lookup(world.names(bucket)[0], bucket).inode
    world.fails(errno.EPERM, pb.REMOVEXATTR, inode=file, name=REMOVED_FROM)


def test_buckets_never_end_early():
    for keep_s in (60, 3600, 86400, 7 * 86400):
        for now_s in (1_796_493_600, 1_796_493_601, 1_796_497_199):
            bucket = Bucket.of(now_s, keep_s)
            assert bucket.expires_s >= now_s + keep_s
            assert Bucket.parse(bucket.name) == bucket
            form = "%Y%m%dT%H" if keep_s >= 86400 else "%Y%m%dT%H%M"
            assert bucket.name.decode() == time.strftime(form, time.gmtime(bucket.expires_s))
