"""What -o and the first column of fstab mean, and the helper of mount(8)."""

import errno
import os
import pathlib
import subprocess

import pytest

from fs3.cli.mount_helper import arguments_of
from fs3.mount.options import MountOptions, parse, split_source

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_options():
    assert parse("", MountOptions()) == MountOptions()
    chosen = parse("ro,sync,nosurvive,subdir=/a/b,suid,dev,direct_io", MountOptions())
    assert chosen == MountOptions(
        read_only=True,
        write_back_bytes=0,
        survive=False,
        subdir="/a/b",
        allow_suid=True,
        allow_dev=True,
        direct_io=True,
    )
    assert parse("ro,rw,suid,nosuid,dev,nodev", MountOptions()) == MountOptions()


def test_what_is_for_others_is_left_to_them():
    text = "defaults,noauto,user,nofail,_netdev,diratime,exec,x-systemd.automount,comment=x,async"
    assert parse(text, MountOptions()) == MountOptions()


def test_times_of_access_are_the_mounts_business():
    assert parse("noatime", MountOptions()).atime == "noatime"
    assert parse("strictatime,relatime", MountOptions()).atime == "relatime"
    assert parse("squash_root", MountOptions()).squash_root


@pytest.mark.parametrize("text", ["fast", "subdir=a", "ro=1", "ro,,what"])
def test_what_nobody_knows_is_refused(text):
    with pytest.raises(OSError, match="unknown") as refused:
        parse(text, MountOptions())
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize("source", ["host:/x", "host", "a:1,b:/x", "", "a:7000"])
def test_sources_that_are_none(source):
    with pytest.raises(OSError, match="HOST:PORT"):
        split_source(source)


def test_the_helper_of_mount():
    assert arguments_of(["h:7000:/a", "/mnt", "-o", "ro,_netdev", "-v", "-n"]) == [
        "mount",
        "/mnt",
        "--mgmtd",
        "h:7000",
        "--subdir",
        "/a",
        "-o",
        "ro,_netdev",
    ]
    assert arguments_of(["h:7000:/", "/mnt", "-f"]) == []
    with pytest.raises(OSError, match="unknown"):
        arguments_of(["h:7000:/", "/mnt", "-o", "fast"])


def test_the_helper_is_found_through_a_link(tmp_path):
    """As /sbin/mount.fs3 would be."""
    link = tmp_path / "mount.fs3"
    os.symlink(ROOT / "deploy" / "mount.fs3", link)
    done = subprocess.run([link, "nonsense", "/mnt"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "HOST:PORT" in done.stderr
