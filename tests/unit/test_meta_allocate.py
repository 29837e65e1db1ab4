"""ALLOCATE, and how much of a file is stored (Attr.blocks)."""

import errno
import os

from meta_world import OTHER_CLIENT

from fs3._proto import meta_pb2 as pb

TIB = 1 << 40


def blocks(world, inode):
    return world.attr(inode).blocks


def test_the_file_gets_longer_and_never_shorter(world):
    inode = world.write_file(b"f", 1000)
    assert world.call(pb.ALLOCATE, inode=inode, offset=900, length=500).attr.size == 1400
    before = world.attr(inode)
    attr = world.call(pb.ALLOCATE, inode=inode, offset=0, length=10).attr
    assert (attr.size, attr.mtime_ns) == (1400, before.mtime_ns)
    attr = world.call(pb.ALLOCATE, inode=inode, offset=1400, length=100, keep_size=True).attr
    assert attr.size == 1400


def test_other_writers_need_not_measure(world):
    inode = world.create(b"f")
    session = world.open(inode, client=OTHER_CLIENT).session
    world.call(pb.ALLOCATE, inode=inode, offset=0, length=500)
    world.chunks.write(inode, 600)
    world.chunks.calls.clear()
    fields = {"inode": inode, "session": session, "written_end": 600, "wrote": True}
    assert world.call(pb.CLOSE, client=OTHER_CLIENT, **fields).attr.size == 600
    assert ("truncate", inode, 500, 600) not in world.chunks.calls


def test_no_room(world):
    # The world has 1500 bytes free, three copies of everything: 500.
    inode = world.create(b"f")
    world.fails(errno.ENOSPC, pb.ALLOCATE, inode=inode, offset=0, length=501)
    assert world.attr(inode).size == 0
    assert world.call(pb.ALLOCATE, inode=inode, offset=0, length=500).attr.size == 500
    full = world.write_file(b"g", 1000)
    # What is there already needs no room.
    assert world.call(pb.ALLOCATE, inode=full, offset=0, length=1500).attr.size == 1500


def test_what_cannot_be_allocated(world):
    inode = world.create(b"f", mode=0o644)
    world.fails(errno.EINVAL, pb.ALLOCATE, inode=inode, offset=0, length=0)
    world.fails(errno.EFBIG, pb.ALLOCATE, inode=inode, offset=1 << 62, length=1)
    world.fails(errno.EACCES, pb.ALLOCATE, inode=inode, offset=0, length=1, uid=7)
    world.fails(errno.EINVAL, pb.ALLOCATE, inode=world.mkdir(b"d"), offset=0, length=1)


def test_a_writer_may_allocate_whatever_the_mode_is_now(world):
    inode = world.create(b"f", mode=0o666)
    session = world.open(inode, os.O_WRONLY, uid=7).session
    world.call(pb.SETATTR, inode=inode, mode=0)
    attr = world.call(pb.ALLOCATE, inode=inode, session=session, offset=0, length=5, uid=7).attr
    assert attr.size == 5


def test_holes_count_for_nothing(world):
    inode = world.create(b"f")
    world.call(pb.SETATTR, inode=inode, size=TIB)
    assert blocks(world, inode) == 0
    world.call(pb.SETATTR, inode=inode, size=0)
    full = world.write_file(b"g", 1024)
    world.call(pb.SETATTR, inode=full, size=TIB)
    assert (world.attr(full).size, blocks(world, full)) == (TIB, 2)
    world.chunks.holes[full] = 512
    world.call(pb.SETATTR, inode=full, size=1024)
    assert blocks(world, full) == 1  # asked, because it had holes
    world.call(pb.SETATTR, inode=full, size=0)
    assert blocks(world, full) == 0


def test_a_client_that_left_holes_says_so(world):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.chunks.write(inode, 4096)
    world.chunks.holes[inode] = 3072
    fields = {"inode": inode, "session": session, "wrote": True}
    world.call(pb.SYNC, written_end=4096, measure=True, **fields)
    assert blocks(world, inode) == 2
    # From then on every settlement asks, until there are no holes any more.
    world.chunks.holes[inode] = 0
    world.call(pb.SYNC, written_end=100, **fields)
    assert blocks(world, inode) == 8
    world.chunks.calls.clear()
    world.call(pb.CLOSE, written_end=100, **fields)
    assert world.chunks.calls == []


def test_a_dense_file_costs_storage_no_question(world):
    world.write_file(b"f", 5000)
    assert world.chunks.calls == []


def test_who_comes_while_storage_is_asked_gets_a_later_answer(world):
    """The answer under way may be older than what the second caller wrote before it asked."""
    inode = world.create(b"f")
    first, second = world.open(inode).session, world.open(inode).session
    world.chunks.write(inode, 1024)
    fields = {"inode": inode, "wrote": True, "measure": True, "written_end": 1024}
    tokens = [world.send(pb.SYNC, world.request(pb.SYNC, session=first, **fields))]

    def meanwhile(name):
        world.chunks.before = lambda name: None
        world.chunks.holes[inode] = 512
        tokens.append(world.send(pb.SYNC, world.request(pb.SYNC, session=second, **fields)))

    world.chunks.before = meanwhile
    world.jobs.run()
    assert world.answer(tokens[1], pb.SYNC).attr.blocks == 1
    assert world.chunks.calls == [("query", inode), ("query", inode)]
