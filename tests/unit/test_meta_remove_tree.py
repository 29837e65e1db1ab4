"""REMOVE_TREE: what goes at once, what goes later in bounded steps, and who may."""

import errno
import os

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.meta.fsck import fsck
from fs3.meta.inode import IMMUTABLE
from fs3.meta.permission import Caller
from fs3.meta.tree import decode, encode


def plant(world, parent, depth=3, width=3, **fields):
    """A full tree with files of 10 bytes; the inodes of its files."""
    files = [world.write_file(b"f%d" % i, 10, parent, **fields) for i in range(width)]
    if depth:
        for i in range(width):
            below = world.mkdir(b"d%d" % i, parent, **fields)
            files += plant(world, below, depth - 1, width, **fields)
    return files


def remove(world, name, parent=1, **fields):
    return world.call(pb.REMOVE_TREE, parent=parent, name=name, **fields)


def waiting(world):
    begin, end = keys.TREE, keys.prefix_end(keys.TREE)
    return [keys.inode_of(key) for key, _ in world.kv.begin().get_range(begin, end)]


def collect(world):
    """Empties the trees, and then what they left in the gc queue."""
    for _ in range(2):
        world.gc.run_until_idle()
        world.clock.advance(11)
    world.collect()


def rows(world, prefix):
    return len(world.kv.begin().get_range(prefix, keys.prefix_end(prefix)))


def test_the_name_goes_at_once_and_everything_else_later(world):
    top = world.mkdir(b"top")
    plant(world, top)
    beside = world.mkdir(b"beside")
    world.clock.advance(1)
    assert remove(world, b"top") == pb.RemoveReply(inode=top, last=True)
    assert world.names() == [b"beside"]
    root = world.attr(1)
    assert (root.nlink, root.mtime_ns) == (3, world.clock.wall_ns())
    assert waiting(world) == [top]
    assert world.attr(top).nlink == 0
    assert fsck(world.kv) == []
    collect(world)
    assert waiting(world) == []
    assert world.chunks.lengths == {}
    assert (rows(world, keys.INODE), rows(world, keys.DENTRY)) == (2, 1)
    assert world.names(beside) == []


def test_an_empty_directory_needs_no_right_to_it(world):
    world.call(pb.SETATTR, inode=1, mode=0o777)
    world.mkdir(b"d", mode=0)
    remove(world, b"d", uid=7)
    assert waiting(world) == []
    assert world.collect() == 1


def test_what_is_no_directory_is_refused(world):
    world.create(b"f")
    world.call(pb.SYMLINK, parent=1, name=b"l", target=b"/")
    for name, number in ((b"f", errno.ENOTDIR), (b"l", errno.ENOTDIR), (b"x", errno.ENOENT)):
        world.fails(number, pb.REMOVE_TREE, parent=1, name=name)
    world.fails(errno.EINVAL, pb.REMOVE_TREE, parent=1, name=b"..")


def test_open_files_stay_readable_to_their_holders(world):
    top = world.mkdir(b"top")
    written, read = world.write_file(b"w", 100, top), world.write_file(b"r", 100, top)
    session = world.open(written).session
    world.call(pb.KEEPALIVE, open_inodes=[read])
    remove(world, b"top")
    collect(world)
    assert world.open(read, os.O_RDONLY).attr.size == 100
    world.call(pb.SYNC, inode=written, session=session)
    assert sorted(world.chunks.lengths) == [written, read]
    world.call(pb.CLOSE, inode=written, session=session)
    world.call(pb.KEEPALIVE, open_inodes=[])
    collect(world)
    assert world.chunks.lengths == {}


def test_a_file_with_a_name_outside_stays(world):
    top = world.mkdir(b"top")
    inode = world.write_file(b"f", 10, top)
    world.call(pb.LINK, inode=inode, parent=1, name=b"outside")
    remove(world, b"top")
    collect(world)
    assert world.attr(inode).nlink == 1
    assert world.names() == [b"outside"]


def test_every_step_is_bounded_and_leaves_a_sound_name_space(world, monkeypatch):
    monkeypatch.setattr(limits, "TREE_ENTRIES_PER_STEP", 4)
    top = world.mkdir(b"top")
    plant(world, top, depth=2, width=5)
    remove(world, b"top")
    taken = []
    while waiting(world):
        before = rows(world, keys.DENTRY)
        world.gc.empty_trees()
        taken.append(before - rows(world, keys.DENTRY))
        assert fsck(world.kv) == []
        world.restart()
    assert max(taken) <= 4 * 8
    assert sum(taken) == 5 + 5 * (1 + 5 + 5 * (1 + 5))
    collect(world)
    assert world.chunks.lengths == {}


def test_nothing_can_be_made_in_it_and_names_can_be_taken_out(world):
    """A process whose working directory it is can save what it needs until it is gone."""
    top = world.mkdir(b"top")
    below = world.mkdir(b"below", top)
    inode = world.write_file(b"f", 10, below)
    world.mkdir(b"kept", top)
    remove(world, b"top")
    world.fails(errno.ENOENT, pb.MKDIR, parent=top, name=b"new", mode=0o755)
    world.rename(b"f", b"saved", below, 1)
    world.rename(b"kept", b"kept", top, 1)
    assert world.attr(top).nlink == 0
    assert fsck(world.kv) == []
    collect(world)
    assert sorted(world.names()) == [b"kept", b"saved"]
    assert world.chunks.lengths == {inode: 10}


def test_a_tree_in_a_tree_in_removal(world):
    top = world.mkdir(b"top")
    below = world.mkdir(b"below", top)
    plant(world, below, depth=1)
    remove(world, b"top")
    remove(world, b"below", top)
    assert world.attr(top).nlink == 0
    assert sorted(waiting(world)) == sorted([top, below])
    assert fsck(world.kv) == []
    collect(world)
    assert rows(world, keys.INODE) == 1


@pytest.mark.parametrize("mode", [0o555, 0o600, 0o333])
def test_who_may_not_empty_a_directory_near_the_top_removes_nothing(world, mode):
    world.call(pb.SETATTR, inode=1, mode=0o777)
    top = world.mkdir(b"top", uid=7)
    inner = world.mkdir(b"inner", top, uid=7)
    world.create(b"f", inner, uid=7)
    world.call(pb.SETATTR, inode=inner, mode=mode)
    world.fails(errno.EACCES, pb.REMOVE_TREE, parent=1, name=b"top", uid=7)
    assert world.names() == [b"top"]
    remove(world, b"top", uid=0)
    collect(world)
    assert rows(world, keys.INODE) == 1


def test_owning_the_top_does_not_remove_what_others_keep_in_it(world):
    """What makes it weaker than a check of the owner, and than rm -r no stronger."""
    world.call(pb.SETATTR, inode=1, mode=0o777)
    top = world.mkdir(b"top", mode=0o777, uid=7)
    theirs = world.mkdir(b"theirs", top, mode=0o755, uid=8)
    world.create(b"f", theirs, uid=8)
    world.fails(errno.EACCES, pb.REMOVE_TREE, parent=1, name=b"top", uid=7)
    world.unlink(b"f", theirs, uid=8)
    remove(world, b"top", uid=7)
    collect(world)
    assert rows(world, keys.INODE) == 1


def test_sticky_directories_keep_the_files_of_others(world):
    world.call(pb.SETATTR, inode=1, mode=0o777)
    top = world.mkdir(b"top", mode=0o777, uid=7)
    shared = world.mkdir(b"shared", top, uid=8)
    world.call(pb.SETATTR, inode=shared, mode=0o1777)
    world.create(b"of9", shared, uid=9)
    world.fails(errno.EPERM, pb.REMOVE_TREE, parent=1, name=b"top", uid=7)
    world.call(pb.SETATTR, inode=1, mode=0o1777)
    world.fails(errno.EPERM, pb.REMOVE_TREE, parent=1, name=b"top", uid=8)


def test_what_chattr_fixed_stays_whoever_asks(world, monkeypatch):
    top = world.mkdir(b"top")
    inode = world.write_file(b"f", 10, top)
    world.call(pb.SETFLAGS, inode=inode, flags=IMMUTABLE)
    world.fails(errno.EPERM, pb.REMOVE_TREE, parent=1, name=b"top")
    monkeypatch.setattr(limits, "TREE_WALK_RECORDS_MAX", 0)
    remove(world, b"top")
    collect(world)
    assert world.names(world.lookup(b"lost+found").inode) == [b"#%d" % inode]
    assert world.chunks.lengths == {inode: 10}


def test_beyond_the_near_part_everything_is_judged_in_its_turn(world, monkeypatch, caplog):
    """What the caller may not remove is kept whole, with its owner and mode."""
    monkeypatch.setattr(limits, "TREE_WALK_RECORDS_MAX", 4)
    world.call(pb.SETATTR, inode=1, mode=0o777)
    top = world.mkdir(b"top", uid=7)
    at = top
    for i in range(6):
        at = world.mkdir(b"d%d" % i, at, uid=7)
    world.call(pb.SETATTR, inode=at, mode=0o777)
    theirs = world.mkdir(b"theirs", at, mode=0o750, uid=8)
    inode = world.write_file(b"f", 10, theirs, uid=8)
    world.write_file(b"mine", 10, at, uid=7)
    remove(world, b"top", uid=7)
    collect(world)
    lost = world.lookup(b"lost+found").inode
    assert world.names(lost) == [b"#%d" % theirs]
    assert (world.attr(lost).mode, world.attr(lost).nlink) == (0o700, 3)
    assert (world.attr(theirs).uid, world.attr(theirs).mode) == (8, 0o750)
    assert world.names(theirs) == [b"f"]
    assert world.chunks.lengths == {inode: 10}
    assert f"uid 7 may not remove b'theirs' of directory {at}" in caplog.text


def test_the_same_request_twice_removes_once(world):
    top = world.mkdir(b"top")
    plant(world, top, depth=1)
    first = remove(world, b"top", request_id=77)
    world.mkdir(b"top")
    assert remove(world, b"top", request_id=77) == first
    assert world.names() == [b"top"]


def test_a_record_keeps_the_caller():
    caller = Caller(5, 6, frozenset(range(100, 100 + limits.GROUPS_MAX)))
    assert decode(9, encode(caller)) == (9, caller)
