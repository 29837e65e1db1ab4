"""What a keeper holds of the rings of programs, and gives to the next server."""

import json
import os
import pathlib
import socket

from fs3.mount.keeper import Keeper, KeptRing, read_rings, write_rings
from fs3.runtime.clock import RealClock


def test_rings_are_written_and_read() -> None:
    first, second = os.pipe()
    rings = [
        KeptRing("uuid.ring", b"/dev/shm/\xff", 1000, 42, 7, [first, second, second]),
        KeptRing("uuid", b"/dev/shm/x", 0, 0, 8, [first]),
    ]
    assert read_rings(write_rings(rings)) == rings
    assert not os.get_inheritable(first)
    for descriptor in (first, second):
        os.close(descriptor)


def test_what_the_server_says_of_rings(tmp_path: pathlib.Path) -> None:
    keeper = Keeper(tmp_path, ["program"], [], RealClock())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper._socket = ours
    reader, writer = os.pipe()

    def say(message: dict[str, object], *descriptors: int) -> None:
        socket.send_fds(theirs, [json.dumps(message).encode()], descriptors)
        keeper._on_message()

    name = {"target": b"/dev/shm/x".hex(), "uid": 1, "pid": 2, "number": 3}
    say({"keep": "a", **name}, writer)
    say({"keep": "b", **name}, writer)
    os.close(writer)
    assert [ring[:5] for ring in keeper._rings.values()] == [
        ("a", b"/dev/shm/x", 1, 2, 3),
        ("b", b"/dev/shm/x", 1, 2, 3),
    ]
    # The pipe has an end when nobody holds the other one.
    say({"drop": "a"})
    say({"drop": "unknown"})
    os.set_blocking(reader, False)
    assert list(keeper._rings) == ["b"]
    say({"drop": "b"})
    assert os.read(reader, 1) == b""
    for each in (ours, theirs):
        each.close()
    os.close(reader)
