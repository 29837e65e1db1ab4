"""The parts of the Python client that servers for others need, against a real cluster."""

import asyncio
import errno
import os
import pickle
import stat
from collections.abc import Iterator

import pytest

from fs3 import AsyncClient, Client, Identity
from tests.cluster.conftest import LocalFs3

USER = Identity(1000, 1000, (2000,), umask=0)


@pytest.fixture
def client(running: LocalFs3) -> Iterator[Client]:
    with Client(running.data) as client:
        client.makedirs("/client", exist_ok=True)
        yield client
        client.rmtree("/client")


def test_acting_as_somebody_else(client: Client) -> None:
    client.chmod("/client", 0o1777)
    client.write_bytes("/client/private", b"x")
    client.chmod("/client/private", 0o640)
    user = client.acting_as(USER)
    with pytest.raises(PermissionError):
        user.read_bytes("/client/private")
    client.chown("/client/private", -1, 2000)
    assert user.read_bytes("/client/private") == b"x"
    user.write_bytes("/client/own", b"y")
    info = client.stat("/client/own")
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1000, 1000, 0o666)
    with pytest.raises(PermissionError):
        user.unlink("/client/private")
    user.close()  # which is not the connection's end
    assert user.read_bytes("/client/own") == b"y"


def test_those_who_share_a_connection_see_each_others_unsent_bytes(client: Client) -> None:
    user = client.acting_as(Identity(0, 0))
    with user.open("/client/shared", "wb") as file:
        file.write(b"0123456789")
        assert client.stat("/client/shared").st_size == 10
        client.truncate("/client/shared", 4)  # after the bytes, not before
        client.utime("/client/shared", ns=(5, 6))
        assert client.stat("/client/shared").st_mtime_ns == 6
    assert client.read_bytes("/client/shared") == b"0123"
    assert client.stat("/client/shared").st_mtime_ns == 6


def test_files_of_an_acting_client_are_closed_with_the_connection(running: LocalFs3) -> None:
    with Client(running.data) as owner:
        file = owner.acting_as(Identity(0, 0)).open("/unclosed", "wb")
        file.write(b"kept")
    assert file.closed
    with Client(running.data) as client:
        assert client.read_bytes("/unclosed") == b"kept"
        client.unlink("/unclosed")


def test_a_given_identity_is_pickled(client: Client) -> None:
    client.write_bytes("/client/private", b"x")
    client.chmod("/client/private", 0o600)
    with pickle.loads(pickle.dumps(client)) as same:
        assert same.read_bytes("/client/private") == b"x"
    copy = pickle.loads(pickle.dumps(client.acting_as(USER)))
    with pytest.raises(PermissionError):
        copy.read_bytes("/client/private")


def test_access(client: Client) -> None:
    client.write_bytes("/client/file", b"x")
    client.chmod("/client/file", 0o644)
    user = client.acting_as(USER)
    assert user.access("/client/file", os.R_OK)
    assert not user.access("/client/file", os.R_OK | os.W_OK)
    assert not user.access("/client/missing", os.F_OK)
    assert not user.access("/client/file/below", os.F_OK)
    client.symlink("nowhere", "/client/link")
    assert not user.access("/client/link", os.F_OK)
    assert user.access("/client/link", os.F_OK, follow_symlinks=False)


def test_nodes_of_every_type(client: Client) -> None:
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        client.mknod("/client/node", 0o640 | kind, os.makedev(7, 300))
        info = client.lstat("/client/node")
        assert stat.S_IFMT(info.st_mode) == kind
        device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        assert info.st_rdev == (os.makedev(7, 300) if device else 0)
        with pytest.raises(FileExistsError):
            client.mknod("/client/node", kind)
        client.unlink("/client/node")
    with pytest.raises(OSError) as refused:
        client.mknod("/client/node", stat.S_IFDIR)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(PermissionError):
        client.acting_as(USER).mknod("/client/node", stat.S_IFCHR)


def test_one_time_alone(client: Client) -> None:
    client.write_bytes("/client/file", b"x")
    client.utime("/client/file", ns=(1, 2))
    client.utime("/client/file", ns=(None, 3))
    info = client.stat("/client/file")
    assert (info.st_atime_ns, info.st_mtime_ns) == (1, 3)
    client.utime("/client/file", ns=("now", None))
    info = client.stat("/client/file")
    assert info.st_atime_ns > 3
    assert info.st_mtime_ns == 3


def test_open_by_flags(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.open_flags("/client/file", os.O_WRONLY)
    with client.open_flags("/client/file", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) as file:
        file.pwrite(b"ab", 0)
        file.pwrite(b"cd", 0)
    with pytest.raises(FileExistsError):
        client.open_flags("/client/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    client.symlink("file", "/client/link")
    with pytest.raises(OSError) as refused:
        client.open_flags("/client/link", os.O_RDONLY | os.O_NOFOLLOW)
    assert refused.value.errno == errno.ELOOP
    with client.open_flags("/client/link", os.O_RDONLY) as file:
        assert file.read() == b"abcd"


def test_syncing_a_directory_and_a_file(client: Client) -> None:
    with client.open("/client/file", "wb") as file:
        file.write(b"x")
        client.sync("/client/file")
        assert client.statistics()["dirty_bytes"] == 0
    client.sync("/client")
    with pytest.raises(FileNotFoundError):
        client.sync("/client/missing")


def test_the_same_in_an_event_loop(running: LocalFs3) -> None:
    async def use() -> None:
        async with AsyncClient(running.data) as client:
            await client.mkdir("/async")
            await client.mknod("/async/fifo", stat.S_IFIFO | 0o600)
            user = client.acting_as(USER)
            assert not await user.access("/async/fifo", os.R_OK)
            with pytest.raises(PermissionError):
                await user.mkdir("/async/d")
            file = await client.open_flags("/async/file", os.O_RDWR | os.O_CREAT)
            await file.pwrite(b"abc", 0)
            await client.utime("/async/file", ns=(None, 9))
            await client.sync("/async")
            await user.aclose()
            assert await file.pread(3, 0) == b"abc"
            assert (await client.stat("/async/file")).st_mtime_ns == 9
            await file.close()
            await client.rmtree("/async")

    asyncio.run(use())
