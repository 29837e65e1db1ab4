"""Which times each operation moves, of the file, of its directories and of what it replaces: as on
tmpfs and ext4. Limits of names and paths; nodes of every type."""

import ctypes
import errno
import os
import pathlib
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted
from tests.cluster.test_attributes import fails, name_it, reference  # noqa: F401  (the fixture)

Track = dict[str, tuple[int, int]]
LONG = b"\xff" * 255


def prepare(root: pathlib.Path) -> None:
    for name in ("old", "new", "old/dir", "new/empty"):
        (root / name).mkdir()
    for name in ("old/file", "old/other", "new/victim", "old/dir/inside"):
        (root / name).write_text("content")
    (root / "old/link").symlink_to("file")
    os.link(root / "old/file", root / "old/file2")
    os.setxattr(root / "old/file", "user.kept", b"v")


def times(root: pathlib.Path, keep: dict[str, int]) -> Track:
    """(mtime, ctime) of every path there is, and of what is kept open."""
    found = {}
    for where, directories, files in os.walk(root):
        for name in [".", *directories, *files]:
            path = os.path.normpath(os.path.join(where, name))
            info = os.lstat(path)
            found[os.path.relpath(path, root)] = info.st_mtime_ns, info.st_ctime_ns
    for name, descriptor in keep.items():
        info = os.fstat(descriptor)
        found["open " + name] = info.st_mtime_ns, info.st_ctime_ns
    return found


def write(path: pathlib.Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o644)
    os.write(descriptor, b"x")
    os.close(descriptor)


def tmpfile(root: pathlib.Path, name: str) -> None:
    descriptor = os.open(root, os.O_TMPFILE | os.O_RDWR, 0o600)
    if name:
        name_it(descriptor, root / name)
    os.close(descriptor)


STEPS: dict[str, Callable[[pathlib.Path], object]] = {
    "create": lambda r: write(r / "old/made", os.O_CREAT | os.O_EXCL),
    "open with O_CREAT what is there": lambda r: os.close(
        os.open(r / "old/file", os.O_RDONLY | os.O_CREAT, 0o644)
    ),
    "write": lambda r: write(r / "old/file"),
    "append": lambda r: write(r / "old/file", os.O_APPEND),
    "O_TRUNC": lambda r: os.close(os.open(r / "old/file", os.O_WRONLY | os.O_TRUNC)),
    "truncate": lambda r: os.truncate(r / "old/file", 2),
    "truncate to longer": lambda r: os.truncate(r / "old/file", 5000),
    "chmod": lambda r: (r / "old/file").chmod(0o600),
    "chmod to the same": lambda r: (r / "old/file").chmod(0o644),
    "chown": lambda r: os.chown(r / "old/file", 5, 5),
    "chown to nobody new": lambda r: os.chown(r / "old/file", -1, -1),
    "link": lambda r: os.link(r / "old/file", r / "new/third"),
    "unlink of one name": lambda r: (r / "old/file2").unlink(),
    "unlink of the last": lambda r: (r / "new/victim").unlink(),
    "mkdir": lambda r: (r / "new/made").mkdir(),
    "rmdir": lambda r: (r / "new/empty").rmdir(),
    "symlink": lambda r: (r / "new/made").symlink_to("x"),
    "readlink": lambda r: os.readlink(r / "old/link"),
    "mkfifo": lambda r: os.mkfifo(r / "new/made"),
    "rename in place": lambda r: (r / "old/file").rename(r / "old/renamed"),
    "rename across": lambda r: (r / "old/file").rename(r / "new/renamed"),
    "rename over": lambda r: (r / "old/file").rename(r / "new/victim"),
    "rename of a directory": lambda r: (r / "old/dir").rename(r / "new/dir"),
    "rename of a directory over one": lambda r: (r / "old/dir").rename(r / "new/empty"),
    "rename to itself": lambda r: (r / "old/file").rename(r / "old/file2"),
    "refused rename": lambda r: fails(errno.EISDIR, os.rename, r / "old/file", r / "new/empty"),
    "setxattr": lambda r: os.setxattr(r / "old/file", "user.a", b"v"),
    "removexattr": lambda r: os.removexattr(r / "old/file", "user.kept"),
    "setxattr of a directory": lambda r: os.setxattr(r / "old", "user.a", b"v"),
    "O_TMPFILE": lambda r: tmpfile(r / "old", ""),
    "O_TMPFILE, named": lambda r: tmpfile(r / "old", "named"),
    "list": lambda r: os.listdir(r / "old"),
    "read": lambda r: (r / "old/file").read_bytes(),
}


def moved(root: pathlib.Path, step: Callable[[pathlib.Path], object]) -> dict[str, object]:
    """By path: which of mtime and ctime moved, or that it is new or gone."""
    keep = {name: os.open(root / name, os.O_RDONLY) for name in ("new/victim", "old/file2")}
    try:
        os.utime(root / "old/file", ns=(5, 5))  # a time that writes have to move on from
        before = times(root, keep)
        step(root)
        after = times(root, keep)
    finally:
        for descriptor in keep.values():
            os.close(descriptor)
    changes: dict[str, object] = dict.fromkeys(before.keys() - after.keys(), "gone")
    for name, (mtime, ctime) in after.items():
        if name in before:
            change = mtime != before[name][0], ctime != before[name][1]
            changes |= {name: change} if any(change) else {}
        else:
            changes[name] = "new"
    return changes


@pytest.mark.parametrize("step", STEPS)
def test_times_move_as_on_the_kernels_own(
    running: LocalFs3,
    reference: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
    step: str,
) -> None:
    place = running.mount / tmp_path.name
    place.mkdir()
    for root in (reference, place):
        prepare(root)
    # The kernel's clock of files ticks every few milliseconds; fs3's does not.
    subprocess.run(["sleep", "0.02"], check=True)
    assert moved(place, STEPS[step]) == moved(reference, STEPS[step])


# ---- names, paths, nodes


@pytest.fixture(scope="module", params=["native", "python"])
def mount(request: pytest.FixtureRequest, running: LocalFs3) -> Iterator[pathlib.Path]:
    if request.param == "native":
        yield running.mount
        return
    with mounted(running, running.data.parent / "python", "python") as other:
        yield other.place


def test_names_and_paths_to_their_limits(mount: pathlib.Path) -> None:
    root = os.fsencode(mount) + b"/" + os.fsencode(f"limits-{mount.name}")
    os.mkdir(root)
    os.mkdir(root + b"/" + LONG)
    assert os.listdir(root) == [LONG]
    fails(errno.ENAMETOOLONG, os.mkdir, root + b"/" + LONG + b"x")
    # Down by descriptors, so that the way is longer than a path may be. libfuse 2 knows files by
    # their paths, and a path has an end there.
    directory = os.open(root, os.O_RDONLY)
    for _ in range(3 if mount.name == "python" else 17):
        os.mkdir(b"d" * 250, dir_fd=directory)
        below = os.open(b"d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.symlink(b"t" * 4095, b"link", dir_fd=directory)
    assert os.readlink(b"link", dir_fd=directory) == b"t" * 4095
    fails(errno.ENAMETOOLONG, os.symlink, b"t" * 4096, b"longer", dir_fd=directory)
    os.close(directory)
    path = root + b"/" + LONG + b"/"
    path += b"./" * ((4095 - len(path) - 4) // 2)
    path += b"f" * (4095 - len(path))
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    assert os.stat(path).st_size == 0
    fails(errno.ENAMETOOLONG, os.stat, path + b"f")
    subprocess.run([b"rm", b"-rf", root], check=True)


def test_nodes_of_every_type(mount: pathlib.Path) -> None:
    root = mount / f"nodes-{mount.name}"
    root.mkdir()
    device = os.makedev(259, 0x12345)
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK):
        path = root / f"{kind:o}"
        os.mknod(path, kind | 0o640, device)
        info = path.lstat()
        assert stat.S_IFMT(info.st_mode) == kind
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        assert info.st_rdev == (device if is_device else 0)
        assert info.st_nlink == 1
        path.rename(root / "moved")
        assert (root / "moved").lstat().st_rdev == info.st_rdev
        (root / "moved").unlink()


def test_flags_of_open(mount: pathlib.Path) -> None:
    root = mount / f"open-{mount.name}"
    root.mkdir()
    (root / "f").write_text("content")
    (root / "l").symlink_to("f")
    fails(errno.ELOOP, os.open, root / "l", os.O_RDONLY | os.O_NOFOLLOW)
    fails(errno.ENOTDIR, os.open, root / "f", os.O_RDONLY | os.O_DIRECTORY)
    path = os.open(root / "l", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(os.fstat(path).st_mode)
    fails(errno.EBADF, os.read, path, 1)
    os.close(path)
    fails(errno.EEXIST, os.open, root / "l", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    fails(errno.EISDIR, os.open, root, os.O_WRONLY)


def test_kinds_of_rename(running: LocalFs3) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def renameat2(old: pathlib.Path, new: pathlib.Path, flags: int) -> int:
        done = libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
        return ctypes.get_errno() if done else 0

    root = running.mount / "renames"
    root.mkdir()
    (root / "a").write_text("a")
    (root / "b").mkdir()
    (root / "b/inside").write_text("b")
    assert renameat2(root / "a", root / "b", 1) == errno.EEXIST
    assert renameat2(root / "a", root / "c", 2) == errno.ENOENT
    assert renameat2(root / "a", root / "b", 3) == errno.EINVAL
    assert renameat2(root / "a", root / "c", 8) == errno.EINVAL  # no such flag
    assert renameat2(root / "b", root / "b/inside", 2) == errno.EINVAL
    assert renameat2(root / "a", root / "b", 2) == 0
    assert (root / "b").read_text() == "a"
    assert (root / "a/inside").read_text() == "b"
    assert renameat2(root / "a", root / "c", 1) == 0
    assert sorted(os.listdir(root)) == ["b", "c"]
