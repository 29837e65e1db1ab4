"""fsck finds each planted damage, by the name of its check; a sound file system has no finding."""

import struct

import pytest
from meta_world import CLIENT, World

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.kv.memory import MemoryStore
from fs3.meta import acl, dirent, garbage, intent, quota, session, tombstone, xattr
from fs3.meta import inode as inodes
from fs3.meta import tree as trees
from fs3.meta.fsck import fsck, live_files
from fs3.meta.intent import TruncateIntent
from fs3.meta.permission import Caller
from fs3.meta.quota import TREE, USER
from fs3.meta.session import Session

MORE = quota.encode_usage(quota.Usage(4096, 1))
NOBODY = trees.encode(Caller(99, 99))
# u::rwx, u:9:rw-, g::r--, m::rw-, o::---
ACL = bytes.fromhex(
    "0200000001000700ffffffff020006000900000004000400ffffffff10000600ffffffff20000000ffffffff"
)


@pytest.fixture
def tree():
    """/d/sub/, /d/f with 100 bytes and an open session, /g with two names, /gone in the queue, and
    a tree in removal: cut/below/."""
    world = World(MemoryStore())
    world.d = world.mkdir(b"d")
    world.sub = world.mkdir(b"sub", world.d)
    world.f = world.write_file(b"f", 100, world.d)
    world.session = world.open(world.f).session
    world.g = world.create(b"g")
    world.call(pb.LINK, inode=world.g, parent=world.d, name=b"g2")
    world.gone = world.write_file(b"gone", 7)
    world.unlink(b"gone")
    world.cut = world.mkdir(b"cut")
    world.below = world.mkdir(b"below", world.cut)
    world.call(pb.REMOVE_TREE, parent=1, name=b"cut")
    world.call(pb.SETXATTR, inode=world.g, name=b"user.a", value=b"v")
    world.call(pb.SETXATTR, inode=world.sub, name=acl.ACCESS, value=ACL)
    assert fsck(world.kv) == []
    return world


def change(number, **fields):
    def operation(txn, world):
        record = inodes.find(txn, getattr(world, number) if isinstance(number, str) else number)
        for name, value in fields.items():
            setattr(record, name, getattr(world, value) if isinstance(value, str) else value)
        inodes.store(txn, record)

    return operation


def queue_row(txn, world):
    begin, end = keys.GARBAGE, keys.prefix_end(keys.GARBAGE)
    ((key, _),) = txn.get_range(begin, end)
    return key


def cycle(txn, world):
    """d goes into its own sub: parents and entries agree, nobody reaches the root."""
    dirent.remove(txn, 1, b"d")
    dirent.store(txn, world.sub, b"d", world.d, inodes.DIRECTORY)
    change(1, nlink=2)(txn, world)
    change("sub", nlink=3)(txn, world)
    change("d", parent="sub")(txn, world)


def forget_removal(txn, world):
    txn.clear(keys.tree(world.cut))
    garbage.put(txn, world.cut, 5)


def wrong_order(txn, world):
    record = txn.get(keys.dentry(1, b"g"))
    txn.clear(keys.dentry(1, b"g"))
    txn.set(keys.dentry(1, b"x")[:20] + b"g", record)


def second_directory_entry(txn, world):
    dirent.store(txn, 1, b"sub2", world.sub, inodes.DIRECTORY)
    change(1, nlink=4)(txn, world)


def ghost_session(txn, world):
    session.create(txn, Session(world.d, b"s" * 16, CLIENT, 2, 0, 0, 0, 0))


def lonely_index(txn, world):
    txn.set(keys.client_session(CLIENT, world.f, b"n" * 16), b"")


def entry_below_a_file(txn, world):
    dirent.remove(txn, world.d, b"g2")
    dirent.store(txn, world.f, b"g2", world.g, inodes.FILE)


DAMAGE = {
    "short inode": ("record", lambda t, w: t.set(keys.inode(w.g), b"\x01short")),
    "inode schema": ("record", lambda t, w: t.set(keys.inode(w.g), b"\x63" + bytes(140))),
    "entry record": ("record", lambda t, w: t.set(keys.dentry(1, b"g"), b"\x01")),
    "unknown prefix": ("record", lambda t, w: t.set(b"WHAT", b"")),
    "key length": ("record", lambda t, w: t.set(keys.INODE + b"\x01", b"")),
    "session record": ("record", lambda t, w: t.set(keys.session(w.f, w.session), b"\x01")),
    "idempotency record": ("record", lambda t, w: t.set(keys.idempotency(1, CLIENT, 1), b"\0")),
    "gc record": ("record", lambda t, w: t.set(queue_row(t, w), b"")),
    "intent record": ("record", lambda t, w: t.set(keys.intent(w.f), b"")),
    "allocator record": ("record", lambda t, w: t.set(keys.ALLOCATOR, b"\x01")),
    "no root": ("root", lambda t, w: t.clear(keys.inode(1))),
    "root below": ("root", lambda t, w: dirent.store(t, w.sub, b"up", 1, inodes.DIRECTORY)),
    "id of the future": ("inode_id", lambda t, w: t.set(keys.ALLOCATOR, (3).to_bytes(8, "little"))),
    "lost inode": ("inode_orphan", lambda t, w: dirent.remove(t, w.d, b"f")),
    "lost from the queue": ("inode_orphan", lambda t, w: t.clear(queue_row(t, w))),
    "too many links": ("inode_nlink", change("g", nlink=3)),
    "lost link": ("inode_nlink", lambda t, w: dirent.remove(t, w.d, b"g2")),
    "subdirectories": ("inode_nlink", change("d", nlink=2)),
    "dangling": ("dentry_dangling", lambda t, w: t.clear(keys.inode(w.g))),
    "type": ("dentry_type", lambda t, w: dirent.store(t, 1, b"g", w.g, inodes.FIFO)),
    "order": ("dentry_order", wrong_order),
    "bad name": ("dentry_order", lambda t, w: dirent.store(t, 1, b"a/b", w.g, inodes.FILE)),
    "entry below a file": ("dentry_parent", entry_below_a_file),
    "parent pointer": ("directory_entries", change("sub", parent=1)),
    "two entries": ("directory_entries", second_directory_entry),
    "cycle": ("directory_cycle", cycle),
    "queued with a name": (
        "gc_inode",
        lambda t, w: t.set(keys.garbage(5, w.g), garbage.Row(garbage.UNKNOWN, 1).encode()),
    ),
    "queued without inode": (
        "gc_inode",
        lambda t, w: t.set(keys.garbage(5, 999), garbage.Row(garbage.UNKNOWN, 1).encode()),
    ),
    "queued twice": (
        "gc_inode",
        lambda t, w: t.set(keys.garbage(5, w.gone), garbage.Row(garbage.UNKNOWN, 1).encode()),
    ),
    "usage record": ("record", lambda t, w: t.set(keys.usage(USER, 0, 0), b"\x63")),
    "limit record": ("record", lambda t, w: t.set(keys.quota(USER, 7), b"\x63")),
    "too much in use": ("quota_usage", lambda t, w: t.set(keys.usage(USER, 0, 9), MORE)),
    "nobody's use": ("quota_usage", lambda t, w: t.set(keys.usage(TREE, 999, 0), MORE)),
    "use forgotten": ("quota_usage", lambda t, w: t.clear(keys.usage(USER, 0, 0))),
    "limit of no tree": (
        "quota_limit",
        lambda t, w: t.set(keys.quota(TREE, w.d), quota.encode_limit(quota.Limit(5, 5))),
    ),
    "removal of nothing": ("tree_inode", lambda t, w: t.set(keys.tree(999), NOBODY)),
    "removal of a named tree": ("tree_inode", lambda t, w: t.set(keys.tree(w.d), NOBODY)),
    "removal of a file": ("tree_inode", lambda t, w: t.set(keys.tree(w.gone), NOBODY)),
    "removal and queue": (
        "tree_inode",
        lambda t, w: t.set(keys.garbage(5, w.cut), garbage.Row(garbage.UNKNOWN, 1).encode()),
    ),
    "removal record": ("record", lambda t, w: t.set(keys.tree(w.cut), b"\x01")),
    "forgotten removal": ("tree_entries", lambda t, w: t.clear(keys.tree(w.cut))),
    "forgotten removal in the queue": ("tree_entries", forget_removal),
    "tombstone record": ("record", lambda t, w: t.set(keys.tombstone(1, 999), b"\x01")),
    "tombstone of a file that is there": (
        "tombstone",
        lambda t, w: tombstone.put(t, inodes.find(t, w.g)),
    ),
    "attribute record": ("record", lambda t, w: t.set(keys.xattr(w.g, b"user.a"), b"\x63v")),
    "attribute key": ("record", lambda t, w: t.set(keys.xattr(w.g, b""), b"\x01v")),
    "acl record": ("record", lambda t, w: t.set(keys.xattr(w.sub, acl.ACCESS), b"\x01acl")),
    "attribute of nothing": (
        "xattr_inode",
        lambda t, w: t.set(keys.xattr(999, b"user.a"), xattr.encode(b"")),
    ),
    "attribute without flag": ("xattr_inode", change("g", flags=0)),
    "flag without attribute": ("xattr_inode", lambda t, w: t.clear(keys.xattr(w.g, b"user.a"))),
    "flag without acl": ("xattr_inode", lambda t, w: t.clear(keys.xattr(w.sub, acl.ACCESS))),
    "mode beside its acl": ("acl_mode", change("sub", mode=0o740)),
    "session of a directory": ("session_inode", ghost_session),
    "session without index": (
        "session_inode",
        lambda t, w: t.clear(keys.client_session(CLIENT, w.f, w.session)),
    ),
    "index without session": ("session_inode", lonely_index),
    "intent of nothing": (
        "intent_inode",
        lambda t, w: intent.store(t, TruncateIntent(999, False, 5, 0, 1)),
    ),
    "appends record": ("record", lambda t, w: t.set(keys.appends(w.f), b"\x01")),
    "appends to nothing": (
        "append_inode",
        lambda t, w: t.set(keys.appends(999), struct.pack("<BIQ", 1, 0, 5)),
    ),
    "intent of another epoch": (
        "intent_inode",
        lambda t, w: intent.store(t, TruncateIntent(w.f, False, 5, 0, 77)),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_damage_is_found(tree, damage):
    check, plant = DAMAGE[damage]
    tree.store.transact([lambda txn: plant(txn, tree)])
    found = fsck(tree.kv)
    assert check in {finding.check for finding in found}, found


def test_every_check_has_a_damage():
    from fs3.meta import fsck as module

    documented = {
        line.split("|")[1].strip() for line in module.__doc__.splitlines() if line.startswith("| ")
    } - {"check"}
    assert documented == {check for check, _ in DAMAGE.values()}


def test_live_files(tree):
    files = {file.inode: file for file in live_files(tree.kv)}
    assert set(files) == {tree.f, tree.g, tree.gone}
    assert files[tree.f].size == 100
    assert files[tree.f].layout.chunk_size == 1 << 20
    assert [number for number, file in files.items() if file.removing] == [tree.gone]
