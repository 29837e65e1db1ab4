"""APPEND: places at the end of a file, given out once."""

import errno
import os

from meta_world import CLIENT, OTHER_CLIENT

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys

APPEND = os.O_WRONLY | os.O_APPEND


def reserve(world, inode, length, *, client=CLIENT, **fields):
    reply = world.call(pb.APPEND, inode=inode, length=length, client=client, **fields)
    return reply.offset


def reserved(world, inode):
    (row,) = world.store.transact([lambda txn: txn.get(keys.appends(inode))])
    return row is not None


def test_places_follow_one_another_and_the_length_does_not_move(world):
    inode = world.write_file(b"f", 100)
    mine = world.open(inode, APPEND).session
    others = world.open(inode, APPEND, client=OTHER_CLIENT).session
    assert reserve(world, inode, 10, session=mine) == 100
    assert reserve(world, inode, 7, session=others, client=OTHER_CLIENT) == 110
    assert reserve(world, inode, 1, session=mine) == 117
    assert world.attr(inode).size == 100


def test_the_same_request_gets_the_same_place(world):
    inode = world.create(b"f")
    session = world.open(inode, APPEND).session
    body = world.request(pb.APPEND, inode=inode, session=session, length=5)
    first = world.answer(world.send(pb.APPEND, body), pb.APPEND).offset
    assert world.answer(world.send(pb.APPEND, body), pb.APPEND).offset == first == 0
    assert reserve(world, inode, 5, session=session) == 5


def test_own_bytes_that_are_not_settled_lie_in_front(world):
    inode = world.create(b"f")
    session = world.open(inode, APPEND).session
    assert reserve(world, inode, 5, session=session, at_least=5000) == 5000


def test_a_truncate_ends_all_promises(world):
    inode = world.write_file(b"f", 100)
    session = world.open(inode, APPEND).session
    assert reserve(world, inode, 50, session=session) == 100
    world.call(pb.SETATTR, inode=inode, size=10, client=OTHER_CLIENT)
    # What the client had written before may be cut: only the service knows where the end is.
    assert reserve(world, inode, 5, session=session, at_least=150) == 10


def test_the_row_goes_with_the_last_writer_when_all_is_settled(world):
    inode = world.create(b"f")
    session = world.open(inode, APPEND).session
    reserve(world, inode, 5, session=session)
    world.chunks.write(inode, 5)
    world.call(pb.CLOSE, inode=inode, session=session, written_end=5, wrote=True)
    assert not reserved(world, inode)
    assert world.attr(inode).size == 5


def test_what_a_lost_client_was_promised_stays_its_own(world):
    inode = world.create(b"f")
    lost = world.open(inode, APPEND).session
    reserve(world, inode, 5, session=lost)
    world.call(pb.CLOSE, inode=inode, session=lost)  # as pruning ends it: nothing was written
    assert reserved(world, inode)
    other = world.open(inode, APPEND, client=OTHER_CLIENT).session
    assert reserve(world, inode, 5, session=other, client=OTHER_CLIENT) == 5
    world.unlink(b"f")
    world.call(pb.CLOSE, inode=inode, session=other, client=OTHER_CLIENT)
    world.collect()
    assert not reserved(world, inode)


def test_what_cannot_be_reserved(world):
    inode = world.create(b"f", mode=0o644)
    directory = world.mkdir(b"d")
    world.fails(errno.EINVAL, pb.APPEND, inode=inode, length=0)
    world.fails(errno.EFBIG, pb.APPEND, inode=inode, length=(1 << 62) + 1)
    world.fails(errno.EINVAL, pb.APPEND, inode=directory, length=1)
    world.fails(errno.EACCES, pb.APPEND, inode=inode, length=1, uid=7)
    world.fails(errno.ENOENT, pb.APPEND, inode=999, length=1)


def test_a_client_whose_session_was_ended_may_go_on(world):
    inode = world.create(b"f", mode=0o666)
    assert reserve(world, inode, 5, session=b"g" * 16, uid=7) == 0
