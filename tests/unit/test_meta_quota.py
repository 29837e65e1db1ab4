"""Quotas: what counts for whom, what is refused, and a tree that has content already."""

import errno
import os

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.errors import Damaged
from fs3.kv import keys
from fs3.meta.fsck import fsck

USER, TREE = pb.USER_QUOTA, pb.TREE_QUOTA


def set_quota(world, kind, number, bytes_max=0, inodes_max=0, **fields):
    return world.call(
        pb.SET_QUOTA, kind=kind, id=number, bytes_max=bytes_max, inodes_max=inodes_max, **fields
    ).quota


def used(world, kind, number):
    quota = world.call(pb.GET_QUOTA, kind=kind, id=number).quota
    return quota.bytes, quota.inodes


def count(world, top, tree):
    """What the client does: the whole tree, top down; how many inodes changed their account."""
    waiting, counted = [top], 0
    while waiting:
        cookie, end = 0, False
        directory = waiting.pop()
        while not end:
            reply = world.call(pb.COUNT_QUOTA, directory=directory, cookie=cookie, tree=tree)
            waiting += reply.directories
            counted += reply.counted
            cookie, end = reply.cookie, reply.end
    return counted


@pytest.fixture
def shared(world):
    """A directory that everybody may write to."""
    world.call(pb.SETATTR, inode=1, mode=0o777)
    return world


def test_a_user_counts_from_birth_to_removal(shared):
    world = shared
    assert used(world, USER, 7) == (0, 0)
    inode = world.write_file(b"f", 5000, uid=7)
    world.mkdir(b"d", uid=7)
    world.call(pb.SYMLINK, parent=1, name=b"l", target=b"target", uid=7)
    assert used(world, USER, 7) == (5000, 3)
    world.call(pb.LINK, inode=inode, parent=1, name=b"f2")
    assert used(world, USER, 7) == (5000, 3)
    world.call(pb.SETATTR, inode=inode, size=100)
    assert used(world, USER, 7) == (100, 3)
    world.unlink(b"f")
    world.unlink(b"f2")
    assert used(world, USER, 7) == (100, 3)  # its chunks are there
    world.collect()
    assert used(world, USER, 7) == (0, 2)


def test_a_file_that_is_given_away_counts_for_the_other(shared):
    world = shared
    inode = world.write_file(b"f", 5000, uid=7)
    set_quota(world, USER, 8, bytes_max=4999)
    world.fails(errno.EDQUOT, pb.SETATTR, inode=inode, set_uid=8)
    set_quota(world, USER, 8, bytes_max=5000)
    world.call(pb.SETATTR, inode=inode, set_uid=8)
    assert (used(world, USER, 7), used(world, USER, 8)) == ((0, 0), (5000, 1))
    world.call(pb.SETATTR, inode=inode, set_uid=8)


@pytest.mark.parametrize("make", ["create", "mkdir", "symlink"])
def test_a_full_account_makes_nothing(shared, make):
    world = shared
    set_quota(world, USER, 7, inodes_max=2)
    world.create(b"one", uid=7)
    world.create(b"two", uid=7)
    calls = {
        "create": (pb.CREATE, {"mode": 0o644, "type": pb.FILE}),
        "mkdir": (pb.MKDIR, {"mode": 0o755}),
        "symlink": (pb.SYMLINK, {"target": b"x"}),
    }
    method, fields = calls[make]
    world.fails(errno.EDQUOT, method, parent=1, name=b"three", uid=7, **fields)
    assert sorted(world.names()) == [b"one", b"two"]
    world.create(b"somebody else's", uid=8)
    world.unlink(b"one", uid=7)
    world.fails(errno.EDQUOT, method, parent=1, name=b"three", uid=7, **fields)
    world.collect()
    world.call(method, parent=1, name=b"three", uid=7, **fields)


def test_growth_by_allocation_is_refused_and_by_settling_is_told(shared):
    world = shared
    set_quota(world, USER, 7, bytes_max=1000)
    inode = world.create(b"f", uid=7)
    world.fails(errno.EDQUOT, pb.ALLOCATE, inode=inode, length=1001, uid=7)
    world.call(pb.ALLOCATE, inode=inode, length=400, uid=7)
    world.call(pb.SETATTR, inode=inode, size=1 << 40, uid=7)
    assert used(world, USER, 7) == (0, 1)  # holes count nothing
    world.call(pb.SETATTR, inode=inode, size=0, uid=7)
    opened = world.open(inode, uid=7)
    assert opened.quota == pb.QUOTA_LIMITED
    world.chunks.write(inode, 5000)
    reply = world.call(
        pb.SYNC, inode=inode, session=opened.session, written_end=5000, wrote=True, uid=7
    )
    assert (reply.attr.size, reply.quota) == (5000, pb.QUOTA_FULL)
    assert used(world, USER, 7) == (5000, 1)
    assert world.open(inode, os.O_RDONLY, uid=7).quota == pb.QUOTA_FREE
    world.call(pb.CLOSE, inode=inode, session=opened.session, uid=7)
    again = world.open(inode, uid=7)
    assert again.quota == pb.QUOTA_FULL
    world.call(pb.CLOSE, inode=inode, session=again.session, uid=7)
    world.call(pb.SETATTR, inode=inode, size=10, uid=7)


def test_only_root_sets_and_everybody_sees(shared):
    world = shared
    world.fails(errno.EPERM, pb.SET_QUOTA, kind=USER, id=7, uid=7)
    world.fails(errno.EPERM, pb.COUNT_QUOTA, directory=1, uid=7)
    set_quota(world, USER, 7, bytes_max=1 << 30)
    quota = world.call(pb.GET_QUOTA, kind=USER, id=7, uid=8).quota
    assert (quota.bytes_max, quota.inodes_max, quota.limited) == (1 << 30, 0, True)
    assert [each.id for each in world.call(pb.LIST_QUOTAS).quotas] == [7]
    set_quota(world, USER, 7, clear=True)
    assert list(world.call(pb.LIST_QUOTAS).quotas) == []


def test_a_tree_counts_what_is_made_in_it(world):
    top = world.mkdir(b"top")
    quota = set_quota(world, TREE, top, bytes_max=10_000, inodes_max=4)
    assert not quota.counting
    below = world.mkdir(b"below", top)
    inode = world.write_file(b"f", 5000, below)
    assert used(world, TREE, inode) == (5000, 3)
    world.create(b"g", below)
    world.fails(errno.EDQUOT, pb.CREATE, parent=below, name=b"h", mode=0o644, type=pb.FILE)
    assert used(world, TREE, 1) == (0, 0)


def test_no_name_crosses_the_border_of_a_tree(world):
    top = world.mkdir(b"top")
    set_quota(world, TREE, top)
    world.create(b"in", top)
    inode = world.create(b"out")
    crossing = ((1, b"out", top, b"x", 0), (top, b"in", 1, b"x", 0), (1, b"out", top, b"in", 2))
    for old, old_name, new, new_name, flags in crossing:
        world.fails(
            errno.EXDEV,
            pb.RENAME,
            old_parent=old,
            old_name=old_name,
            new_parent=new,
            new_name=new_name,
            flags=flags,
        )
    world.fails(errno.EXDEV, pb.LINK, inode=inode, parent=top, name=b"x")
    other = world.mkdir(b"other")
    world.fails(
        errno.EXDEV, pb.RENAME, old_parent=1, old_name=b"top", new_parent=other, new_name=b"t"
    )
    world.rename(b"top", b"renamed")
    world.rename(b"in", b"in2", top, top)


def test_a_tree_that_has_content_is_counted_and_then_enforced(world):
    top = world.mkdir(b"top")
    for i in range(3):
        below = world.mkdir(b"d%d" % i, top)
        world.write_file(b"f", 1000, below)
    quota = set_quota(world, TREE, top, bytes_max=2000)
    assert quota.counting
    world.write_file(b"f", 1000, top)  # is over the limit, which does not bind yet
    assert used(world, TREE, top) == (1000, 2)
    assert count(world, top, top) == 6
    assert count(world, top, top) == 0
    assert used(world, TREE, top) == (4000, 8)
    assert set_quota(world, TREE, top, bytes_max=2000).counting
    assert not set_quota(world, TREE, top, bytes_max=2000, counted=True).counting
    inode = world.lookup(b"f", top).inode
    world.fails(errno.EDQUOT, pb.ALLOCATE, inode=inode, length=1001)
    set_quota(world, TREE, top, clear=True)
    world.call(pb.SETATTR, inode=inode, size=1001)
    assert count(world, top, 0) == 7
    begin, end = keys.usages(TREE, top)
    assert world.kv.begin().get_range(begin, end) == []


def test_what_happens_while_a_tree_is_counted_counts_once(world, monkeypatch):
    monkeypatch.setattr(limits, "QUOTA_ENTRIES_PER_STEP", 2)
    top = world.mkdir(b"top")
    first, second = world.mkdir(b"a", top), world.mkdir(b"b", top)
    for i in range(5):
        world.write_file(b"f%d" % i, 10, first)
    set_quota(world, TREE, top, bytes_max=1)
    world.call(pb.COUNT_QUOTA, directory=top, cookie=0, tree=top)
    reply = world.call(pb.COUNT_QUOTA, directory=first, cookie=0, tree=top)
    world.write_file(b"new", 10, first)
    world.write_file(b"new", 10, second)
    assert not reply.end
    count(world, top, top)
    assert used(world, TREE, top) == (70, 10)
    assert fsck(world.kv) == []


def test_trees_are_not_nested_and_the_root_is_none(world):
    top = world.mkdir(b"top")
    set_quota(world, TREE, top)
    below = world.mkdir(b"below", top)
    world.fails(errno.EINVAL, pb.SET_QUOTA, kind=TREE, id=below, bytes_max=5)
    world.fails(errno.EINVAL, pb.SET_QUOTA, kind=TREE, id=1, bytes_max=5)
    world.fails(errno.ENOTDIR, pb.SET_QUOTA, kind=TREE, id=world.create(b"f"), bytes_max=5)
    world.fails(errno.ENOENT, pb.SET_QUOTA, kind=TREE, id=below, clear=True)


def test_df_of_a_tree_shows_what_its_limits_leave(world):
    top = world.mkdir(b"top")
    assert world.call(pb.STATFS, inode=top).capacity_bytes == 1000
    set_quota(world, TREE, top, bytes_max=500, inodes_max=10)
    inode = world.write_file(b"f", 100, top)
    reply = world.call(pb.STATFS, inode=inode)
    assert (reply.capacity_bytes, reply.free_bytes) == (500, 400)
    assert (reply.inodes, reply.inodes_free) == (10, 8)
    assert world.call(pb.STATFS).capacity_bytes == 1000


def test_the_limit_goes_with_its_directory(world):
    top = world.mkdir(b"top")
    set_quota(world, TREE, top, bytes_max=500)
    world.write_file(b"f", 100, top)
    world.call(pb.REMOVE_TREE, parent=1, name=b"top")
    for _ in range(3):
        world.collect()
    assert list(world.call(pb.LIST_QUOTAS).quotas) == []
    begin, end = keys.usages(TREE, top)
    assert world.kv.begin().get_range(begin, end) == []


def test_a_limit_of_another_service_binds_within_a_second(world):
    world.call(pb.SETATTR, inode=1, mode=0o777)
    set_quota(world, USER, 7, inodes_max=1)
    world.restart()
    world.create(b"one", uid=7)
    world.fails(errno.EDQUOT, pb.CREATE, parent=1, name=b"2", mode=0o644, type=pb.FILE, uid=7)
    world.store.env.limited.clear()  # as if another one had set it just now
    world.store.tick()
    world.fails(errno.EDQUOT, pb.CREATE, parent=1, name=b"2", mode=0o644, type=pb.FILE, uid=7)


@pytest.mark.parametrize("schema", [1, 2])
def test_records_of_older_schemas_are_read(world, schema):
    from fs3.meta import inode as inodes

    inode = world.create(b"f")
    record = world.kv.begin().get(keys.inode(inode))
    fixed = inodes._FIXED_BYTES[schema]
    old = bytes([schema]) + record[1:fixed] + record[inodes._RECORD.size :]
    assert inodes.decode(inode, old).encode() == record
    with pytest.raises(Damaged):
        inodes.decode(inode, old[: fixed - 1])
