"""The Python mount's operations over a client that only notes what it is asked."""

import errno
import logging
import os
import types
from typing import Any

import pytest

from fs3.client import Identity
from fs3.mount.operations import Operations


class FakeFile:
    def __init__(self, client: "FakeClient", writable: bool) -> None:
        self._client = client
        self._writable = writable
        self.closed = False

    def writable(self) -> bool:
        return self._writable

    def stat(self) -> os.stat_result:
        return os.stat_result((0o100644, 5, 0, self._client.links, 0, 0, 7, 0, 0, 0))

    def fsync(self, *, durable: bool = True) -> None:
        self._client.note("fsync", durable)

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """Stands for the client and for what acting_as gives."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.links = 1

    def acting_as(self, identity: Identity) -> "FakeClient":
        self.note("as", identity.uid, identity.gid, identity.umask)
        return self

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.failure is not None and call[0] != "as":
            raise self.failure

    def open_flags(self, path: bytes, flags: int, permissions: int = 0o666) -> FakeFile:
        self.note("open", path, flags, permissions)
        return FakeFile(self, flags & os.O_ACCMODE != os.O_RDONLY)

    def mkdir(self, path: bytes, mode: int) -> None:
        self.note("mkdir", path, mode)

    def readlink(self, path: bytes) -> str:
        self.note("readlink", path)
        return os.fsdecode(b"\xff target")


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def operations(client: FakeClient) -> Operations:
    return Operations(client, lambda: (0, 7, 0), on_mounted=lambda: None)  # type: ignore[arg-type]


def info(flags: int) -> Any:
    return types.SimpleNamespace(flags=flags, fh=0, direct_io=0)


def test_names_are_bytes_and_the_asker_is_told(operations: Operations, client: FakeClient) -> None:
    operations("mkdir", b"/\xff d".decode("latin-1"), 0o750)
    assert client.calls == [("as", 0, 7, 0), ("mkdir", b"/\xff d", 0o750)]
    assert operations("readlink", "/l") == b"\xff target".decode("latin-1")


def test_errors_of_the_client_keep_their_number(operations: Operations, client: FakeClient) -> None:
    client.failure = PermissionError(errno.EACCES, "no")
    with pytest.raises(OSError) as failed:
        operations("mkdir", "/d", 0o755)
    assert failed.value.errno == errno.EACCES


@pytest.mark.parametrize("failure", [RuntimeError("bug"), OSError("without a number")])
def test_anything_else_is_logged_and_eio(
    operations: Operations, client: FakeClient, failure: Exception, caplog: Any
) -> None:
    client.failure = failure
    with caplog.at_level(logging.ERROR), pytest.raises(OSError) as failed:
        operations("mkdir", "/d", 0o755)
    assert failed.value.errno == errno.EIO
    assert "mkdir failed" in caplog.text
    assert str(failure) in caplog.text


def test_close_tells_what_could_not_be_written(operations: Operations, client: FakeClient) -> None:
    opened = info(os.O_WRONLY)
    operations("open", "/f", opened)
    client.failure = OSError(errno.ENOSPC, "full")
    for operation, arguments in (("flush", (None, opened)), ("fsync", (None, 0, opened))):
        with pytest.raises(OSError) as failed:
            operations(operation, *arguments)
        assert failed.value.errno == errno.ENOSPC
    assert client.calls[-2:] == [("fsync", False), ("fsync", True)]


def test_a_reader_has_nothing_to_flush(operations: Operations, client: FakeClient) -> None:
    opened = info(os.O_RDONLY)
    operations("open", "/f", opened)
    client.calls.clear()
    operations("flush", None, opened)
    assert client.calls == []


def test_released_handles_are_gone(operations: Operations) -> None:
    first, second = info(os.O_RDONLY), info(os.O_RDONLY)
    operations("open", "/f", first)
    operations("create", "/g", 0o644, second)
    assert first.fh != second.fh
    assert operations.open_files() == 2
    operations("release", None, first)
    with pytest.raises(OSError) as failed:
        operations("read", None, 1, 0, first)
    assert failed.value.errno == errno.EBADF
    assert operations.open_files() == 1


@pytest.mark.parametrize(
    ("flags", "links", "direct"),
    [
        (os.O_RDWR, 1, False),
        (os.O_RDWR | os.O_APPEND, 1, True),
        (os.O_RDONLY | os.O_DIRECT, 1, True),
        (os.O_RDONLY, 2, True),
    ],
)
def test_pages_are_cached_only_where_they_can_be_right(
    operations: Operations, client: FakeClient, flags: int, links: int, direct: bool
) -> None:
    client.links = links
    opened = info(flags)
    operations("open", "/f", opened)
    assert opened.direct_io == direct


def test_a_link_in_the_last_place_is_not_followed(
    operations: Operations, client: FakeClient
) -> None:
    operations("create", "/f", 0o600, info(os.O_RDWR))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    assert client.calls[-1] == ("open", b"/f", flags, 0o600)
