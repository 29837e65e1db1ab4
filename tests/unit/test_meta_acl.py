"""POSIX ACLs: every decision against the oracle; what they do to modes, children and chmod."""

import errno
import struct

import acl_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from permission_oracle import File, User

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.meta import acl, permission
from fs3.meta.fsck import fsck
from fs3.meta.inode import DIRECTORY, FILE, Inode
from fs3.meta.permission import Caller

ACCESS, DEFAULT = acl.ACCESS, acl.DEFAULT
IDS = st.sampled_from([1, 2, 3, 4])
GRANTED = st.sets(st.sampled_from("rwx")).map(frozenset)


@st.composite
def acls(draw):
    """As the oracle has them."""
    made = {("user", None): draw(GRANTED), ("group", None): draw(GRANTED), "other": draw(GRANTED)}
    for kind in ("user", "group"):
        for number in draw(st.sets(IDS, max_size=3)):
            made[kind, number] = draw(GRANTED)
    if len(made) > 3 or draw(st.booleans()):
        made["mask"] = draw(GRANTED)
    return made


def value_of(made):
    """In the kernel's layout, built by the sentence and not by the code under test."""

    def rows():
        yield 1, made["user", None], 0xFFFFFFFF
        yield from ((2, made[k], k[1]) for k in named("user"))
        yield 4, made["group", None], 0xFFFFFFFF
        yield from ((8, made[k], k[1]) for k in named("group"))
        if "mask" in made:
            yield 16, made["mask"], 0xFFFFFFFF
        yield 32, made["other"], 0xFFFFFFFF

    def named(kind):
        keys = [key for key in made if isinstance(key, tuple)]
        return sorted(key for key in keys if key[0] == kind and key[1] is not None)

    packed = (struct.pack("<HHI", tag, oracle.digit(granted), n) for tag, granted, n in rows())
    return struct.pack("<I", 2) + b"".join(packed)


def of_value(value):
    """As the oracle has it."""
    made = {}
    for tag, granted, number in struct.iter_unpack("<HHI", value[4:]):
        key = {1: ("user", None), 2: ("user", number), 4: ("group", None), 8: ("group", number)}
        made[key.get(tag, "mask" if tag == 16 else "other")] = oracle.letters(granted)
    return made


FILES = st.builds(File, st.sampled_from(["file", "dir"]), st.just(0), IDS, IDS)
USERS = st.builds(User, IDS, st.lists(IDS, min_size=1, max_size=3).map(tuple))


@settings(max_examples=5_000, deadline=None)
@given(made=acls(), file=FILES, user=USERS, mode=st.integers(0, 0o777))
def test_every_decision_equals_the_oracle(made, file, user, mode):
    decoded = acl.decode(value_of(made))
    assert decoded.encode() == value_of(made)
    assert decoded.mode() == oracle.mode(made)
    kind = DIRECTORY if file.kind == "dir" else FILE
    inode = Inode(5, kind, decoded.mode(), 1, file.uid, file.gid, parent=1 if kind == 2 else 0)
    inode.acl = decoded
    who = Caller(user.uid, user.groups[0], frozenset(user.groups[1:]))
    for want, text in enumerate(["", "x", "w", "wx", "r", "rx", "rw", "rwx"]):
        expected = oracle.allows(made, file, user, set(text))
        assert permission.allowed(inode, who, want) == expected, text
        assert permission.allowed(inode, Caller(0, 0), want) == (
            "x" not in text or kind == DIRECTORY or inode.mode & 0o111 != 0
        )
    assert of_value(decoded.chmod(mode).encode()) == oracle.after_chmod(made, mode)
    child_mode, child = decoded.inherited(0o4000 | mode)
    assert of_value(child.encode()) == oracle.child(made, mode)
    assert child_mode == 0o4000 | oracle.mode(oracle.child(made, mode))


ENTRY = struct.Struct("<HHI")


def raw(*entries, version=2):
    return struct.pack("<I", version) + b"".join(ENTRY.pack(*entry) for entry in entries)


NONE = 0xFFFFFFFF
OWNER, GROUP, MASK, OTHER = (1, 6, NONE), (4, 4, NONE), (16, 6, NONE), (32, 0, NONE)
USER_9 = (2, 6, 9)


@pytest.mark.parametrize(
    "value",
    [
        b"\2",
        raw(OWNER, GROUP, OTHER)[:-1],
        raw(OWNER, GROUP, OTHER, version=1),
        raw(OWNER, GROUP),
        raw(OWNER, OTHER),
        raw(GROUP, OTHER),
        raw(OWNER, OWNER, GROUP, OTHER),
        raw(GROUP, OWNER, OTHER),
        raw(OWNER, USER_9, GROUP, OTHER),
        raw(OWNER, GROUP, MASK, MASK, OTHER),
        raw(OWNER, (2, 6, NONE), GROUP, MASK, OTHER),
        raw(OWNER, (2, 8, 9), GROUP, MASK, OTHER),
        raw(OWNER, GROUP, OTHER, (64, 0, 0)),
        raw(OWNER, *[(2, 6, i) for i in range(limits.ACL_ENTRIES_MAX)], GROUP, MASK, OTHER),
    ],
)
def test_what_is_no_acl_is_refused(mine, value):
    mine.fails(errno.EINVAL, pb.SETXATTR, inode=mine.f, name=ACCESS, value=value)


@pytest.fixture
def mine(world):
    """A file of user 7, mode 640, group 70, in a directory where everybody may write."""
    world.d = world.mkdir(b"d", mode=0o777)
    world.f = world.create(b"f", world.d, mode=0o640, uid=7, gid=70)
    world.clock.advance(1)
    return world


def put(world, inode, value, name=ACCESS, **fields):
    return world.call(pb.SETXATTR, inode=inode, name=name, value=value, **fields).attr


def get(world, inode, name=ACCESS):
    return world.call(pb.GETXATTR, inode=inode, name=name).value


FOR_9 = raw(OWNER, USER_9, GROUP, MASK, OTHER)


def test_it_is_enforced_by_the_service(mine):
    mine.fails(errno.EACCES, pb.OPEN, inode=mine.f, flags=2, uid=9)
    attr = put(mine, mine.f, FOR_9, uid=7)
    assert (attr.mode, attr.flags) == (0o660, pb.HAS_XATTRS | pb.HAS_ACCESS_ACL)
    assert attr.ctime_ns == mine.clock.wall_ns()
    assert mine.call(pb.OPEN, inode=mine.f, flags=2, uid=9).session
    mine.fails(errno.EACCES, pb.OPEN, inode=mine.f, flags=0, uid=10)
    mine.fails(errno.EACCES, pb.OPEN, inode=mine.f, flags=2, uid=10, gid=70)  # the group reads
    mine.call(pb.OPEN, inode=mine.f, flags=0, uid=10, gid=70)
    mine.call(pb.ACCESS, inode=mine.f, mask=6, uid=9)
    mine.fails(errno.EACCES, pb.ACCESS, inode=mine.f, mask=1, uid=9)
    mine.restart()
    mine.call(pb.ACCESS, inode=mine.f, mask=6, uid=9)


def test_search_of_a_path_asks_the_acl(mine):
    deep = mine.mkdir(b"deep", mine.d, mode=0o700, uid=7)
    mine.create(b"x", deep, uid=7)
    mine.fails(errno.EACCES, pb.RESOLVE, path=b"/d/deep/x", uid=9)
    put(mine, deep, raw((1, 7, NONE), (2, 1, 9), (4, 0, NONE), (16, 1, NONE), OTHER), uid=7)
    assert mine.call(pb.RESOLVE, path=b"/d/deep/x", uid=9).entry.attr.inode
    mine.fails(errno.EACCES, pb.READDIR, inode=deep, uid=9)


def test_the_mask_bounds_and_chmod_moves_it(mine):
    put(mine, mine.f, FOR_9, uid=7)
    attr = mine.call(pb.SETATTR, inode=mine.f, mode=0o640, uid=7).attr
    assert attr.mode == 0o640
    assert of_value(get(mine, mine.f))["mask"] == frozenset("r")
    assert of_value(get(mine, mine.f))["group", None] == frozenset("r")
    mine.fails(errno.EACCES, pb.OPEN, inode=mine.f, flags=2, uid=9)
    mine.call(pb.OPEN, inode=mine.f, flags=0, uid=9)
    mine.call(pb.SETATTR, inode=mine.f, mode=0o660, uid=7)
    mine.call(pb.OPEN, inode=mine.f, flags=2, uid=9)


def test_one_that_says_no_more_than_the_mode_is_the_mode(mine):
    put(mine, mine.f, FOR_9, uid=7)
    attr = put(mine, mine.f, raw((1, 7, NONE), (4, 5, NONE), (32, 1, NONE)), uid=7)
    assert (attr.mode, attr.flags) == (0o751, 0)
    mine.fails(errno.ENODATA, pb.GETXATTR, inode=mine.f, name=ACCESS)


def test_removal_leaves_the_mode(mine):
    put(mine, mine.f, FOR_9, uid=7)
    attr = mine.call(pb.REMOVEXATTR, inode=mine.f, name=ACCESS, uid=7).attr
    assert (attr.mode, attr.flags) == (0o660, 0)
    mine.call(pb.REMOVEXATTR, inode=mine.f, name=ACCESS, uid=7)  # without a word
    put(mine, mine.f, FOR_9, uid=7)
    assert put(mine, mine.f, b"", uid=7).flags == 0
    assert put(mine, mine.f, struct.pack("<I", 2), uid=7).flags == 0


def test_only_the_owner_changes_it(mine):
    mine.fails(errno.EPERM, pb.SETXATTR, inode=mine.f, name=ACCESS, value=FOR_9, uid=9)
    put(mine, mine.f, FOR_9)
    mine.fails(errno.EPERM, pb.REMOVEXATTR, inode=mine.f, name=ACCESS, uid=9)
    # Everybody sees it, in the list too.
    assert mine.call(pb.GETXATTR, inode=mine.f, name=ACCESS, uid=10).value == FOR_9
    assert list(mine.call(pb.LISTXATTR, inode=mine.f, uid=10).names) == [ACCESS]


def test_who_is_not_in_the_group_does_not_keep_setgid(mine):
    mine.call(pb.SETATTR, inode=mine.f, mode=0o2750)
    value = raw((1, 7, NONE), USER_9, (4, 5, NONE), (16, 7, NONE), OTHER)
    assert put(mine, mine.f, value, uid=7, gid=70).mode == 0o2770
    assert put(mine, mine.f, value, uid=7, gid=1).mode == 0o770


def test_symbolic_links_have_none(mine):
    link = mine.call(pb.SYMLINK, parent=mine.d, name=b"l", target=b"f").entry.attr.inode
    for method in (pb.SETXATTR, pb.GETXATTR, pb.REMOVEXATTR):
        mine.fails(errno.EOPNOTSUPP, method, inode=link, name=ACCESS)


# ---- default ACLs


DEFAULT_9 = raw((1, 7, NONE), (2, 7, 9), (4, 5, NONE), (16, 7, NONE), (32, 0, NONE))


@pytest.fixture
def inheriting(mine):
    put(mine, mine.d, DEFAULT_9, DEFAULT)
    return mine


def test_a_default_acl_is_a_directorys(mine):
    mine.fails(errno.EACCES, pb.SETXATTR, inode=mine.f, name=DEFAULT, value=DEFAULT_9)
    assert put(mine, mine.f, b"", DEFAULT).flags == 0
    mine.fails(errno.ENODATA, pb.GETXATTR, inode=mine.f, name=DEFAULT)
    attr = put(mine, mine.d, DEFAULT_9, DEFAULT)
    assert attr.mode == 0o777, "it says nothing about the directory itself"
    assert attr.flags == pb.HAS_XATTRS | pb.HAS_DEFAULT_ACL
    three = raw((1, 7, NONE), (4, 5, NONE), (32, 0, NONE))
    put(mine, mine.d, three, DEFAULT)
    assert get(mine, mine.d, DEFAULT) == three, "it is kept though it could be a mode"


def test_files_inherit_it_instead_of_the_umask(inheriting):
    file = inheriting.create(b"x", inheriting.d, mode=0o666, umask=0o077, uid=8)
    assert inheriting.attr(file).mode == 0o660
    expected = raw((1, 6, NONE), (2, 7, 9), (4, 5, NONE), (16, 6, NONE), (32, 0, NONE))
    assert get(inheriting, file) == expected
    inheriting.call(pb.ACCESS, inode=file, mask=6, uid=9)
    inheriting.fails(errno.EACCES, pb.ACCESS, inode=file, mask=1, uid=9)
    inheriting.fails(errno.ENODATA, pb.GETXATTR, inode=file, name=DEFAULT)


def test_directories_pass_it_on(inheriting):
    sub = inheriting.mkdir(b"sub", inheriting.d, mode=0o777, umask=0o077)
    assert inheriting.attr(sub).mode == 0o770
    assert get(inheriting, sub, DEFAULT) == DEFAULT_9
    deep = inheriting.create(b"deep", sub, mode=0o600)
    assert inheriting.attr(deep).mode == 0o600
    assert of_value(get(inheriting, deep))["mask"] == frozenset()


def test_nodes_inherit_it_and_links_do_not(inheriting):
    fifo = inheriting.call(
        pb.CREATE, parent=inheriting.d, name=b"p", mode=0o666, type=pb.FIFO, umask=0o077
    ).attr
    assert fifo.mode == 0o660
    link = inheriting.call(pb.SYMLINK, parent=inheriting.d, name=b"l", target=b"x").entry.attr
    assert (link.mode, link.flags) == (0o777, 0)


def test_a_default_acl_of_three_entries_gives_modes_only(mine):
    put(mine, mine.d, raw((1, 7, NONE), (4, 0, NONE), (32, 5, NONE)), DEFAULT)
    attr = mine.attr(mine.create(b"x", mine.d, mode=0o666, umask=0o077))
    assert (attr.mode, attr.flags) == (0o604, 0)


def test_setgid_is_judged_before_the_umask(world):
    """As the kernel: what the umask would take away counts as asked for."""
    d = world.mkdir(b"d", mode=0o777)
    world.call(pb.SETATTR, inode=d, mode=0o2777)
    file = world.create(b"f", d, mode=0o2775, umask=0o010, uid=7, gid=7)
    assert world.attr(file).mode == 0o765
    assert fsck(world.kv) == []
