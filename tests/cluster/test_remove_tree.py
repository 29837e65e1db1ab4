"""Recursive removal: one call for the caller, and nothing is left of the tree in the end."""

import os
import pathlib
from collections.abc import Callable

import pytest

from fs3.client import Client, Identity
from tests.cluster.conftest import LocalFs3

WIDTH = 12


def plant(top: pathlib.Path) -> None:
    for a in range(WIDTH):
        for b in range(4):
            below = top / f"d{a}" / f"d{b}"
            below.mkdir(parents=True)
            (below / "file").write_bytes(bytes(5000))


def by_link(mount: pathlib.Path, top: pathlib.Path) -> None:
    link = mount / "3fs-virt" / "rm-rf" / "anything"
    os.symlink(top, link)
    assert not os.path.lexists(link)


def by_move(mount: pathlib.Path, top: pathlib.Path) -> None:
    target = mount / "3fs-virt" / "rm-rf" / top.name
    os.rename(top, target)


@pytest.mark.parametrize("remove", [by_link, by_move])
def test_through_the_virtual_directory(
    running: LocalFs3, remove: Callable[[pathlib.Path, pathlib.Path], None]
) -> None:
    top = running.mount / remove.__name__
    plant(top)
    with (top / "d3" / "d3" / "file").open("rb") as held:
        remove(running.mount, top)
        assert not top.exists()
        assert top.name not in os.listdir(running.mount)
        assert os.listdir(running.mount / "3fs-virt" / "rm-rf") == []
        assert held.read() == bytes(5000)


def test_the_virtual_directory_shows_itself_by_name_only(running: LocalFs3) -> None:
    virtual = running.mount / "3fs-virt"
    assert "3fs-virt" not in os.listdir(running.mount)
    assert os.listdir(virtual) == ["iovs", "rm-rf"]
    assert [oct(path.stat().st_mode) for path in (virtual, virtual / "rm-rf")] == [
        "0o40555",
        "0o40777",
    ]
    with pytest.raises(PermissionError):
        (virtual / "rm-rf" / "file").write_bytes(b"")
    with pytest.raises(PermissionError):
        (virtual / "rm-rf").rmdir()


def test_mistakes_remove_nothing(running: LocalFs3) -> None:
    link = running.mount / "3fs-virt" / "rm-rf" / "x"
    kept = running.mount / "kept"
    kept.mkdir()
    for target, error in (
        (str(running.mount), OSError),
        (f"{kept}/..", OSError),
        ("kept", OSError),
        ("/", OSError),
        (f"{running.mount}/missing", FileNotFoundError),
    ):
        with pytest.raises(error):
            os.symlink(target, link)
    assert kept.is_dir()
    by_link(running.mount, kept)
    file = running.mount / "single"
    file.write_bytes(b"x")
    by_link(running.mount, file)
    assert not file.exists()


def test_rm_r(running: LocalFs3) -> None:
    plant(running.mount / "tree")
    running.local("rm", "-r", "/tree")
    assert "tree" not in running.local("ls", "/")
    assert running.local("rm", "-r", "/tree", expect=4)


def test_rmtree_of_what_others_keep_removes_nothing(running: LocalFs3) -> None:
    with Client(running.data) as client:
        client.mkdir("/shared")
        client.chmod("/shared", 0o777)
        client.makedirs("/shared/theirs/more")
        user = client.acting_as(Identity(1000, 1000))
        user.mkdir("/shared/own")
        user.write_bytes("/shared/own/file", b"x")
        with pytest.raises(PermissionError):
            user.rmtree("/shared/theirs")
        user.rmtree("/shared/own")
        assert client.listdir("/shared") == ["theirs"]
        assert client.listdir("/shared/theirs") == ["more"]
        client.rmtree("/shared")
