"""The Python mount beside the native one and tmpfs: the same outcomes, step by step; and what one
mount changes, the other shows."""

import errno
import json
import mmap
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from fs3.mount.mounts import TYPE, mounted_at
from tests.cluster.conftest import COMMAND_TIMEOUT_S, ROOT, LocalFs3
from tests.cluster.differential import SLOTS, Generator, Side, tree
from tests.cluster.mounts import MountProcess, mounted

SEEDS = 4
STEPS = 400


@pytest.fixture(scope="module")
def python(running: LocalFs3) -> Iterator[pathlib.Path]:
    """A Python mount of the running cluster."""
    with mounted(running, running.data.parent / "python", "python") as mount:
        yield mount.place


@pytest.fixture
def tmpfs() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.chmod(directory, 0o755)
        yield pathlib.Path(directory)


# ---- the same outcomes ----


@pytest.mark.parametrize("seed", range(SEEDS))
def test_same_outcomes_as_the_native_mount_and_tmpfs(
    running: LocalFs3, python: pathlib.Path, tmpfs: pathlib.Path, seed: int
) -> None:
    roots = {
        "tmpfs": tmpfs,
        "native": running.mount / f"native-{seed}",
        "python": python / f"python-{seed}",
    }
    for root in roots.values():
        root.mkdir(exist_ok=True)
    sides = {name: Side(root) for name, root in roots.items()}
    generator = Generator(seed, sides["tmpfs"])
    done = 0
    while done < STEPS:
        for step in generator.steps():
            outcomes = {name: side.outcome(step) for name, side in sides.items()}
            for name in ("native", "python"):
                assert outcomes[name] == outcomes["tmpfs"], f"{name}, step {done}: {step}"
            done += 1
    for slot in range(SLOTS):
        for side in sides.values():
            side.close(slot)
    expected = tree(tmpfs)
    assert tree(roots["native"]) == expected
    assert tree(roots["python"]) == expected
    # Each through the other mount.
    assert tree(python / roots["native"].name) == expected
    assert tree(running.mount / roots["python"].name) == expected


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o2744, 0o1755])
def test_a_chown_that_names_nobody_takes_privileges(
    running: LocalFs3, python: pathlib.Path, tmpfs: pathlib.Path, mode: int
) -> None:
    modes = []
    for root in (tmpfs, running.mount, python):
        path = root / "privileged"
        for make in (path.touch, path.mkdir):
            make()
            path.chmod(mode)
            os.chown(path, -1, -1)
            modes.append(path.stat().st_mode)
            path.rmdir() if path.is_dir() else path.unlink()
    assert modes == modes[:2] * 3


# Runs as another user inside a directory that it is given as its working directory; prints what
# each call gives.
AS_USER = """
import errno, json, os
os.setgroups([2000]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
results = {}
def attempt(name, call, *arguments, **named):
    try:
        result = call(*arguments, **named)
    except OSError as error:
        result = errno.errorcode[error.errno]
    results[name] = result if isinstance(result, (int, str, bool, type(None))) else "ok"
def opened(path, flags):
    os.close(os.open(path, flags, 0o644))
attempt("read private", opened, "private", os.O_RDONLY)
attempt("read by group", opened, "shared", os.O_RDONLY)
attempt("write by group", opened, "shared", os.O_WRONLY)
attempt("truncate", os.truncate, "shared", 0)
attempt("create", opened, "new", os.O_WRONLY | os.O_CREAT)
attempt("create on existing", opened, "shared", os.O_RDONLY | os.O_CREAT)
attempt("mkdir", os.mkdir, "new")
attempt("mkfifo", os.mkfifo, "new")
attempt("symlink", os.symlink, "x", "new")
attempt("rename", os.rename, "shared", "new")
attempt("unlink", os.unlink, "shared")
attempt("chmod", os.chmod, "shared", 0o777)
attempt("chown", os.chown, "shared", 1000, 1000)
attempt("utime", os.utime, "shared", ns=(1, 1))
attempt("touch", os.utime, "shared")
attempt("touch by group", os.utime, "writable")
attempt("utime by group", os.utime, "writable", ns=(1, 1))
attempt("list what may only be searched", os.listdir, "searchable")
attempt("stat in what may be searched", os.stat, "searchable/inside")
attempt("stat in what may not", os.stat, "closed/inside")
attempt("chdir", os.chdir, "closed")
attempt("list what may be read", lambda: len(os.listdir("readable")))
attempt("stat in what may only be read", os.stat, "readable/inside")
attempt("sticky: other's", os.unlink, "sticky/theirs")
attempt("sticky: own", opened, "sticky/own", os.O_WRONLY | os.O_CREAT)
attempt("sticky: owner", lambda: "%d:%d" % (os.stat("sticky/own").st_uid,
    os.stat("sticky/own").st_gid))
attempt("sticky: unlink own", os.unlink, "sticky/own")
attempt("setgid", opened, "setgid/own", os.O_WRONLY | os.O_CREAT)
attempt("setgid: group", lambda: os.stat("setgid/own").st_gid)
attempt("setgid: give to own group", os.chown, "setgid/own", -1, 1000)
attempt("setgid: give away", os.chown, "setgid/own", 0, -1)
for mask in range(8):
    for name in ("private", "shared", "searchable", "closed/inside", "missing"):
        attempt("access %s %d" % (name, mask), os.access, name, mask)
print(json.dumps(results))
"""


def playground(root: pathlib.Path) -> None:
    """Owned by root and by group 2000."""
    for name, mode in (("private", 0o600), ("shared", 0o640), ("writable", 0o660)):
        (root / name).touch()
        (root / name).chmod(mode)
        os.chown(root / name, 0, 2000)
    directories = {"searchable": 0o711, "closed": 0o700, "readable": 0o744, "sticky": 0o1777}
    for name, mode in directories.items():
        (root / name).mkdir()
        for inside in ("inside", "theirs"):
            (root / name / inside).touch()
        (root / name).chmod(mode)
    (root / "setgid").mkdir()
    os.chown(root / "setgid", 0, 2000)
    (root / "setgid").chmod(0o2777)


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
def test_an_ordinary_user_may_what_tmpfs_lets_him(
    running: LocalFs3, python: pathlib.Path, tmpfs: pathlib.Path
) -> None:
    outcomes = {}
    roots = (tmpfs, running.mount / "as-native", python / "as-python")
    for name, root in zip(("tmpfs", "native", "python"), roots, strict=True):
        root.mkdir(exist_ok=True)
        playground(root)
        done = subprocess.run(
            [sys.executable, "-c", AS_USER],
            cwd=root,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
        outcomes[name] = json.loads(done.stdout)
    assert outcomes["tmpfs"]["read private"] == "EACCES"
    assert outcomes["tmpfs"]["read by group"] is None
    assert outcomes["native"] == outcomes["tmpfs"]
    assert outcomes["python"] == outcomes["tmpfs"]


# ---- one file system through two mounts ----


def test_what_is_closed_on_one_mount_is_seen_on_the_other(
    running: LocalFs3, python: pathlib.Path
) -> None:
    native = running.mount
    for writer, reader in ((python, native), (native, python)):
        for size in (5, 300_000, 3):
            (writer / "coherent").write_bytes(os.urandom(size))
            content = (reader / "coherent").read_bytes()
            assert len(content) == size
            assert content == (writer / "coherent").read_bytes()
        with (writer / "coherent").open("ab") as file:
            file.write(b"more")
        assert (reader / "coherent").read_bytes() == content + b"more"
        (writer / "coherent").unlink()
        # The native mount may believe a name for as long as its lease says.
        running.wait_for(lambda at=reader: not (at / "coherent").exists(), "the name is gone")


def test_appends_of_both_mounts_are_kept(running: LocalFs3, python: pathlib.Path) -> None:
    log = "log-of-both"
    (python / log).touch()
    expected = b""
    for number in range(20):
        line = b"line %d\n" % number
        place = (python, running.mount)[number % 2]
        descriptor = os.open(place / log, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, line)
        os.close(descriptor)
        expected += line
    assert (python / log).read_bytes() == expected
    assert (running.mount / log).read_bytes() == expected


def test_an_open_file_outlives_its_name(python: pathlib.Path) -> None:
    path = python / "nameless"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"still here")
    path.unlink()
    assert not path.exists()
    assert list(python.glob(".fuse_hidden*")) == []
    os.pwrite(descriptor, b"!", 100_000)
    os.ftruncate(descriptor, 90_000)
    assert os.lseek(descriptor, 0, os.SEEK_END) == 90_000
    assert os.pread(descriptor, 10, 0) == b"still here"
    os.fsync(descriptor)
    os.close(descriptor)


def test_names_are_any_bytes_and_offsets_are_large(running: LocalFs3, python: pathlib.Path) -> None:
    name = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    descriptor = os.open(os.fsencode(python) + b"/" + name, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"far", (5 << 30) + 1)
    os.close(descriptor)
    assert name in os.listdir(os.fsencode(python))
    path = os.fsencode(running.mount) + b"/" + name
    assert os.stat(path).st_size == (5 << 30) + 4
    with open(path, "rb") as file:
        file.seek(5 << 30)
        assert file.read() == b"\0far"
    os.unlink(os.fsencode(python) + b"/" + name)


def test_each_time_is_exact_and_may_stay(python: pathlib.Path) -> None:
    path = python / "times"
    path.touch()
    # 1.073741822 s and .823 s after the epoch: in nanoseconds, what utimensat(2) means by
    # UTIME_OMIT and UTIME_NOW.
    for ns in ((1, 2), ((1 << 30) - 2, (1 << 30) - 1), (-1_500_000_001, 4_000_000_000_123_456_789)):
        os.utime(path, ns=ns)
        info = path.stat()
        assert (info.st_atime_ns, info.st_mtime_ns) == ns
    subprocess.run(["touch", "-a", "-d", "@7.000000009", path], check=True)
    info = path.stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (7_000_000_009, ns[1])
    subprocess.run(["touch", "-m", path], check=True)
    info = path.stat()
    assert info.st_atime_ns == 7_000_000_009
    assert info.st_mtime_ns != ns[1]


def test_space_is_that_of_the_cluster(running: LocalFs3, python: pathlib.Path) -> None:
    mine, native = os.statvfs(python), os.statvfs(running.mount)
    assert (mine.f_blocks, mine.f_bsize) == (native.f_blocks, native.f_bsize)
    assert mine.f_namemax == 255


# ---- its life ----


@pytest.fixture
def place(running: LocalFs3, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mount point that nothing is left on."""
    directory = tmp_path / "place"
    directory.mkdir()
    yield directory
    if mounted_at(os.path.realpath(directory)) is not None:
        running.fs3("umount", "--lazy", str(directory))


def test_it_goes_to_the_background_and_away_by_umount(
    running: LocalFs3, place: pathlib.Path
) -> None:
    # Not through a pipe: the background process keeps the standard error, for what it has to say.
    command = [sys.executable, "-m", "fs3.cli", "mount", str(place), "--frontend", "python"]
    with (running.cluster.logs / "background.log").open("w") as log:
        subprocess.run(
            [*command, "--data", str(running.data)],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
    mount = mounted_at(str(place))
    assert mount is not None
    assert (mount.type, mount.source) == (TYPE, "fs3")
    assert "mounted already" in running.local("mount", str(place), "--frontend", "python", expect=1)
    descriptor = os.open(place, os.O_RDONLY)
    assert "busy" in running.fs3("umount", str(place), expect=1)
    os.close(descriptor)
    running.fs3("umount", str(place))
    assert mounted_at(str(place)) is None


def test_a_full_mount_point_is_refused(running: LocalFs3, place: pathlib.Path) -> None:
    (place / "precious").touch()
    message = running.local("mount", str(place), "--frontend", "python", expect=1)
    assert "not empty" in message


@pytest.mark.parametrize("frontend", ["python", "native"])
def test_the_remains_of_a_killed_mount_are_taken_away(
    running: LocalFs3, place: pathlib.Path, frontend: str
) -> None:
    killed = MountProcess(running, place, "python")
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(OSError) as dead:
        os.stat(place)
    assert dead.value.errno == errno.ENOTCONN
    with mounted(running, place, frontend):
        os.stat(place)


def test_a_signal_keeps_what_busy_files_have_written(
    running: LocalFs3, place: pathlib.Path
) -> None:
    mount = MountProcess(running, place, "python")
    descriptor = os.open(place / "unclosed", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"written, not closed")
    assert mount.stop() == 0
    assert mounted_at(str(place)) is None
    with pytest.raises(OSError):
        os.write(descriptor, b"too late")
    with pytest.raises(OSError):
        os.close(descriptor)
    assert (running.mount / "unclosed").read_bytes() == b"written, not closed"


def test_read_only(running: LocalFs3, place: pathlib.Path) -> None:
    (running.mount / "for-reading").write_text("x")
    with mounted(running, place, "python", "--read-only"):
        assert (place / "for-reading").read_text() == "x"
        with pytest.raises(OSError) as refused:
            (place / "for-reading").write_text("y")
        assert refused.value.errno == errno.EROFS


def test_programs_and_mappings_run_from_it(python: pathlib.Path) -> None:
    program = python / "true"
    shutil.copy("/bin/true", program)
    subprocess.run([program], check=True)
    mapped = python / "mapped"
    mapped.write_bytes(bytes(10_000))
    with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5_000:5_005] = b"store"
        memory.flush()
    assert mapped.read_bytes()[5_000:5_005] == b"store"
