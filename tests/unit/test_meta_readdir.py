"""READDIR: pages, cookies under changes, attributes."""

import errno
import random

import pytest

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.kv import keys


def test_an_empty_directory(world):
    reply = world.call(pb.READDIR, inode=1)
    assert (list(reply.entries), reply.end, reply.parent) == ([], True, 1)
    directory = world.mkdir(b"d")
    assert world.call(pb.READDIR, inode=directory).parent == 1


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_pages_hold_every_entry_once(world, limit):
    names = {b"n%d" % i for i in range(20)}
    for name in names:
        world.create(name)
    found = world.names(limit=limit)
    assert len(found) == 20
    assert set(found) == names


def test_types_attributes_and_cookies(world):
    directory = world.mkdir(b"d")
    file = world.create(b"f")
    reply = world.call(pb.READDIR, inode=1, attributes=True)
    by_name = {entry.name: entry for entry in reply.entries}
    assert by_name[b"d"].type == pb.DIRECTORY
    assert by_name[b"d"].attr == world.attr(directory)
    assert by_name[b"f"].inode == by_name[b"f"].attr.inode == file
    cookies = [entry.cookie for entry in reply.entries]
    assert cookies == sorted(set(cookies))
    assert all(16 <= cookie < 1 << 63 for cookie in cookies)
    plain = world.call(pb.READDIR, inode=1)
    assert not any(entry.HasField("attr") for entry in plain.entries)


def test_permissions(world):
    directory = world.mkdir(b"d", mode=0o744)
    world.create(b"f", directory)
    reply = world.call(pb.READDIR, inode=directory, attributes=True, uid=7)
    assert [entry.name for entry in reply.entries] == [b"f"]
    assert not reply.entries[0].HasField("attr")  # attributes need the right to search
    world.call(pb.SETATTR, inode=directory, mode=0o711)
    world.fails(errno.EACCES, pb.READDIR, inode=directory, uid=7)
    file = world.lookup(b"f", directory).inode
    world.fails(errno.ENOTDIR, pb.READDIR, inode=file)


def test_the_page_is_bounded(world):
    world.store.transact([lambda txn: fill(txn, 1500)])
    reply = world.call(pb.READDIR, inode=1, limit=100_000)
    assert len(reply.entries) == limits.READDIR_ENTRIES_MAX
    assert len(world.names()) == 1500
    world.store.transact([lambda txn: txn.clear_range(*keys.dentry_range(1))])


def fill(txn, count):
    for i in range(count):
        txn.set(keys.dentry(1, b"%d" % i), b"\x01\x01" + (1).to_bytes(8, "little"))


@pytest.mark.parametrize("seed", range(5))
def test_what_exists_throughout_is_returned_exactly_once(world, seed):
    dice = random.Random(seed)
    stable = [b"stable%d" % i for i in range(30)]
    for name in stable:
        world.create(name)
    passing: list[bytes] = []
    found: list[bytes] = []
    cookie, step = 0, 0
    while True:
        reply = world.call(pb.READDIR, inode=1, cookie=cookie, limit=dice.randint(1, 5))
        found += [entry.name for entry in reply.entries]
        if reply.end:
            break
        cookie = reply.entries[-1].cookie
        for _ in range(dice.randint(0, 4)):
            step += 1
            if passing and dice.random() < 0.5:
                world.unlink(passing.pop(dice.randrange(len(passing))))
            else:
                passing.append(b"passing%d" % step)
                world.create(passing[-1])
        if dice.random() < 0.2:
            world.restart()
    assert sorted(name for name in found if name.startswith(b"stable")) == sorted(stable)
    assert len(found) == len(set(found))


def test_names_of_equal_order_stay_on_one_page(world, monkeypatch):
    monkeypatch.setattr(keys, "name_order", lambda name: 100 + len(name))
    names = [b"aa", b"bb", b"cc", b"d", b"eee", b"fff"]
    for name in names:
        world.create(name)
    for limit in (1, 2, 3, 4):
        assert world.names(limit=limit) == [b"d", b"aa", b"bb", b"cc", b"eee", b"fff"]
    for name in names:
        world.unlink(name)


def test_a_cookie_at_the_end(world):
    world.create(b"f")
    reply = world.call(pb.READDIR, inode=1, cookie=(1 << 63) - 1)
    assert reply.end
    assert not reply.entries
    assert world.call(pb.READDIR, inode=1, cookie=(1 << 64) - 1).end
