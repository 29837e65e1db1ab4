"""Mount table, busy reports and mount point checks, without a mount."""

import errno
import os
import pathlib

import pytest

from fs3._proto import common_pb2
from fs3.mount.cluster import check_cluster
from fs3.mount.mount_point import check_mount_point
from fs3.mount.mounts import Mount, mounted_at, parse_mountinfo
from fs3.mount.umount import Holder, holders, unmount

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
36 22 0:52 / /mnt/a\\040b rw,nosuid shared:1 - fuse.fs3 fs3 rw,user_id=0
37 22 0:53 / /mnt/a\\040b rw - tmpfs none rw
broken line
38 22 0:54 / /x - short
"""


def test_mountinfo_with_and_without_optional_fields() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert mounts == [
        Mount("/", "ext4", "/dev/vda", "254:0"),
        Mount("/mnt/a b", "fuse.fs3", "fs3", "0:52"),
        Mount("/mnt/a b", "tmpfs", "none", "0:53"),
    ]


def test_root_is_mounted_and_a_new_directory_is_not(tmp_path: pathlib.Path) -> None:
    assert mounted_at("/") is not None
    assert mounted_at(str(tmp_path)) is None


def test_an_empty_directory_will_do(tmp_path: pathlib.Path) -> None:
    check_mount_point(tmp_path)


def test_refused_mount_points(tmp_path: pathlib.Path) -> None:
    def code(path: pathlib.Path) -> int | None:
        with pytest.raises(OSError) as caught:
            check_mount_point(path)
        return caught.value.errno

    (tmp_path / "file").write_text("x")
    assert code(tmp_path / "missing") == errno.ENOENT
    assert code(tmp_path / "file") == errno.ENOTDIR
    assert code(tmp_path) == errno.ENOTEMPTY
    assert code(pathlib.Path("/proc")) == errno.EBUSY


def test_another_cluster_at_that_address_is_refused() -> None:
    routing = common_pb2.RoutingInfo(cluster_id=bytes(range(16)))
    check_cluster("", routing)
    check_cluster(bytes(range(16)).hex().upper(), routing)
    with pytest.raises(OSError, match="not ffff"):
        check_cluster("ff" * 16, routing)


def test_unmounting_nothing_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="nothing is mounted") as caught:
        unmount(tmp_path)
    assert caught.value.errno == errno.EINVAL


def make_process(proc: pathlib.Path, pid: int, cwd: str, fds: list[str], maps: str = "") -> None:
    """A process as /proc shows it."""
    base = proc / str(pid)
    (base / "fd").mkdir(parents=True)
    (base / "cwd").symlink_to(cwd)
    (base / "root").symlink_to("/")
    (base / "exe").symlink_to("/bin/true")
    (base / "comm").write_text(f"command{pid}\n")
    (base / "maps").write_text(maps)
    for number, target in enumerate(fds):
        (base / "fd" / str(number)).symlink_to(target)


def test_holders_are_found_by_every_kind_of_use(tmp_path: pathlib.Path) -> None:
    make_process(tmp_path, 10, "/mnt/x/sub", [])
    make_process(tmp_path, 11, "/home", ["/dev/null", "/mnt/x/file"])
    make_process(tmp_path, 12, "/home", [], "7f00-7f01 r--p 00000000 00:34 5   /mnt/x/map\n")
    make_process(tmp_path, 13, "/mnt/xy", ["/mnt/xy/file"])
    (tmp_path / "self").mkdir()
    found = sorted(holders("/mnt/x", proc=tmp_path))
    assert found == [
        Holder(10, "command10", "working directory"),
        Holder(11, "command11", "open file /mnt/x/file"),
        Holder(12, "command12", "mapped file /mnt/x/map"),
    ]


def test_own_process_does_not_stand_in_its_own_way(tmp_path: pathlib.Path) -> None:
    make_process(tmp_path, os.getpid(), "/mnt/x", [])
    assert list(holders("/mnt/x", proc=tmp_path)) == []
