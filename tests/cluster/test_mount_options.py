"""Mounts of a directory, read-only mounts, and mount.fs3 as mount(8) calls it."""

import errno
import os
import pathlib
import subprocess

import pytest

from tests.cluster.conftest import COMMAND_TIMEOUT_S, ROOT, LocalFs3
from tests.cluster.mounts import mounted


def test_a_directory_is_mounted_as_a_root(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    team = running.mount / "team"
    (team / "sub").mkdir(parents=True)
    (team / "file").write_bytes(b"seen")
    running.local("quota", "set", "/team", "--bytes", "16M")
    running.wait_for(lambda: os.statvfs(running.mount).f_blocks > 0, "the disks told their size")
    with mounted(running, tmp_path / "team", "native", "--subdir", "/team") as mount:
        place = mount.place
        assert sorted(os.listdir(place)) == ["file", "sub"]
        assert (place / "file").read_bytes() == b"seen"
        assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize == 16 << 20
        (place / "new").write_bytes(b"new")
        os.rename(place / "new", place / "sub" / "moved")
        os.rename(place / "sub" / "moved", place / "back")
        os.mkdir(place / "made")
        assert (team / "back").read_bytes() == b"new"
        assert (place / "..").resolve() == tmp_path.resolve()
        os.symlink(place / "sub", place / "3fs-virt" / "rm-rf" / "x")
        assert sorted(os.listdir(team)) == ["back", "file", "made"]
        for outside in (f"{place}/../team", str(running.mount / "team"), str(place)):
            with pytest.raises(OSError):
                os.symlink(outside, place / "3fs-virt" / "rm-rf" / "x")
        assert team.is_dir()


def test_a_read_only_mount(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    (running.mount / "kept").write_bytes(b"kept")
    with mounted(running, tmp_path / "ro", "native", "-o", "ro,_netdev") as mount:
        assert (mount.place / "kept").read_bytes() == b"kept"
        for change in (
            lambda: (mount.place / "kept").write_bytes(b""),
            lambda: (mount.place / "new").touch(),
            lambda: (mount.place / "kept").unlink(),
        ):
            with pytest.raises(OSError) as refused:
                change()
            assert refused.value.errno == errno.EROFS


def test_what_mount_8_calls(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    """The helper, with the arguments that an fstab entry gives it; then an ordinary umount."""
    (running.mount / "fstab").mkdir()
    (running.mount / "fstab" / "file").write_bytes(b"x")
    place = tmp_path / "mnt"
    place.mkdir()
    source = f"{running.cluster.state()['mgmtd']}:/fstab"
    helper = str(ROOT / "deploy" / "mount.fs3")
    options = "rw,_netdev,sync"
    try:
        subprocess.run(
            [helper, source, str(place), "-o", options], check=True, timeout=COMMAND_TIMEOUT_S
        )
        assert os.listdir(place) == ["file"]
        (place / "file").write_bytes(b"y")
    finally:
        said = running.fs3("umount", str(place))
    assert said == ""
    assert (running.mount / "fstab" / "file").read_bytes() == b"y"
    done = subprocess.run(
        [helper, f"{running.cluster.state()['mgmtd']}:/missing", str(place)],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode != 0


def test_umount_says_who_uses_it(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    with mounted(running, tmp_path / "busy", "native") as mount:
        with (mount.place / "held").open("wb"):
            said = running.fs3("umount", str(mount.place), expect=1)
        assert "is busy" in said
        assert f"pid {os.getpid()}" in said
