"""What the client makes of its arguments before it asks anybody."""

import os

import pytest

from fs3._proto import meta_pb2
from fs3.client import Identity
from fs3.client.attributes import type_of_mode
from fs3.client.modes import mode_of_flags
from fs3.client.moments import moments_of


def test_times_in_each_way() -> None:
    assert moments_of(None, None) == ("now", "now")
    assert moments_of((1.5, 2), None) == (1_500_000_000, 2_000_000_000)
    assert moments_of(None, (None, 7)) == (None, 7)
    with pytest.raises(ValueError, match="not both"):
        moments_of((1, 2), (1, 2))


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (os.O_RDONLY, "rb"),
        (os.O_RDONLY | os.O_CREAT, "rb"),
        (os.O_WRONLY | os.O_EXCL, "wb"),
        (os.O_RDWR, "rb+"),
        (os.O_RDWR | os.O_APPEND, "ab+"),
        (os.O_WRONLY | os.O_APPEND, "ab"),
    ],
)
def test_a_mode_for_flags(flags: int, name: str) -> None:
    mode = mode_of_flags(flags)
    assert (mode.name, mode.flags, mode.text) == (name, flags, False)


def test_the_type_in_a_mode() -> None:
    assert type_of_mode(0o644) == meta_pb2.FILE
    assert type_of_mode(0o010644) == meta_pb2.FIFO
    assert type_of_mode(0o160644) is None


def test_a_peer_with_its_groups() -> None:
    own = Identity.of_peer(os.getuid() or 1, 5, os.getpid())
    assert own.groups == tuple(os.getgroups()[:32])
    assert (own.gid, own.umask) == (5, 0)
    assert meta_pb2.Caller.FromString(own.caller()).pid == os.getpid()
    assert Identity.of_peer(0, 5, os.getpid()).groups == ()  # root needs none
    assert Identity.of_peer(7, 5, 0).groups == ()  # the kernel itself
    assert Identity.of_peer(7, 5, (1 << 22) + 1).groups == ()  # no such process
    assert meta_pb2.Caller.FromString(Identity(7, 5).caller()).pid == os.getpid()
