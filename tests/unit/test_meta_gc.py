"""The gc worker: who holds a file back, bounded steps, a crash at every call it makes."""

import contextlib
import os

import pytest

from fs3 import limits
from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.meta import inode as inodes
from fs3.meta import tombstone
from fs3.meta.fsck import fsck
from fs3.meta.gc import SWEEP_S_DEFAULT

SMALL_CHUNKS = common_pb2.Layout(chunk_size=65536)


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing may handle it."""


def test_nothing_is_removed_before_the_delay(world):
    world.write_file(b"f", 100)
    world.unlink(b"f")
    assert world.gc.step() == 0
    world.clock.advance(9)
    assert world.gc.step() == 0
    world.clock.advance(2)
    assert world.gc.step() == 1
    assert world.gc.step() == 0


def test_the_delay_begins_anew_with_the_service(world):
    world.write_file(b"f", 100)
    world.unlink(b"f")
    world.gc.step()
    world.clock.advance(9)
    world.restart()
    world.gc.step()
    world.clock.advance(9)
    assert world.gc.step() == 0
    world.clock.advance(2)
    assert world.gc.run_until_idle() == 1


def test_a_jump_of_the_wall_clock_hurries_nothing(world):
    """The second file lies before the first in the queue, and waits longer all the same."""
    first = world.write_file(b"f", 100)
    second = world.write_file(b"g", 100)
    world.unlink(b"f")
    world.gc.step()
    world.clock.advance(9)
    wall_ns = world.clock.wall_ns()
    world.clock.wall_ns = lambda: wall_ns - 3600 * 10**9
    world.unlink(b"g")
    begin, end = keys.GARBAGE, keys.prefix_end(keys.GARBAGE)
    queue = [keys.garbage_fields(key)[1] for key, _ in world.kv.begin().get_range(begin, end)]
    assert queue == [second, first]
    world.clock.advance(2)
    assert world.gc.run_until_idle() == 1
    assert list(world.chunks.lengths) == [second]
    world.clock.advance(9)
    assert world.gc.run_until_idle() == 0
    world.clock.advance(2)
    assert world.gc.run_until_idle() == 1


def test_sessions_and_readers_hold_files_back(world):
    written = world.write_file(b"w", 100)
    read = world.write_file(b"r", 100)
    session = world.open(written).session
    world.open(read, os.O_RDONLY)
    world.call(pb.KEEPALIVE, open_inodes=[read])
    world.unlink(b"w")
    world.unlink(b"r")
    assert world.collect() == 0
    assert world.attr(read).size == 100
    world.call(pb.KEEPALIVE, open_inodes=[])
    assert world.collect() == 1
    world.call(pb.CLOSE, inode=written, session=session)
    assert world.collect() == 1
    assert world.chunks.lengths == {}


def test_held_files_do_not_stop_those_behind_them(world, monkeypatch):
    monkeypatch.setattr("fs3.meta.gc.PAGE", 4)
    held = [world.write_file(b"h%d" % i, 10) for i in range(6)]
    world.call(pb.KEEPALIVE, open_inodes=held)
    for i in range(6):
        world.unlink(b"h%d" % i)
    for i in range(6):
        world.write_file(b"f%d" % i, 10)
        world.unlink(b"f%d" % i)
    world.gc.step()
    world.clock.advance(11)
    removed = sum(world.gc.step() for _ in range(6))
    assert removed == 6
    assert sorted(world.chunks.lengths) == held
    world.call(pb.KEEPALIVE, open_inodes=[])


def test_what_has_no_chunks_needs_no_storage(world):
    world.create(b"empty")
    world.mkdir(b"d")
    world.call(pb.SYMLINK, parent=1, name=b"l", target=b"x")
    world.unlink(b"empty")
    world.unlink(b"l")
    world.call(pb.RMDIR, parent=1, name=b"d")
    assert world.collect() == 3
    assert world.chunks.calls == []


def test_a_removal_that_has_begun_cannot_be_opened_any_more(world):
    inode = world.write_file(b"f", 100)
    world.unlink(b"f")
    refused = []

    def open_it(_call: str) -> None:
        token = world.send(pb.OPEN, world.request(pb.OPEN, inode=inode, flags=os.O_RDWR))
        refused.append(world.delivered.pop(token).status)

    world.chunks.before = open_it
    assert world.collect() == 1
    assert set(refused) == {2}  # ENOENT


def test_bytes_that_nobody_settled_go_as_well(world):
    inode = world.write_file(b"f", 100)
    world.chunks.write(inode, 9_000_000)
    world.unlink(b"f")
    assert world.collect() == 1
    assert world.chunks.lengths == {}


def test_what_is_written_after_the_removal_is_swept_when_capabilities_have_ended(world):
    inode = world.write_file(b"f", 100)
    world.unlink(b"f")
    assert world.collect() == 1
    world.chunks.write(inode, 3_000_000)
    world.clock.advance(limits.CAPABILITY_LIFETIME_S)
    world.gc.step()
    assert world.chunks.lengths == {inode: 3_000_000}, "more of it may come"
    assert sweep(world) == 1
    assert world.chunks.lengths == {}
    assert tombstones(world) == []


def test_a_file_that_was_opened_for_write_and_says_nothing_is_swept(world):
    inode = world.create(b"f")
    session = world.open(inode).session
    world.call(pb.CLOSE, inode=inode, session=session)
    world.unlink(b"f")
    assert world.collect() == 1
    assert world.chunks.calls == []
    world.chunks.write(inode, 10)
    assert sweep(world) == 1
    assert world.chunks.lengths == {}


def test_what_nobody_could_write_to_leaves_no_tombstone(world):
    inode = world.create(b"f")
    world.open(inode, os.O_RDONLY)
    world.mkdir(b"d")
    world.unlink(b"f")
    world.call(pb.RMDIR, parent=1, name=b"d")
    assert world.collect() == 2
    assert tombstones(world) == []


def test_the_wait_of_a_tombstone_begins_anew_with_the_service(world):
    inode = world.write_file(b"f", 100)
    world.unlink(b"f")
    world.collect()
    world.clock.advance(600)
    world.restart()
    world.gc.step()
    world.clock.advance(600)
    world.gc.step()
    assert len(tombstones(world)) == 1
    world.chunks.write(inode, 1)
    assert sweep(world) == 1
    assert tombstones(world) == []


def test_a_sweep_that_storage_refuses_is_repeated_and_stops_nobody(world, monkeypatch):
    monkeypatch.setattr("fs3.meta.gc.ROWS_PER_STEP", 2)
    gone = [world.write_file(b"f%d" % i, 10) for i in range(4)]
    for i in range(4):
        world.unlink(b"f%d" % i)
    for _ in range(4):
        world.collect()
    for inode in gone:
        world.chunks.write(inode, 10)
    world.gc.step()
    world.clock.advance(SWEEP_S_DEFAULT + 1)
    world.chunks.fail_next = 2
    world.gc.step()
    assert len(world.chunks.lengths) == 4
    for _ in range(3):
        world.gc.step()
    assert world.chunks.lengths == {}
    assert tombstones(world) == []


def test_a_tombstone_of_a_file_that_is_there_takes_nothing(world, caplog):
    inode = world.write_file(b"f", 100)
    world.store.transact([lambda txn: tombstone.put(txn, inodes.find(txn, inode))])
    assert sweep(world) == 0
    assert world.chunks.lengths == {inode: 100}
    assert "has a tombstone and is there" in caplog.text
    world.store.transact([lambda txn: txn.clear(keys.tombstone(1, inode))])


def sweep(world) -> int:
    world.gc.step()
    world.clock.advance(SWEEP_S_DEFAULT + 1)
    world.gc.step()
    return world.gc.statistics().swept


def tombstones(world) -> list[bytes]:
    begin, end = keys.TOMBSTONE, keys.prefix_end(keys.TOMBSTONE)
    return [key for key, _ in world.kv.begin().get_range(begin, end)]


def test_large_files_go_in_bounded_steps(world):
    inode = world.create(b"f", layout=SMALL_CHUNKS)
    step_bytes = limits.GC_CHUNKS_PER_STEP * 65536
    session = world.open(inode).session
    world.chunks.write(inode, 3 * step_bytes + 5)
    world.call(pb.CLOSE, inode=inode, session=session, written_end=3 * step_bytes + 5, wrote=True)
    world.unlink(b"f")
    assert world.collect() == 1
    cuts = [call[2] - call[3] for call in world.chunks.calls if call[0] == "truncate"]
    assert cuts == [step_bytes] * 3
    assert world.chunks.lengths == {}


def test_storage_that_refuses_is_asked_again(world):
    inode = world.write_file(b"f", 100)
    world.unlink(b"f")
    world.gc.step()
    world.clock.advance(11)
    world.chunks.fail_next = 2
    assert [world.gc.step() for _ in range(3)] == [0, 0, 1]
    assert inode not in world.chunks.lengths
    assert world.gc.statistics().failed == 2


@pytest.mark.parametrize("kill_at", range(9))
@pytest.mark.parametrize("place", ["storage before", "kv before", "kv after"])
def test_nothing_leaks_when_it_is_killed_anywhere(world, place, kill_at):
    """Three files, one of them large; the process dies at the n-th call of that place."""
    step_bytes = limits.GC_CHUNKS_PER_STEP * 65536
    for name, size in ((b"a", 10), (b"b", 2 * step_bytes + 1), (b"c", 10)):
        inode = world.create(name, layout=SMALL_CHUNKS)
        session = world.open(inode).session
        world.chunks.write(inode, size)
        world.call(pb.CLOSE, inode=inode, session=session, written_end=size, wrote=True)
        world.unlink(name)
    world.gc.step()
    world.clock.advance(11)
    left = [kill_at]

    def maybe_kill(*_: object) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1

    transact = world.store.transact

    def counted(operations):
        if place == "kv before":
            maybe_kill()
        results = transact(operations)
        if place == "kv after":
            maybe_kill()
        return results

    if place == "storage before":
        world.chunks.before = maybe_kill
    else:
        world.store.transact = counted
    with contextlib.suppress(Killed):
        world.gc.run_until_idle()
    world.chunks.before = lambda name: None
    world.restart()
    assert fsck(world.kv) == []
    world.collect()
    assert world.chunks.lengths == {}
    begin, end = keys.GARBAGE, keys.prefix_end(keys.GARBAGE)
    assert world.kv.begin().get_range(begin, end) == []
    inodes = world.kv.begin().get_range(keys.INODE, keys.prefix_end(keys.INODE))
    assert len(inodes) == 1  # the root
