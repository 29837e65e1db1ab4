"""OPEN: permissions by flags, sessions, capabilities."""

import errno
import os

import pytest

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys

READ, WRITE, TRUNCATE = 1, 2, 4


@pytest.mark.parametrize(
    ("mode", "flags", "allowed"),
    [
        (0o4, os.O_RDONLY, True),
        (0o4, os.O_WRONLY, False),
        (0o4, os.O_RDWR, False),
        (0o4, os.O_RDONLY | os.O_TRUNC, False),
        (0o2, os.O_RDONLY, False),
        (0o2, os.O_WRONLY, True),
        (0o2, os.O_WRONLY | os.O_TRUNC, True),
        (0o6, os.O_RDWR, True),
        (0o1, 0x20, True),  # execve
        (0o6, 0x20, False),
        (0o6, os.O_RDONLY | os.O_NOATIME, False),
    ],
)
def test_flags_need_permissions(world, mode, flags, allowed):
    inode = world.create(b"f", mode=mode)
    if not allowed:
        number = errno.EPERM if flags & os.O_NOATIME else errno.EACCES
        world.fails(number, pb.OPEN, inode=inode, flags=flags, uid=7)
        return
    reply = world.open(inode, flags, uid=7)
    assert bool(reply.session) == (flags & os.O_ACCMODE != os.O_RDONLY)
    if reply.session:
        world.call(pb.CLOSE, inode=inode, session=reply.session)


@pytest.mark.parametrize(
    ("mode", "flags", "rights"),
    [
        (0o666, os.O_RDONLY, READ),
        (0o666, os.O_RDWR, READ | WRITE | TRUNCATE),
        (0o666, os.O_WRONLY, READ | WRITE | TRUNCATE),
        (0o222, os.O_WRONLY, WRITE | TRUNCATE),
    ],
)
def test_rights_of_the_capability(world, mode, flags, rights):
    inode = world.create(b"f", mode=mode)
    reply = world.open(inode, flags, uid=7)
    assert reply.capability[1] == rights
    if reply.session:
        world.call(pb.CLOSE, inode=inode, session=reply.session)


def test_only_writers_leave_a_session(world):
    inode = world.create(b"f")
    world.open(inode, os.O_RDONLY)
    count = len(world.kv.begin().get_range(*keys.sessions(inode)))
    assert count == 0
    sessions = [world.open(inode).session for _ in range(2)]
    assert len(world.kv.begin().get_range(*keys.sessions(inode))) == 2
    for session in sessions:
        world.call(pb.CLOSE, inode=inode, session=session)
    assert world.kv.begin().get_range(keys.SESSION, b"SEST") == []
    assert world.kv.begin().get_range(keys.CLIENT_SESSION, b"SCLJ") == []


def test_what_is_no_file(world):
    directory = world.mkdir(b"d")
    assert world.open(directory, os.O_RDONLY).capability == b""
    world.fails(errno.EISDIR, pb.OPEN, inode=directory, flags=os.O_RDWR)
    world.fails(errno.EISDIR, pb.OPEN, inode=directory, flags=os.O_TRUNC)
    file = world.create(b"f")
    world.fails(errno.ENOTDIR, pb.OPEN, inode=file, flags=os.O_DIRECTORY)
    link = world.call(pb.SYMLINK, parent=1, name=b"l", target=b"x").entry.attr.inode
    world.fails(errno.ELOOP, pb.OPEN, inode=link, flags=os.O_RDONLY)
    pipe = world.call(pb.CREATE, parent=1, name=b"p", type=pb.FIFO).attr.inode
    world.fails(errno.ENXIO, pb.OPEN, inode=pipe, flags=os.O_RDONLY)
    world.fails(errno.ENOENT, pb.OPEN, inode=99, flags=os.O_RDONLY)


def test_a_client_with_too_many_sessions(world, monkeypatch):
    monkeypatch.setattr("fs3.limits.SESSIONS_PER_CLIENT_MAX", 2)
    inode = world.create(b"f")
    held = [world.open(inode).session for _ in range(2)]
    world.fails(errno.EMFILE, pb.OPEN, inode=inode, flags=os.O_RDWR)
    world.open(inode, os.O_RDONLY)
    other = world.open(inode, client=b"client-bbbbbbbbb").session
    world.call(pb.CLOSE, inode=inode, session=held.pop())
    held.append(world.open(inode).session)
    world.restart()
    world.fails(errno.EMFILE, pb.OPEN, inode=inode, flags=os.O_RDWR)
    for session in held:
        world.call(pb.CLOSE, inode=inode, session=session)
    world.call(pb.CLOSE, inode=inode, session=other, client=b"client-bbbbbbbbb")
