"""Trash through the command line and the mount: kept, seen, brought back."""

import os
import shutil
import subprocess

import pytest

from fs3.client import Client
from fs3.client.trash import Trash
from tests.cluster.conftest import LocalFs3


def test_what_rm_removes_comes_back_with_its_directories(running: LocalFs3) -> None:
    project = running.mount / "project"
    (project / "a" / "b").mkdir(parents=True)
    running.local("trash", "keep", "/project", "7d", "-r")
    assert running.local("trash", "keep", "/project/a/b") == "7d\n"
    report = os.urandom(300_000)
    (project / "a" / "b" / "report").write_bytes(report)
    (project / "a" / "link").symlink_to("b/report")
    subprocess.run(["rm", "-r", project / "a"], check=True, timeout=60)
    assert not (project / "a").exists()
    listed = running.local("trash", "ls", "/project")
    assert [line.split()[-1] for line in listed.splitlines()[1:]] == [
        "/project/a",
        "/project/a/b",
        "/project/a/b/report",
        "/project/a/link",
    ]
    running.local("trash", "restore", "/project/a")
    assert (project / "a" / "b" / "report").read_bytes() == report
    assert (project / "a" / "link").read_bytes() == report
    assert running.local("trash", "ls").count("\n") == 1


def test_the_newest_of_several_comes_back_and_nothing_is_replaced(running: LocalFs3) -> None:
    place = running.mount / "versions"
    place.mkdir()
    running.local("trash", "keep", "/versions", "12h")
    for version in ("one", "two", "three"):
        (place / "new").write_text(version)
        os.rename(place / "new", place / "file")
    os.unlink(place / "file")
    assert running.local("trash", "ls", "/versions").count("/versions/file") == 3
    running.local("trash", "restore", "/versions/file")
    assert (place / "file").read_text() == "three"
    refused = running.local("trash", "restore", "/versions/file", expect=1)
    assert "file exists" in refused.lower()
    running.local("trash", "restore", "/versions/file", "--to", "/versions/other")
    assert (place / "other").read_text() == "two"
    assert "1 entries gone" in running.local("trash", "empty", "/versions", "--yes")


def test_the_trash_is_a_directory_of_the_mount(running: LocalFs3) -> None:
    place = running.mount / "plain"
    place.mkdir()
    os.setxattr(place, "user.fs3.trash", b"1d")
    with pytest.raises(OSError, match="Invalid argument"):
        os.setxattr(place, "user.fs3.trash", b"soon")
    file = place / "file"
    file.write_text("held")
    with file.open() as held:
        file.unlink()
        assert held.read() == "held"
    (kept,) = (running.mount / ".trash" / str(os.getuid())).glob("*/file#*")
    where = os.getxattr(kept, "system.fs3.removed_from").split(b" ", 1)
    assert where == [str(place.stat().st_ino).encode(), b"file"]
    shutil.move(kept, file)
    assert file.read_text() == "held"


def test_a_tree_of_one_call_is_kept_whole(running: LocalFs3) -> None:
    top = running.mount / "kept" / "top"
    top.mkdir(parents=True)
    for i in range(5):
        (top / f"f{i}").write_text(str(i))
    with Client(running.data) as client:
        trash = Trash(client)
        trash.keep("/kept", "30m")
        client.rmtree("/kept/top")
        (gone,) = [one for one in trash.entries() if one.name == "top"]
        assert trash.original(gone) == "/kept/top"
        assert gone.is_directory
        assert trash.restore(gone) == "/kept/top"
    assert sorted(os.listdir(top)) == [f"f{i}" for i in range(5)]
