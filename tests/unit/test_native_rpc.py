"""fs3._native.RpcServer and RpcClient: what the metadata service and the tools rely on."""

import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs3 import _native
from fs3.auth.identity import Principal, Role
from fs3.errors import BadRequest, Fs3Error, Status

CLUSTER = b"c" * 16
Request = tuple[int, int, Principal, bytes, bytes]
Answer = tuple[int, int, str, str, bytes]


def make_server(**options: Any) -> Any:
    named = {"name": "test", "cluster_id": CLUSTER, "instance_id": b"s" * 16, "role": Role.META}
    return _native.RpcServer(**(named | {"node_id": 5} | options))


def make_client(address: str, **options: Any) -> Any:
    return _native.RpcClient(
        address, **({"instance_id": b"i" * 16, "cluster_id": CLUSTER} | options)
    )


@pytest.fixture
def server() -> Iterator[Any]:
    server = make_server()
    yield server
    server.stop()


@pytest.fixture
def serve(server: Any) -> Iterator[Callable[[Callable[[Request], Answer]], None]]:
    """Answers every request by a function, on another thread."""
    threads: list[threading.Thread] = []

    def start(answer: Callable[[Request], Answer]) -> None:
        def loop() -> None:
            while batch := server.next_batch(100, 60.0):
                server.reply_batch([answer(request) for request in batch])

        threads.append(threading.Thread(target=loop))
        threads[-1].start()

    yield start
    server.stop()
    for thread in threads:
        thread.join()


def echo(request: Request) -> Answer:
    handle, _, _, capability, body = request
    return handle, Status.OK, "", "", capability + body


def test_round_trip_over_both_transports(
    server: Any, serve: Callable[..., None], tmp_path: pathlib.Path
) -> None:
    serve(echo)
    socket = f"unix://{tmp_path}/rpc"
    assert server.listen(socket) == socket
    for address in (server.listen("tcp://127.0.0.1:0"), socket):
        client = make_client(address)
        assert client.call(1, b"body") == (Status.OK, "", "", b"body", b"")
        assert client.call(1, b"body", capability=b"k" * 80)[3] == b"k" * 80 + b"body"
        large = bytes(4 << 20)
        assert client.call(1, large)[3] == large
        assert client.healthy()


def test_requests_say_who_asks(server: Any, tmp_path: pathlib.Path) -> None:
    import os

    client = make_client(server.listen(f"unix://{tmp_path}/rpc"), role=Role.STORAGE, node_id=7)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.call, 0x0101, b"x", b"", b"payload", 10)
        [(handle, method, principal, capability, body)] = server.next_batch(10, 60.0)
        assert method == 0x0101
        assert (capability, body) == (b"", b"x")
        assert isinstance(principal, Principal)
        assert principal == Principal(Role.STORAGE, True, os.getuid(), 7, b"i" * 16, "unix")
        server.reply_batch([(handle, Status.OK, "", "", b"done")])
        assert pending.result() == (Status.OK, "", "", b"done", b"")


def test_errors_travel(server: Any, serve: Callable[..., None]) -> None:
    serve(lambda request: (request[0], 2, "meta/lookup", "no entry 'ä' in inode 1", b""))
    client = make_client(server.listen("tcp://127.0.0.1:0"))
    assert client.call(1, b"") == (2, "meta/lookup", "no entry 'ä' in inode 1", b"", b"")


def test_many_threads(server: Any, serve: Callable[..., None]) -> None:
    serve(echo)
    client = make_client(server.listen("tcp://127.0.0.1:0"))
    with ThreadPoolExecutor(8) as pool:
        bodies = [str(number).encode() for number in range(2000)]
        assert [reply[3] for reply in pool.map(lambda body: client.call(1, body), bodies)] == bodies
    counts = server.statistics()
    assert counts["requests"] == 2000
    assert counts["waiting"] == counts["handed_out"] == 0


def test_a_full_queue_is_busy() -> None:
    server = make_server(queue_max=1)
    client = make_client(server.listen("tcp://127.0.0.1:0"))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.call, 1, b"first")
        while server.statistics()["waiting"] == 0:
            pass
        assert client.call(1, b"second")[0] == Status.BUSY
        [(handle, *_)] = server.next_batch(10, 60.0)
        server.reply_batch([(handle, Status.OK, "", "", b"")])
        assert first.result()[0] == Status.OK
    server.stop()


def test_a_handle_is_answered_once(server: Any) -> None:
    with pytest.raises(Fs3Error, match="handle 77 is not open"):
        server.reply_batch([(77, Status.OK, "", "", b"")])


def test_stop_wakes_and_answers(server: Any) -> None:
    client = make_client(server.listen("tcp://127.0.0.1:0"))
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.call, 1, b"")
        assert len(server.next_batch(1, 60.0)) == 1
        taker = pool.submit(server.next_batch, 1, 60.0)
        server.stop()
        assert taker.result() == []
        assert waiting.result()[0] == Status.SHUTTING_DOWN
    with pytest.raises(Fs3Error, match="stopped"):
        server.listen("tcp://127.0.0.1:0")


def test_time_out_is_a_status(server: Any) -> None:
    client = make_client(server.listen("tcp://127.0.0.1:0"))
    assert client.call(1, b"", timeout_s=0.01)[0] == Status.TIMED_OUT


def test_nobody_listens(server: Any) -> None:
    address = server.listen("tcp://127.0.0.1:0")
    server.stop()
    client = make_client(address)
    status, where, detail, _, _ = client.call(1, b"")
    assert status == Status.CONNECTION_LOST
    assert where == "net/channel"
    assert address in detail


def test_another_cluster(server: Any) -> None:
    client = make_client(server.listen("tcp://127.0.0.1:0"), cluster_id=b"d" * 16)
    assert client.call(1, b"")[0] == Status.WRONG_CLUSTER


def test_bad_arguments() -> None:
    with pytest.raises(OSError, match="use tcp://host:port"):
        make_client("127.0.0.1:80")
    with pytest.raises(OSError, match="instance_id must have 16 bytes"):
        make_server(instance_id=b"")
    with pytest.raises(OSError, match="role must be"):
        make_server(role=9)
    with pytest.raises(BadRequest, match="sink_len"):
        make_client("tcp://127.0.0.1:1").call(1, b"", sink_len=1 << 30)
