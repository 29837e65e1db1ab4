"""What `fs3 up` decides before it starts anything."""

import pathlib
import shutil

import click
import pytest

from fs3.cli.up import Options, _fuse_obstacle, _refuse_own_data


def options(data: pathlib.Path, mount: pathlib.Path | None) -> Options:
    return Options(data=data, mount=mount, nodes=3, replicas=3, lease_s=4.0, capacity_mib=0)


def test_why_nobody_can_mount_here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "fuse"
    assert "modprobe fuse" in _fuse_obstacle(str(device))
    device.touch()
    assert _fuse_obstacle(str(device)) == ""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "apt-get install fuse3" in _fuse_obstacle(str(device))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "chmod 666" in _fuse_obstacle(str(device))


def test_a_mount_over_or_inside_the_data_is_refused(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    for mount in (data, tmp_path, tmp_path / "x" / ".." / "data", data / "below"):
        with pytest.raises(click.UsageError, match="overlap"):
            _refuse_own_data(options(data, mount))
    for good in (None, tmp_path / "mount", tmp_path / "data2"):
        _refuse_own_data(options(data, good))
