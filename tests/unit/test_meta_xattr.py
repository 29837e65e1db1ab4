"""SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR: who may, the limits, and when they go."""

import errno
import os

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.kv import keys

CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE


def put(world, inode, name, value=b"v", **fields):
    return world.call(pb.SETXATTR, inode=inode, name=name, value=value, **fields).attr


def get(world, inode, name, **fields):
    return world.call(pb.GETXATTR, inode=inode, name=name, **fields).value


def listed(world, inode, **fields):
    return list(world.call(pb.LISTXATTR, inode=inode, **fields).names)


def rows(world, inode):
    txn = world.kv.begin()
    try:
        return txn.get_range(*keys.xattrs(inode))
    finally:
        txn.cancel()


@pytest.fixture
def mine(world):
    """A file of user 7, mode 640, group 70."""
    world.d = world.mkdir(b"d", mode=0o777)
    world.f = world.create(b"f", world.d, mode=0o640, uid=7, gid=70)
    world.clock.advance(1)
    return world


def test_set_get_list_remove(mine):
    before = mine.attr(mine.f)
    assert before.flags == 0
    attr = put(mine, mine.f, b"user.b", b"\0\xff", uid=7)
    assert attr.flags == pb.HAS_XATTRS
    assert attr.version > before.version
    assert attr.ctime_ns == mine.clock.wall_ns()
    assert (attr.mtime_ns, attr.data_version) == (before.mtime_ns, before.data_version)
    put(mine, mine.f, b"user.a", b"", uid=7)
    assert listed(mine, mine.f, uid=9) == [b"user.a", b"user.b"]
    assert get(mine, mine.f, b"user.b", uid=7) == b"\0\xff"
    assert get(mine, mine.f, b"user.a", uid=7) == b""
    put(mine, mine.f, b"user.b", b"other", uid=7)
    assert get(mine, mine.f, b"user.b", uid=7) == b"other"
    mine.clock.advance(1)
    attr = mine.call(pb.REMOVEXATTR, inode=mine.f, name=b"user.b", uid=7).attr
    assert attr.ctime_ns == mine.clock.wall_ns()
    mine.fails(errno.ENODATA, pb.REMOVEXATTR, inode=mine.f, name=b"user.b", uid=7)
    mine.fails(errno.ENODATA, pb.GETXATTR, inode=mine.f, name=b"user.b", uid=7)
    assert mine.call(pb.REMOVEXATTR, inode=mine.f, name=b"user.a", uid=7).attr.flags == 0
    assert listed(mine, mine.f) == []


def test_create_and_replace(mine):
    f = mine.f
    mine.fails(errno.ENODATA, pb.SETXATTR, inode=f, name=b"user.a", value=b"1", flags=REPLACE)
    put(mine, f, b"user.a", b"1", flags=CREATE)
    mine.fails(errno.EEXIST, pb.SETXATTR, inode=f, name=b"user.a", value=b"2", flags=CREATE)
    both = CREATE | REPLACE
    mine.fails(errno.EEXIST, pb.SETXATTR, inode=f, name=b"user.a", value=b"2", flags=both)
    mine.fails(errno.ENODATA, pb.SETXATTR, inode=f, name=b"user.b", value=b"2", flags=both)
    put(mine, f, b"user.a", b"3", flags=REPLACE)
    assert get(mine, f, b"user.a") == b"3"
    mine.fails(errno.EINVAL, pb.SETXATTR, inode=f, name=b"user.a", flags=4)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"", errno.ERANGE),
        (b"user." + b"x" * 251, errno.ERANGE),
        (b"user.", errno.EINVAL),
        (b"user.a\0b", errno.EINVAL),
        (b"a", errno.EOPNOTSUPP),
        (b"system.other", errno.EOPNOTSUPP),
        (b"other.a", errno.EOPNOTSUPP),
    ],
)
def test_bad_names(mine, name, number):
    for method in (pb.SETXATTR, pb.GETXATTR, pb.REMOVEXATTR):
        mine.fails(number, method, inode=mine.f, name=name)


def test_limits(mine):
    longest = b"user." + b"x" * 250
    put(mine, mine.f, longest, bytes(limits.XATTR_VALUE_BYTES_MAX))
    too_long = bytes(limits.XATTR_VALUE_BYTES_MAX + 1)
    mine.fails(errno.E2BIG, pb.SETXATTR, inode=mine.f, name=b"user.a", value=too_long)
    full = limits.XATTRS_BYTES_MAX // limits.XATTR_VALUE_BYTES_MAX
    for i in range(1, full - 1):
        put(mine, mine.f, b"user.%d" % i, bytes(limits.XATTR_VALUE_BYTES_MAX))
    last = bytes(limits.XATTR_VALUE_BYTES_MAX)
    mine.fails(errno.ENOSPC, pb.SETXATTR, inode=mine.f, name=b"user.last", value=last)
    put(mine, mine.f, b"user.last", b"small")
    # What is there may be replaced by something that fits.
    put(mine, mine.f, b"user.1", b"")
    put(mine, mine.f, b"user.last", last)


def test_a_million_of_them_are_refused(mine):
    for i in range(limits.XATTRS_PER_INODE_MAX):
        put(mine, mine.f, b"user.%d" % i, b"")
    mine.fails(errno.ENOSPC, pb.SETXATTR, inode=mine.f, name=b"user.more", value=b"")
    assert len(listed(mine, mine.f)) == limits.XATTRS_PER_INODE_MAX


def test_names_that_one_list_cannot_hold_are_refused(mine):
    for i in range(limits.XATTR_NAMES_BYTES_MAX // 256):
        put(mine, mine.f, b"user.%0250d" % i, b"")
    mine.fails(errno.ENOSPC, pb.SETXATTR, inode=mine.f, name=b"user.a", value=b"")
    names = listed(mine, mine.f)
    assert sum(len(name) + 1 for name in names) == limits.XATTR_NAMES_BYTES_MAX


def test_user_needs_read_and_write(mine):
    name = b"user.a"
    put(mine, mine.f, name, uid=7)
    assert get(mine, mine.f, name, uid=9, gid=70) == b"v"
    mine.fails(errno.EACCES, pb.SETXATTR, inode=mine.f, name=name, uid=9, gid=70)
    mine.fails(errno.EACCES, pb.REMOVEXATTR, inode=mine.f, name=name, uid=9, gid=70)
    mine.fails(errno.EACCES, pb.GETXATTR, inode=mine.f, name=name, uid=9)
    # Whether it is there is nobody's business either.
    mine.fails(errno.EACCES, pb.GETXATTR, inode=mine.f, name=b"user.none", uid=9)


def test_user_in_a_sticky_directory_is_the_owners(mine):
    sticky = mine.mkdir(b"tmp", mine.d, mode=0o1777, uid=7)
    put(mine, sticky, b"user.a", uid=7)
    assert get(mine, sticky, b"user.a", uid=9) == b"v"
    mine.fails(errno.EPERM, pb.SETXATTR, inode=sticky, name=b"user.a", uid=9)
    mine.fails(errno.EPERM, pb.REMOVEXATTR, inode=sticky, name=b"user.a", uid=9)
    put(mine, sticky, b"user.a", b"root")
    put(mine, mine.d, b"user.a", uid=9)  # not sticky, and everybody may write


def test_user_is_for_files_and_directories(mine):
    link = mine.call(pb.SYMLINK, parent=mine.d, name=b"l", target=b"f").entry.attr.inode
    fifo = mine.call(pb.CREATE, parent=mine.d, name=b"p", mode=0o666, type=pb.FIFO).attr.inode
    for inode in (link, fifo):
        mine.fails(errno.EPERM, pb.SETXATTR, inode=inode, name=b"user.a")
        mine.fails(errno.EPERM, pb.REMOVEXATTR, inode=inode, name=b"user.a")
        mine.fails(errno.ENODATA, pb.GETXATTR, inode=inode, name=b"user.a")
        put(mine, inode, b"trusted.a")
        assert get(mine, inode, b"trusted.a") == b"v"


def test_trusted_is_roots(mine):
    put(mine, mine.f, b"trusted.a")
    put(mine, mine.f, b"user.a")
    for method, number in (
        (pb.SETXATTR, errno.EPERM),
        (pb.REMOVEXATTR, errno.EPERM),
        (pb.GETXATTR, errno.ENODATA),
    ):
        mine.fails(number, method, inode=mine.f, name=b"trusted.a", uid=7)
    assert listed(mine, mine.f, uid=7) == [b"user.a"]
    assert listed(mine, mine.f) == [b"trusted.a", b"user.a"]


def test_security_is_changed_by_root_and_read_by_all(mine):
    put(mine, mine.f, b"security.x")
    mine.fails(errno.EPERM, pb.SETXATTR, inode=mine.f, name=b"security.x", uid=7)
    mine.fails(errno.EPERM, pb.REMOVEXATTR, inode=mine.f, name=b"security.x", uid=7)
    assert get(mine, mine.f, b"security.x", uid=9) == b"v"
    assert listed(mine, mine.f, uid=9) == [b"security.x"]


@pytest.mark.parametrize("change", ["write", "truncate", "chown"])
def test_a_changed_program_loses_its_capabilities(mine, change):
    put(mine, mine.f, b"security.capability", b"caps")
    put(mine, mine.f, b"user.a")
    if change == "write":
        session = mine.open(mine.f).session
        mine.chunks.write(mine.f, 5)
        mine.call(pb.CLOSE, inode=mine.f, session=session, written_end=5, wrote=True)
    elif change == "truncate":
        mine.call(pb.SETATTR, inode=mine.f, size=0)
    else:
        mine.call(pb.SETATTR, inode=mine.f, set_uid=8)
    assert listed(mine, mine.f) == [b"user.a"]


def test_they_go_with_the_inode(mine):
    g = mine.write_file(b"g", 100, mine.d)
    put(mine, g, b"user.a")
    put(mine, mine.f, b"user.a")
    mine.unlink(b"g", mine.d)
    mine.unlink(b"f", mine.d)
    assert rows(mine, g)
    assert rows(mine, mine.f)
    mine.collect()
    assert not rows(mine, g)
    assert not rows(mine, mine.f)


def test_a_repeated_request_is_applied_once(mine):
    body = mine.request(pb.SETXATTR, inode=mine.f, name=b"user.a", value=b"1", flags=CREATE)
    first = mine.answer(mine.send(pb.SETXATTR, body), pb.SETXATTR)
    again = mine.answer(mine.send(pb.SETXATTR, body), pb.SETXATTR)
    assert first.attr == again.attr
