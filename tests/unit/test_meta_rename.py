"""RENAME: every refusal of rename(2), and what moves."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def rename(world, number, old, new, old_parent=1, new_parent=1, **fields):
    world.fails(
        number,
        pb.RENAME,
        old_parent=old_parent,
        old_name=old,
        new_parent=new_parent,
        new_name=new,
        **fields,
    )


@pytest.fixture
def tree(world):
    """a/ b/ a/sub/ and files f, g"""
    world.a = world.mkdir(b"a")
    world.b = world.mkdir(b"b")
    world.sub = world.mkdir(b"sub", world.a)
    world.f = world.create(b"f")
    world.g = world.create(b"g")
    world.clock.advance(1)
    return world


def test_within_a_directory(tree):
    reply = tree.rename(b"f", b"new")
    now_ns = tree.clock.wall_ns()
    assert reply.entry.attr.inode == tree.f
    assert reply.entry.attr.ctime_ns == now_ns
    assert tree.lookup(b"new").inode == tree.f
    tree.fails(errno.ENOENT, pb.LOOKUP, parent=1, name=b"f")
    assert tree.attr(1).mtime_ns == now_ns
    assert reply.replaced_inode == 0


def test_across_directories_both_change(tree):
    tree.rename(b"f", b"f", new_parent=tree.a)
    assert tree.lookup(b"f", tree.a).inode == tree.f
    assert tree.attr(1).mtime_ns == tree.attr(tree.a).mtime_ns == tree.clock.wall_ns()


def test_a_moved_directory_takes_its_link_count_along(tree):
    tree.rename(b"sub", b"sub", tree.a, tree.b)
    assert tree.attr(tree.a).nlink == 2
    assert tree.attr(tree.b).nlink == 3
    assert tree.call(pb.READDIR, inode=tree.sub).parent == tree.b


def test_replacing_a_file(tree):
    reply = tree.rename(b"f", b"g")
    assert (reply.replaced_inode, reply.replaced_last) == (tree.g, True)
    assert tree.lookup(b"g").inode == tree.f
    assert tree.attr(tree.g).nlink == 0
    assert tree.collect() == 1


def test_replacing_a_name_of_a_file_that_has_another(tree):
    tree.call(pb.LINK, inode=tree.g, parent=tree.a, name=b"other")
    reply = tree.rename(b"f", b"g")
    assert (reply.replaced_inode, reply.replaced_last) == (tree.g, False)
    assert tree.attr(tree.g).nlink == 1


def test_replacing_an_empty_directory(tree):
    tree.rename(b"sub", b"b", tree.a, 1)
    assert tree.lookup(b"b").inode == tree.sub
    assert tree.attr(1).nlink == 4
    assert tree.attr(tree.a).nlink == 2
    assert tree.attr(tree.b).nlink == 0


def test_kinds_do_not_mix(tree):
    rename(tree, errno.EISDIR, b"f", b"b")
    rename(tree, errno.ENOTDIR, b"b", b"f")
    rename(tree, errno.ENOTEMPTY, b"b", b"a")
    rename(tree, errno.ENOENT, b"x", b"y")
    rename(tree, errno.ENOTDIR, b"f", b"y", new_parent=tree.f)
    rename(tree, errno.ENOTDIR, b"x", b"y", old_parent=tree.f)
    rename(tree, errno.ENAMETOOLONG, b"f", b"y" * 256)
    rename(tree, errno.EINVAL, b"f", b"..")


def test_a_directory_cannot_go_into_itself(tree):
    rename(tree, errno.EINVAL, b"a", b"x", new_parent=tree.a)
    rename(tree, errno.EINVAL, b"a", b"x", new_parent=tree.sub)
    rename(tree, errno.ENOTEMPTY, b"sub", b"a", old_parent=tree.a, new_parent=1)
    deep = tree.mkdir(b"deep", tree.sub)
    rename(tree, errno.ENOTEMPTY, b"deep", b"a", old_parent=tree.sub, new_parent=1)
    rename(tree, errno.EINVAL, b"a", b"deep", new_parent=tree.sub)
    rename(tree, errno.EINVAL, b"a", b"x", new_parent=deep)


def test_two_names_of_one_inode_is_no_change(tree):
    tree.call(pb.LINK, inode=tree.f, parent=1, name=b"f2")
    before = tree.attr(tree.f)
    tree.clock.advance(1)
    reply = tree.rename(b"f", b"f2")
    assert reply.replaced_inode == 0
    assert tree.attr(tree.f) == before
    assert tree.lookup(b"f").inode == tree.lookup(b"f2").inode
    tree.rename(b"f", b"f")


def test_noreplace(tree):
    rename(tree, errno.EEXIST, b"f", b"g", flags=NOREPLACE)
    rename(tree, errno.EEXIST, b"f", b"f", flags=NOREPLACE)
    tree.rename(b"f", b"new", flags=NOREPLACE)


def test_a_whiteout_stays_at_the_old_name(tree):
    for old_name, new_parent, new_name in ((b"f", 1, b"g"), (b"sub", 1, b"new")):
        old_parent = 1 if old_name == b"f" else tree.a
        moved = tree.lookup(old_name, old_parent).inode
        flags = WHITEOUT if old_name == b"f" else WHITEOUT | NOREPLACE
        tree.rename(old_name, new_name, old_parent, new_parent, flags=flags)
        assert tree.lookup(new_name, new_parent).inode == moved
        left = tree.lookup(old_name, old_parent)
        assert (left.type, left.mode, left.rdev, left.nlink) == (pb.CHAR_DEVICE, 0, 0, 1)
    rename(tree, errno.EEXIST, b"g", b"new", flags=WHITEOUT | NOREPLACE)
    tree.rename(b"g", b"f", flags=WHITEOUT)  # over a whiteout


def test_exchange_of_file_and_directory(tree):
    before = tree.attr(tree.a).nlink, tree.attr(1).nlink
    tree.rename(b"f", b"sub", 1, tree.a, flags=EXCHANGE)
    assert tree.lookup(b"f").inode == tree.sub
    assert tree.lookup(b"sub", tree.a).inode == tree.f
    assert (tree.attr(tree.a).nlink, tree.attr(1).nlink) == (before[0] - 1, before[1] + 1)
    assert tree.call(pb.READDIR, inode=tree.sub).parent == 1


def test_exchange_within_one_directory(tree):
    tree.rename(b"f", b"g", flags=EXCHANGE)
    assert (tree.lookup(b"f").inode, tree.lookup(b"g").inode) == (tree.g, tree.f)


def test_exchange_refusals(tree):
    rename(tree, errno.ENOENT, b"f", b"x", flags=EXCHANGE)
    rename(tree, errno.EINVAL, b"f", b"g", flags=EXCHANGE | NOREPLACE)
    rename(tree, errno.EINVAL, b"f", b"g", flags=EXCHANGE | WHITEOUT)
    rename(tree, errno.EINVAL, b"f", b"g", flags=8)
    rename(tree, errno.EINVAL, b"a", b"sub", new_parent=tree.a, flags=EXCHANGE)
    rename(tree, errno.EINVAL, b"sub", b"a", old_parent=tree.a, flags=EXCHANGE)


def test_permissions_of_both_directories(tree):
    inner = tree.mkdir(b"w", mode=0o777)
    tree.create(b"mine", inner, uid=7)
    rename(tree, errno.EACCES, b"f", b"x", new_parent=inner, uid=7)
    rename(tree, errno.EACCES, b"mine", b"x", old_parent=inner, uid=7)
    tree.rename(b"mine", b"mine2", inner, inner, uid=7)


def test_sticky_on_both_sides(tree):
    sticky = tree.mkdir(b"tmp", mode=0o1777)
    free = tree.mkdir(b"free", mode=0o777)
    tree.create(b"of7", sticky, uid=7)
    tree.create(b"of8", free, uid=8)
    rename(tree, errno.EPERM, b"of7", b"x", sticky, free, uid=8)
    rename(tree, errno.EPERM, b"of8", b"of7", free, sticky, uid=8)
    tree.rename(b"of7", b"x", sticky, free, uid=7)


def test_a_directory_that_changes_its_parent_has_to_be_writable(tree):
    w1 = tree.mkdir(b"w1", mode=0o777)
    w2 = tree.mkdir(b"w2", mode=0o777)
    tree.mkdir(b"d", w1, mode=0o555, uid=7)
    rename(tree, errno.EACCES, b"d", b"d", w1, w2, uid=7)
    tree.rename(b"d", b"e", w1, w1, uid=7)


def test_into_a_removed_directory(tree):
    tree.call(pb.RMDIR, parent=1, name=b"b")
    rename(tree, errno.ENOENT, b"f", b"f", new_parent=tree.b)
    rename(tree, errno.ENOENT, b"a", b"a", new_parent=tree.b)


def test_the_loop_check_is_bounded(tree, monkeypatch):
    monkeypatch.setattr("fs3.limits.DIRECTORY_DEPTH_MAX", 3)
    deep = tree.sub
    for i in range(4):
        deep = tree.mkdir(b"%d" % i, deep)
    rename(tree, errno.ELOOP, b"b", b"b", new_parent=deep)
