"""RESOLVE: paths in one call."""

import errno

import pytest

from fs3._proto import meta_pb2 as pb


@pytest.fixture
def tree(world):
    """/a/b/f, /a/link -> b/f, /abs -> /a/b, /loop -> loop, /dangling -> a/new"""
    world.a = world.mkdir(b"a")
    world.b = world.mkdir(b"b", world.a)
    world.f = world.create(b"f", world.b)
    for parent, name, target in (
        (world.a, b"link", b"b/f"),
        (1, b"abs", b"/a/b"),
        (1, b"loop", b"loop"),
        (1, b"dangling", b"a/new"),
        (1, b"slashed", b"a/b/f/"),
    ):
        world.call(pb.SYMLINK, parent=parent, name=name, target=target)
    return world


def resolve(world, path, follow=True, base=0, **fields):
    reply = world.call(pb.RESOLVE, base=base, path=path, follow=follow, **fields)
    return reply.entry.attr.inode, reply.parent, reply.name


def test_paths(tree):
    assert resolve(tree, b"/a/b/f") == (tree.f, tree.b, b"f")
    assert resolve(tree, b"a//b/./f") == (tree.f, tree.b, b"f")
    assert resolve(tree, b"b/f", base=tree.a) == (tree.f, tree.b, b"f")
    assert resolve(tree, b"/a/b/f", base=tree.b) == (tree.f, tree.b, b"f")
    assert resolve(tree, b"/") == (1, 1, b"")
    assert resolve(tree, b"") == (1, 1, b"")
    assert resolve(tree, b"/a/b/..") == (tree.a, tree.a, b"")
    assert resolve(tree, b"/../../a") == (tree.a, 1, b"a")
    assert resolve(tree, b"/a/b/") == (tree.b, tree.a, b"b")


def test_symbolic_links(tree):
    assert resolve(tree, b"/a/link") == (tree.f, tree.b, b"f")
    inode, parent, name = resolve(tree, b"/a/link", follow=False)
    assert (parent, name) == (tree.a, b"link")
    assert tree.attr(inode).type == pb.LINK_SYMBOLIC
    assert resolve(tree, b"/abs/f", follow=False) == (tree.f, tree.b, b"f")
    assert resolve(tree, b"/abs/", follow=False) == (tree.b, tree.a, b"b")
    tree.fails(errno.ELOOP, pb.RESOLVE, path=b"/loop", follow=True)
    tree.fails(errno.ELOOP, pb.RESOLVE, path=b"/loop/x")


def test_forty_links_are_followed_and_no_more(world):
    world.create(b"l0")
    for i in range(1, 42):
        world.call(pb.SYMLINK, parent=1, name=b"l%d" % i, target=b"l%d" % (i - 1))
    assert resolve(world, b"/l40")[0]
    world.fails(errno.ELOOP, pb.RESOLVE, path=b"/l41", follow=True)


def test_a_missing_last_component_tells_where_to_create_it(tree):
    assert resolve(tree, b"/a/new") == (0, tree.a, b"new")
    assert resolve(tree, b"/dangling") == (0, tree.a, b"new")
    tree.fails(errno.ENOENT, pb.RESOLVE, path=b"/a/new/x")


def test_refusals(tree):
    for path, number in (
        (b"/a/b/f/x", errno.ENOTDIR),
        (b"/a/b/f/", errno.ENOTDIR),
        (b"/a/b/f/.", errno.ENOTDIR),
        (b"/slashed", errno.ENOTDIR),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG),
        (b"/x" * 2048, errno.ENAMETOOLONG),
        (b"/a\0b", errno.EINVAL),
    ):
        tree.fails(number, pb.RESOLVE, path=path, follow=True)
    tree.fails(errno.ENOENT, pb.RESOLVE, path=b"x", base=99)


def test_every_directory_on_the_way_must_be_searchable(tree):
    tree.call(pb.SETATTR, inode=tree.a, mode=0o700)
    tree.fails(errno.EACCES, pb.RESOLVE, path=b"/a/b/f", uid=7)
    tree.fails(errno.EACCES, pb.RESOLVE, path=b"/abs/f", uid=7)
    assert resolve(tree, b"f", base=tree.b, uid=7)[0] == tree.f
