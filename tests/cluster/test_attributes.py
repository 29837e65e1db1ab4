"""Extended attributes, ACLs, chattr flags, files without a name, times of birth: on both mounts, as
tmpfs and ext4 do it."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import random
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from fs3.client import Client
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
IMMUTABLE, APPEND_ONLY, NO_DUMP, NO_ATIME = 0x10, 0x20, 0x40, 0x80
NO_ID = 0xFFFFFFFF

STEPS = 500
SEEDS = range(3)


@pytest.fixture(scope="module", autouse=True)
def reachable(running: LocalFs3) -> None:
    open_way_to(running.data)


def open_way_to(place: pathlib.Path) -> None:
    """For every user: pytest's own directories are closed."""
    for directory in place.parents:
        if pathlib.Path(tempfile.gettempdir()) in directory.parents:
            directory.chmod(0o711)


@pytest.fixture(scope="module")
def python(running: LocalFs3) -> Iterator[pathlib.Path]:
    with mounted(running, running.data.parent / "python", "python") as mount:
        yield mount.place


@pytest.fixture(params=["tmpfs", "ext4"])
def reference(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty directory of a file system of the kernel."""
    if request.param == "tmpfs":
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            yield pathlib.Path(directory)
        return
    image, place = tmp_path / "image", tmp_path / "ext4"
    open_way_to(image)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        (place / "in").mkdir()
        yield place / "in"
    finally:
        subprocess.run(["umount", place], check=True)


# ---- random steps of several users


class Who(NamedTuple):
    """The numbers of one never appear with other groups: a mount remembers them for a second."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Who(0, 0)
PEOPLE = [ROOT, Who(1001, 1001), Who(1002, 1002, (2000,)), Who(1003, 1003, (1001, 2000))]
UIDS, GIDS = [1001, 1002, 1003], [1001, 1002, 2000]


@contextlib.contextmanager
def acting_as(who: Who, umask: int) -> Iterator[None]:
    before = os.umask(umask)
    os.setgroups(who.groups)
    os.setegid(who.gid)
    os.seteuid(who.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])
        os.umask(before)


class Side:
    """Steps on one file system; each returns what must be equal everywhere."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = os.fsencode(root) + b"/"

    def outcome(self, who: Who, umask: int, step: tuple[Any, ...]) -> Any:
        method, *arguments = step
        with acting_as(who, umask):
            try:
                return getattr(self, method)(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno or 0]

    def open(self, name: bytes, flags: int, mode: int) -> None:
        os.close(os.open(self.root + name, flags | os.O_NONBLOCK, mode))

    def mkdir(self, name: bytes, mode: int) -> None:
        os.mkdir(self.root + name, mode)

    def mkfifo(self, name: bytes, mode: int) -> None:
        os.mkfifo(self.root + name, mode)

    def symlink(self, name: bytes) -> None:
        os.symlink(b"a", self.root + name)

    def unlink(self, name: bytes) -> None:
        os.unlink(self.root + name)

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(self.root + old, self.root + new)

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self.root + old, self.root + new, follow_symlinks=False)

    def chmod(self, name: bytes, mode: int) -> None:
        os.chmod(self.root + name, mode)

    def chown(self, name: bytes, uid: int, gid: int) -> None:
        os.chown(self.root + name, uid, gid, follow_symlinks=False)

    def access(self, name: bytes, mode: int) -> bool:
        return os.access(self.root + name, mode, effective_ids=True)

    def stat(self, name: bytes) -> tuple[int, ...]:
        info = os.lstat(self.root + name)
        return info.st_mode, info.st_uid, info.st_gid, info.st_nlink

    def listdir(self, name: bytes) -> list[bytes]:
        return sorted(os.listdir(self.root + name))

    def setxattr(self, name: bytes, attribute: str, value: bytes, flags: int) -> None:
        os.setxattr(self.root + name, attribute, value, flags, follow_symlinks=False)

    def getxattr(self, name: bytes, attribute: str) -> bytes:
        return os.getxattr(self.root + name, attribute, follow_symlinks=False)

    def listxattr(self, name: bytes) -> list[str]:
        return sorted(os.listxattr(self.root + name, follow_symlinks=False))

    def removexattr(self, name: bytes, attribute: str) -> None:
        os.removexattr(self.root + name, attribute, follow_symlinks=False)


# What the kernel half of the Python mount says of a rename before it asks who may.
KERNEL_FIRST = [
    (right, kind) for right in ("EACCES", "EPERM") for kind in ("EISDIR", "ENOTDIR", "EINVAL")
]
NAMES = [b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a"]
MODES = [0o777, 0o770, 0o707, 0o660, 0o640, 0o604, 0o600, 0o2775, 0o1777, 0o4750]
ATTRIBUTES = ["user.a", "user.b", "trusted.a", "nothing.a", "user.", ACCESS, DEFAULT]
OPENS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_TRUNC]


def acl(draw: random.Random) -> bytes:
    """Mostly a legal one."""

    def granted() -> int:
        return draw.choice([0, 1, 4, 5, 6, 7, 7])

    users = sorted(draw.sample(UIDS, draw.randrange(3)))
    groups = sorted(draw.sample(GIDS, draw.randrange(3)))
    entries = [(1, granted(), NO_ID), *((2, granted(), uid) for uid in users)]
    entries += [(4, granted(), NO_ID), *((8, granted(), gid) for gid in groups)]
    if len(entries) > 2 or draw.random() < 0.3:
        entries.append((16, granted(), NO_ID))
    entries.append((32, granted(), NO_ID))
    if draw.random() < 0.05:
        entries.pop(draw.randrange(len(entries)))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def make_step(draw: random.Random) -> tuple[Any, ...]:
    name = draw.choice(NAMES)

    def attribute() -> tuple[str, bytes]:
        chosen = draw.choice(ATTRIBUTES)
        value = acl(draw) if chosen in (ACCESS, DEFAULT) else draw.randbytes(draw.choice([0, 9]))
        return chosen, value

    makers: list[Callable[[], tuple[Any, ...]]] = [
        lambda: ("open", name, draw.choice(OPENS), draw.choice(MODES)),
        lambda: ("open", name, draw.choice(OPENS), draw.choice(MODES)),
        lambda: ("mkdir", name, draw.choice(MODES)),
        lambda: ("mkfifo", name, draw.choice(MODES)),
        lambda: ("symlink", name),
        lambda: ("unlink", name),
        lambda: ("rename", name, draw.choice(NAMES)),
        lambda: ("link", name, draw.choice(NAMES)),
        lambda: ("chmod", name, draw.choice(MODES)),
        lambda: ("chown", name, draw.choice([-1, 0, *UIDS]), draw.choice([-1, 0, *GIDS])),
        lambda: ("access", name, draw.randrange(8)),
        lambda: ("access", name, draw.randrange(8)),
        lambda: ("stat", name),
        lambda: ("listdir", draw.choice([b"", b"d", b"d/e"])),
        lambda: ("setxattr", name, *attribute(), draw.choice([0, 0, 0, 1, 2])),
        lambda: ("setxattr", name, draw.choice([ACCESS, DEFAULT]), acl(draw), 0),
        lambda: ("setxattr", draw.choice([b"d", b"d/e"]), DEFAULT, acl(draw), 0),
        lambda: ("getxattr", name, attribute()[0]),
        lambda: ("listxattr", name),
        lambda: ("removexattr", name, attribute()[0]),
    ]
    return draw.choice(makers)()


def tree(root: pathlib.Path) -> dict[bytes, Any]:
    """Everything below, with all attributes."""
    found: dict[bytes, Any] = {}
    for where, directories, files in os.walk(os.fsencode(root)):
        for name in [*directories, *files]:
            path = where + b"/" + name
            info = os.lstat(path)
            names = os.listxattr(path, follow_symlinks=False)
            values = {each: os.getxattr(path, each, follow_symlinks=False) for each in names}
            shown = info.st_mode, info.st_uid, info.st_gid, info.st_nlink
            found[path[len(os.fsencode(root)) :]] = shown, values
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_users_attributes_and_acls_as_the_kernels_own(
    running: LocalFs3, python: pathlib.Path, reference: pathlib.Path, seed: int
) -> None:
    """The Python mount, whose kernel half checks nothing, shows what the service alone decides. It
    gets no umask: libfuse 2 has the kernel apply it, whatever a default ACL says; and no FIFOs,
    which that kernel opens for everybody."""
    with_python = seed % 2 == 0
    name = f"{reference.name}-{seed}"
    roots = {"kernel": reference, "native": running.mount / name, "python": python / f"p-{name}"}
    for root in roots.values():
        root.mkdir(exist_ok=True)
        root.chmod(0o777)
    sides = {which: Side(root) for which, root in roots.items()}
    draw = random.Random(seed)
    for number in range(STEPS):
        who, step = draw.choice(PEOPLE), make_step(draw)
        if step[0] == "mkfifo" and with_python:
            continue
        umask = 0 if with_python else draw.choice([0, 0o022, 0o077])
        expected = sides["kernel"].outcome(who, umask, step)
        for which in ("native", "python"):
            if which == "python" and not with_python:
                continue
            outcome = sides[which].outcome(who, umask, step)
            if which == "python" and (expected, outcome) in KERNEL_FIRST:
                continue
            assert outcome == expected, f"{which}, step {number}: {who} {umask:o} {step}"
    expected = tree(reference)
    assert tree(roots["native"]) == expected
    if with_python:
        assert tree(roots["python"]) == expected
        assert tree(running.mount / f"p-{name}") == expected


# ---- extended attributes


def fails(number: int, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    with pytest.raises(OSError) as refused:
        call(*arguments, **named)
    assert refused.value.errno == number, refused.value


def places(running: LocalFs3, python: pathlib.Path) -> Iterator[pathlib.Path]:
    for number, place in enumerate((running.mount, python)):
        directory = place / f"xattr-{number}"
        directory.mkdir()
        yield directory


def test_sizes_of_values_and_lists(running: LocalFs3, python: pathlib.Path) -> None:
    for directory in places(running, python):
        path = directory / "f"
        path.touch()
        value = os.urandom(65536)
        os.setxattr(path, "user.large", value)
        assert os.getxattr(path, "user.large") == value
        fails(errno.E2BIG, os.setxattr, path, "user.large", value + b"x")
        fails(errno.ERANGE, os.setxattr, path, "user." + "x" * 251, b"")
        os.setxattr(path, b"user.\xff\xfe" + b"x" * 248, b"")
        os.setxattr(path, "user.empty", b"")
        assert os.getxattr(path, "user.empty") == b""
        assert len(os.listxattr(os.fsencode(path))) == 3
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(100)
        assert libc.getxattr(os.fsencode(path), b"user.large", buffer, 100) == -1
        assert ctypes.get_errno() == errno.ERANGE
        assert libc.listxattr(os.fsencode(path), buffer, 10) == -1
        assert ctypes.get_errno() == errno.ERANGE
        assert libc.getxattr(os.fsencode(path), b"user.large", None, 0) == 65536


def test_one_mount_sees_what_the_other_sets(running: LocalFs3, python: pathlib.Path) -> None:
    path = running.mount / "shared-attributes"
    path.touch()
    os.setxattr(path, "user.a", b"native")
    other = python / path.name
    assert os.getxattr(other, "user.a") == b"native"
    os.setxattr(other, "user.a", b"python")
    assert os.getxattr(path, "user.a") == b"python"
    os.removexattr(path, "user.a")
    fails(errno.ENODATA, os.getxattr, other, "user.a")


def test_the_tools_of_acls(running: LocalFs3, reference: pathlib.Path) -> None:
    """setfacl(1) and getfacl(1), recursive, copied by cp -a, as on the kernel's own."""
    shown = []
    for place in (reference, running.mount / f"tools-{reference.name}"):
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
        (place / "d").mkdir()
        for name in ("d/f", "d/g"):
            (place / name).touch()
        for command in (
            "setfacl -m u:1001:rwx,g:2000:r-x,d:u:1002:rw-,d:o::--- d",
            "setfacl -R -m u:1003:r-X d",
            "setfacl -x u:1003 d/g",
            "setfacl -b d/f",
            "mkdir d/sub",
            "cp -a d copy",
            "chmod g-w copy",
        ):
            subprocess.run(command.split(), cwd=place, check=True)
        listing = subprocess.run(
            ["getfacl", "-R", "-n", "."], cwd=place, check=True, capture_output=True, text=True
        )
        shown.append(sorted(listing.stdout.split("\n\n")))
    assert shown[0] == shown[1]


def test_attributes_through_the_client(running: LocalFs3) -> None:
    with Client(running.data) as client:
        client.write_bytes("/attributes", b"x")
        client.setxattr("/attributes", "user.a", b"1", os.XATTR_CREATE)
        fails(errno.EEXIST, client.setxattr, "/attributes", "user.a", b"2", os.XATTR_CREATE)
        assert client.getxattr("/attributes", "user.a") == b"1"
        assert client.listxattr("/attributes") == ["user.a"]
        assert os.getxattr(running.mount / "attributes", "user.a") == b"1"
        client.removexattr("/attributes", "user.a")
        fails(errno.ENODATA, client.getxattr, "/attributes", "user.a")
        client.chattr("/attributes", immutable=True)
        fails(errno.EPERM, client.write_bytes, "/attributes", b"y")
        client.chattr("/attributes", immutable=False, no_dump=True)
        client.write_bytes("/other", b"other")
        client.exchange("/attributes", "/other")
        assert client.read_bytes("/attributes") == b"other"
        with client.open_flags("/", os.O_TMPFILE | os.O_RDWR) as file:
            file.write(b"named later")
            file.link("/named")
        assert client.read_bytes("/named") == b"named later"


# ---- chattr


@contextlib.contextmanager
def flags_on(path: pathlib.Path, flags: int) -> Iterator[None]:
    """Taken away again, or nothing could be."""
    set_flags(path, flags)
    try:
        yield
    finally:
        set_flags(path, 0)


def set_flags(path: pathlib.Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", flags))
    finally:
        os.close(descriptor)


def get_flags(path: pathlib.Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, buffer)
        return struct.unpack_from("i", buffer)[0]
    finally:
        os.close(descriptor)


def test_immutable_and_append_only(running: LocalFs3) -> None:
    directory = running.mount / "flags"
    directory.mkdir()
    path = directory / "f"
    path.write_text("kept")
    with flags_on(path, IMMUTABLE):
        assert get_flags(path) == IMMUTABLE
        fails(errno.EPERM, path.write_text, "lost")
        fails(errno.EPERM, os.truncate, path, 0)
        fails(errno.EPERM, path.unlink)
        fails(errno.EPERM, path.chmod, 0o777)
        fails(errno.EPERM, os.rename, path, directory / "g")
        fails(errno.EPERM, os.link, path, directory / "g")
        fails(errno.EPERM, os.setxattr, path, "user.a", b"")
        assert path.read_text() == "kept"
    with flags_on(path, APPEND_ONLY):
        fails(errno.EPERM, path.write_text, "lost")
        fails(errno.EPERM, os.truncate, path, 0)
        with path.open("ab") as file:
            file.write(b" and more")
            fails(errno.EPERM, os.ftruncate, file.fileno(), 0)
        fails(errno.EPERM, path.unlink)
    with flags_on(directory, IMMUTABLE):
        fails(errno.EPERM, (directory / "g").touch)
        fails(errno.EPERM, path.unlink)
        path.write_text("content is not names")
    with flags_on(directory, NO_DUMP | NO_ATIME):
        assert get_flags(directory) == NO_DUMP | NO_ATIME
    path.unlink()


def test_the_other_call_for_the_same_flags(running: LocalFs3) -> None:
    path = running.mount / "extended-flags"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    buffer = bytearray(28)
    fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, buffer)
    assert buffer == bytes(28)
    fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, struct.pack("I24x", 0x8 | 0x80))
    assert get_flags(path) == IMMUTABLE | NO_DUMP
    fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, buffer)
    assert struct.unpack_from("I", buffer)[0] == 0x8 | 0x80
    project = struct.pack("III16x", 0, 0, 7)[:12] + struct.pack("I12x", 7)
    fails(errno.EOPNOTSUPP, fcntl.ioctl, descriptor, FS_IOC_FSSETXATTR, project)
    fails(errno.EOPNOTSUPP, set_flags, path, 0x8)
    set_flags(path, 0)
    fails(errno.ENOTTY, fcntl.ioctl, descriptor, 0x5401)
    os.close(descriptor)
    with acting_as(Who(1001, 1001), 0):
        fails(errno.EPERM, set_flags, path, NO_DUMP)


def test_chattr_and_lsattr(running: LocalFs3) -> None:
    path = running.mount / "chattr"
    path.touch()
    subprocess.run(["chattr", "+ai", path], check=True)
    shown = subprocess.run(["lsattr", path], check=True, capture_output=True, text=True).stdout
    assert sorted(shown.split()[0].replace("-", "")) == ["a", "i"]
    subprocess.run(["chattr", "-ai", path], check=True)
    path.unlink()


# ---- files without a name


def name_it(descriptor: int, path: pathlib.Path) -> None:
    """As open(2) shows it: linkat of /proc/self/fd, followed."""
    root = os.open("/", os.O_RDONLY)
    try:
        source = f"/proc/self/fd/{descriptor}"
        os.link(source, path, src_dir_fd=root, follow_symlinks=True)
    finally:
        os.close(root)


def test_a_file_without_a_name(running: LocalFs3) -> None:
    directory = running.mount / "nameless"
    directory.mkdir()
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(descriptor, b"written before it has a name")
    info = os.fstat(descriptor)
    assert (info.st_nlink, stat.S_IMODE(info.st_mode)) == (0, 0o640)
    assert os.listdir(directory) == []
    name_it(descriptor, directory / "named")
    assert os.fstat(descriptor).st_nlink == 1
    os.close(descriptor)
    assert (directory / "named").read_bytes() == b"written before it has a name"
    exclusive = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    fails(errno.ENOENT, name_it, exclusive, directory / "never")
    os.close(exclusive)
    fails(errno.EINVAL, os.open, directory, os.O_TMPFILE | os.O_RDONLY)
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert os.listdir(directory) == ["named"]


# ---- time of birth


class Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("padding", ctypes.c_uint8 * 76),
        ("btime_s", ctypes.c_int64),
        ("btime_ns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 164),
    )


def birth_ns(path: pathlib.Path) -> int:
    found, libc = Statx(), ctypes.CDLL(None, use_errno=True)
    assert libc.statx(-100, os.fsencode(path), 0x100, 0x800, ctypes.byref(found)) == 0
    assert found.mask & 0x800, "there is no time of birth"
    return found.btime_s * 1_000_000_000 + found.btime_ns


def test_the_time_of_birth_stays(running: LocalFs3) -> None:
    path = running.mount / "born"
    path.touch()
    born = birth_ns(path)
    assert born == path.stat().st_mtime_ns
    path.write_text("changed")
    os.utime(path, ns=(5, 5))
    path.chmod(0o600)
    assert birth_ns(path) == born
    with Client(running.data) as client:
        assert client.attributes("/born").btime_ns == born


def test_the_virtual_directory_has_none(running: LocalFs3) -> None:
    """The kernel asks for its ACL whenever a user goes through it."""
    place = running.mount / "3fs-virt"
    with acting_as(Who(1001, 1001), 0):
        assert sorted(os.listdir(place)) == ["iovs", "rm-rf"]
        assert os.listdir(place / "rm-rf") == []
    assert os.listxattr(place) == []
    fails(errno.ENODATA, os.getxattr, place, "user.a")
    assert birth_ns(place) == 0
