"""CREATE: files, devices, exclusive opens, layouts."""

import errno
import os
import stat

import pytest
from meta_world import routing

from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.errors import RetryLater
from fs3.meta.layouts import LayoutPolicy


def test_a_new_file_and_what_it_does_to_its_directory(world):
    before = world.attr(1)
    world.clock.advance(5)
    reply = world.call(
        pb.CREATE, parent=1, name=b"f", mode=0o666, type=pb.FILE, uid=0, gid=8, umask=0o022
    )
    attr = reply.attr
    assert reply.created
    assert not reply.session
    assert (attr.type, attr.mode, attr.nlink, attr.uid, attr.gid) == (pb.FILE, 0o644, 1, 0, 8)
    now_ns = world.clock.wall_ns()
    assert attr.atime_ns == attr.mtime_ns == attr.ctime_ns == attr.btime_ns == now_ns
    after = world.attr(1)
    assert after.mtime_ns == after.ctime_ns == now_ns
    assert (after.atime_ns, after.nlink) == (before.atime_ns, 2)
    assert after.version > before.version


def test_create_and_open_gives_session_and_capability(world):
    reply = world.call(
        pb.CREATE, parent=1, name=b"f", mode=0, type=pb.FILE, open=True, flags=os.O_RDWR, uid=0
    )
    assert len(reply.session) == 16
    assert len(reply.capability) == 80
    assert reply.capability[1] == 7  # read, write, truncate
    world.call(pb.CLOSE, inode=reply.attr.inode, session=reply.session)


def test_the_mode_of_a_new_file_does_not_bind_its_creator(world):
    directory = world.mkdir(b"d", mode=0o777)
    reply = world.call(
        pb.CREATE, parent=directory, name=b"f", mode=0, open=True, flags=os.O_RDWR, uid=7
    )
    assert reply.created
    world.call(pb.CLOSE, inode=reply.attr.inode, session=reply.session, uid=7)
    world.fails(errno.EACCES, pb.OPEN, inode=reply.attr.inode, flags=os.O_RDONLY, uid=7)


def test_an_existing_file_is_opened_with_its_permissions(world):
    inode = world.create(b"f", mode=0o600)
    reply = world.call(pb.CREATE, parent=1, name=b"f", open=True, flags=os.O_RDONLY)
    assert not reply.created
    assert reply.attr.inode == inode
    world.fails(errno.EACCES, pb.CREATE, parent=1, name=b"f", open=True, flags=os.O_RDONLY, uid=7)


def test_truncation_of_an_existing_file(world):
    inode = world.write_file(b"f", 3000)
    reply = world.call(pb.CREATE, parent=1, name=b"f", open=True, flags=os.O_WRONLY | os.O_TRUNC)
    assert reply.attr.size == 0
    assert inode not in world.chunks.lengths
    world.call(pb.CLOSE, inode=inode, session=reply.session)


def test_exclusive_and_mknod_refuse_what_exists(world):
    world.create(b"f")
    world.fails(errno.EEXIST, pb.CREATE, parent=1, name=b"f", open=True, exclusive=True)
    world.fails(errno.EEXIST, pb.CREATE, parent=1, name=b"f", type=pb.FIFO)
    world.call(pb.SYMLINK, parent=1, name=b"l", target=b"nowhere")
    world.fails(errno.EEXIST, pb.CREATE, parent=1, name=b"l", open=True, exclusive=True)


def test_existing_names_of_other_types(world):
    world.mkdir(b"d")
    world.call(pb.SYMLINK, parent=1, name=b"l", target=b"f")
    world.call(pb.CREATE, parent=1, name=b"p", type=pb.FIFO, mode=0o600)
    flags = os.O_WRONLY | os.O_CREAT
    world.fails(errno.EISDIR, pb.CREATE, parent=1, name=b"d", open=True, flags=flags)
    world.fails(errno.ELOOP, pb.CREATE, parent=1, name=b"l", open=True, flags=flags)
    world.fails(errno.ENXIO, pb.CREATE, parent=1, name=b"p", open=True, flags=flags)


def test_existing_wins_over_missing_permission(world):
    directory = world.mkdir(b"d", mode=0o755)
    world.create(b"f", directory)
    exclusive = {"parent": directory, "open": True, "exclusive": True, "uid": 7}
    world.fails(errno.EEXIST, pb.CREATE, name=b"f", **exclusive)
    world.fails(errno.EACCES, pb.CREATE, name=b"g", **exclusive)


def test_special_files(world):
    for kind in (pb.FIFO, pb.SOCKET):
        attr = world.call(pb.CREATE, parent=1, name=b"s%d" % kind, type=kind, mode=0o600, rdev=5)
        assert (attr.attr.type, attr.attr.rdev) == (kind, 0)
    for kind in (pb.CHAR_DEVICE, pb.BLOCK_DEVICE):
        name = b"d%d" % kind
        attr = world.call(pb.CREATE, parent=1, name=name, type=kind, rdev=os.makedev(8, 1))
        assert attr.attr.rdev == os.makedev(8, 1)
    world.call(pb.SETATTR, inode=1, mode=0o777)
    device = {"parent": 1, "name": b"x", "uid": 7}
    world.fails(errno.EPERM, pb.CREATE, type=pb.CHAR_DEVICE, rdev=0x103, **device)
    world.fails(errno.EPERM, pb.CREATE, type=pb.BLOCK_DEVICE, **device)
    # A whiteout of overlayfs is one that everybody makes.
    world.call(pb.CREATE, parent=1, name=b"w", type=pb.CHAR_DEVICE, uid=7)
    world.call(pb.CREATE, parent=1, name=b"x", type=pb.FIFO, uid=7)


def test_setgid_directories_hand_down_their_group(world):
    directory = world.mkdir(b"d", mode=0o777)
    world.call(pb.SETATTR, inode=directory, set_gid=50)
    world.call(pb.SETATTR, inode=directory, mode=0o2777)
    inode = world.create(b"f", directory, mode=0o2775, uid=7, gid=7)
    attr = world.attr(inode)
    assert attr.gid == 50
    assert not attr.mode & stat.S_ISGID  # 7 is not in group 50
    inode = world.create(b"g", directory, mode=0o2775, uid=7, gid=7, groups=[50])
    assert world.attr(inode).mode & stat.S_ISGID


def test_types_that_have_calls_of_their_own(world):
    world.fails(errno.EINVAL, pb.CREATE, parent=1, name=b"d", type=pb.DIRECTORY)
    world.fails(errno.EINVAL, pb.CREATE, parent=1, name=b"l", type=pb.LINK_SYMBOLIC)
    world.fails(errno.EINVAL, pb.CREATE, parent=1, name=b"p", type=pb.FIFO, open=True)


def test_layout_comes_from_directory_and_request(world):
    attr = world.call(pb.CREATE, parent=1, name=b"default").attr
    layout = attr.layout
    assert (layout.chain_table, layout.chain_table_version) == (1, 1)
    assert (layout.chunk_size, layout.stripe, layout.seed) == (1 << 20, 4, attr.inode)
    directory = world.mkdir(b"d", layout=common_pb2.Layout(chunk_size=65536, stripe=2))
    inherited = world.call(pb.CREATE, parent=directory, name=b"f").attr.layout
    assert (inherited.chunk_size, inherited.stripe) == (65536, 2)
    nested = world.mkdir(b"n", directory)
    wish = common_pb2.Layout(chunk_size=1 << 26, stripe=100)
    own = world.call(pb.CREATE, parent=nested, name=b"f", layout=wish).attr.layout
    assert (own.chunk_size, own.stripe) == (1 << 26, 4)


@pytest.mark.parametrize("size", [1, 65535, 65536 + 512, 1 << 27])
def test_impossible_chunk_sizes(world, size):
    wish = common_pb2.Layout(chunk_size=size)
    world.fails(errno.EINVAL, pb.CREATE, parent=1, name=b"f", layout=wish)
    world.fails(errno.EINVAL, pb.MKDIR, parent=1, name=b"f", layout=wish)


def test_an_unknown_chain_table_is_refused(world):
    wish = common_pb2.Layout(chain_table=9)
    world.fails(errno.EINVAL, pb.CREATE, parent=1, name=b"f", layout=wish)


def test_new_files_use_the_newest_version_of_a_table(world):
    newer = routing(version=2)
    newer.tables.add(id=1, version=2, chains=[1, 2])
    world.store.env.layouts.set_routing(newer)
    world.store.env.layouts.set_routing(routing(version=1))  # older: ignored
    layout = world.call(pb.CREATE, parent=1, name=b"f").attr.layout
    assert (layout.chain_table_version, layout.stripe) == (2, 2)


def test_without_routing_a_file_has_to_wait(world):
    world.store.env.layouts = LayoutPolicy()
    with pytest.raises(RetryLater):
        world.create(b"f")


def test_inode_ids_are_never_used_again(world):
    seen = set()
    for round_number in range(3):
        for i in range(10):
            name = b"%d-%d" % (round_number, i)
            seen.add(world.create(name))
            world.unlink(name)
        world.collect()
        world.restart()
    assert len(seen) == 30


def test_a_removed_directory_takes_no_new_entries(world):
    directory = world.mkdir(b"d")
    world.call(pb.RMDIR, parent=1, name=b"d")
    world.fails(errno.ENOENT, pb.CREATE, parent=directory, name=b"f")
    world.fails(errno.ENOENT, pb.MKDIR, parent=directory, name=b"f")
    world.fails(errno.ENOENT, pb.SYMLINK, parent=directory, name=b"f", target=b"x")
