"""Clients that die with files open."""

import errno
import os

import pytest
from meta_world import CLIENT

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys


def sessions(world) -> int:
    txn = world.kv.begin()
    found = len(txn.get_range(keys.SESSION, keys.prefix_end(keys.SESSION)))
    txn.cancel()
    return found


def silence(world, seconds: float = 61) -> None:
    world.clock.advance(seconds)
    world.store.tick()


@pytest.fixture
def dead(world):
    """A client wrote 7,000 bytes that storage acknowledged, and was never heard of again."""
    world.f = world.create(b"f")
    world.session = world.open(world.f).session
    world.chunks.write(world.f, 7000)
    return world


def test_the_length_is_settled_and_the_session_ends(dead):
    silence(dead, 59)
    assert dead.jobs.waiting == []
    silence(dead, 2)
    dead.jobs.run()
    assert dead.attr(dead.f).size == 7000
    assert sessions(dead) == 0
    assert dead.store.env.clients.statistics().clients == 0


def test_a_client_that_is_heard_keeps_its_sessions(dead):
    silence(dead, 50)
    dead.call(pb.KEEPALIVE)
    silence(dead, 50)
    dead.jobs.run()
    assert sessions(dead) == 1
    dead.call(pb.CLOSE, inode=dead.f, session=dead.session, written_end=7000, wrote=True)


def test_a_client_that_comes_back_in_time_keeps_what_is_left(dead):
    silence(dead)
    dead.store.env.clients.seen(b"client-aaaaaaaaa")
    dead.jobs.run()
    assert sessions(dead) == 1
    dead.call(pb.CLOSE, inode=dead.f, session=dead.session, written_end=7000, wrote=True)


def counted(world, client: bytes = CLIENT) -> int:
    return world.store.env.clients.sessions_of(client)


def test_sessions_that_were_pruned_are_not_counted_any_more(dead, monkeypatch):
    """The client comes back after the first of its two sessions has ended."""
    dead.open(dead.f)
    assert counted(dead) == 2
    silence(dead)
    measure = dead.chunks.measure

    def come_back_in_the_second(inode, layout):
        if sessions(dead) == 1:
            dead.store.env.clients.seen(CLIENT)
        return measure(inode, layout)

    monkeypatch.setattr(dead.chunks, "measure", come_back_in_the_second)
    dead.jobs.run()
    assert counted(dead) == sessions(dead) == 0
    monkeypatch.setattr("fs3.limits.SESSIONS_PER_CLIENT_MAX", 1)
    held = dead.open(dead.f).session
    dead.fails(errno.EMFILE, pb.OPEN, inode=dead.f, flags=os.O_RDWR)
    dead.call(pb.CLOSE, inode=dead.f, session=held)


def test_an_end_of_a_session_is_no_sign_of_life(dead):
    dead.open(dead.f)
    silence(dead)
    dead.jobs.run()
    assert sessions(dead) == 0
    assert dead.store.env.clients.is_silent(CLIENT)


def test_after_a_restart_the_time_begins_anew(dead):
    silence(dead, 59)
    dead.restart()
    silence(dead, 59)
    assert dead.jobs.run() == 0
    silence(dead, 2)
    dead.jobs.run()
    assert sessions(dead) == 0
    assert dead.attr(dead.f).size == 7000


def test_storage_that_refuses_is_asked_again(dead):
    dead.chunks.fail_next = 2
    silence(dead)
    dead.jobs.run()
    assert dead.attr(dead.f).size == 7000
    assert sessions(dead) == 0


def test_a_truncate_that_comes_between_is_respected(dead):
    silence(dead)
    asked = []

    def truncate(name: str) -> None:
        dead.chunks.before = lambda name: None
        body = dead.request(pb.SETATTR, inode=dead.f, size=10, client=b"client-bbbbbbbbb")
        asked.append(dead.send(pb.SETATTR, body))

    dead.chunks.before = truncate
    dead.jobs.run()
    assert dead.answer(asked[0], pb.SETATTR).attr.size == 10
    assert dead.attr(dead.f).size == 10
    assert sessions(dead) == 0


def test_readers_are_forgotten_too(world):
    inode = world.write_file(b"f", 10)
    world.call(pb.KEEPALIVE, open_inodes=[inode])
    world.unlink(b"f")
    assert world.collect() == 0
    silence(world)
    world.jobs.run()
    assert world.collect() == 1


def test_many_sessions_take_several_steps(world, monkeypatch):
    monkeypatch.setattr("fs3.meta.prune.SESSIONS_PER_STEP", 3)
    inode = world.create(b"f")
    for _ in range(10):
        world.open(inode)
    silence(world)
    assert world.jobs.run() >= 4
    assert sessions(world) == 0
