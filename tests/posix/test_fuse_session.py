"""Real file operations through the FUSE session, classic and over io_uring, on the memory file
system: everything here is between the kernel and native/fuse."""

import concurrent.futures
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import random
import stat
import subprocess

import pytest

from fs3 import _native

pytestmark = pytest.mark.timeout(120)
Mounted = tuple[pathlib.Path, _native.FuseMount]
MIB = 1 << 20


def as_nobody(place: pathlib.Path, command: str) -> str:
    """Output of a shell command run by a user without any right of its own."""
    for parent in place.parents:
        os.chmod(parent, os.stat(parent).st_mode | stat.S_IXOTH)
    done = subprocess.run(
        ["sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=65534,
        group=65534,
        extra_groups=[],
        check=False,
        timeout=30,
    )
    return done.stdout


def test_create_write_read_and_remove(memory_mount: Mounted) -> None:
    place, mount = memory_mount
    (place / "a").write_bytes(b"hello")
    assert (place / "a").read_bytes() == b"hello"
    with open(place / "a", "ab") as file:
        file.write(b" world")
    assert (place / "a").read_bytes() == b"hello world"
    (place / "a").unlink()
    assert not (place / "a").exists()
    operations = mount.operations()
    assert operations["create"]["count"] == 1
    assert sum(operations["create"]["buckets"]) == 1


def test_large_random_content_by_every_way_of_reading(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    data = random.Random(1).randbytes(9 * MIB + 12_345)
    path = place / "big"
    path.write_bytes(data)
    assert path.read_bytes() == data
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(descriptor, 100_000, 3 * MIB - 7) == data[3 * MIB - 7 :][:100_000]
        assert os.pread(descriptor, 10, len(data)) == b""
    finally:
        os.close(descriptor)


def test_direct_io_and_page_cache_see_the_same_bytes(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    path = place / "direct"
    source = mmap.mmap(-1, 2 * MIB)  # page aligned, as O_DIRECT wants it
    source.write(random.Random(2).randbytes(2 * MIB))
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    try:
        assert os.pwrite(descriptor, source, 0) == 2 * MIB
        assert os.pwrite(descriptor, memoryview(source)[: 64 << 10], 4 * MIB) == 64 << 10
        target = mmap.mmap(-1, MIB)
        assert os.preadv(descriptor, [target], MIB) == MIB
        assert target[:] == source[MIB:]
    finally:
        os.close(descriptor)
    content = path.read_bytes()
    assert content[: 2 * MIB] == source[:]
    assert content[2 * MIB : 4 * MIB] == bytes(2 * MIB), "a hole is zeros"
    assert content[4 * MIB :] == source[: 64 << 10]


def test_shared_mapping_is_written_back(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    path = place / "mapped"
    path.write_bytes(b"x" * 300_000)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[100_000:100_005] = b"dirty"
        mapping.flush()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        target = mmap.mmap(-1, MIB)
        length = os.preadv(descriptor, [target], 0)
        assert length == 300_000
        assert target[100_000:100_005] == b"dirty"
    finally:
        os.close(descriptor)


def test_mapping_of_a_direct_file(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    path = place / "direct-mapped"
    path.write_bytes(b"y" * 8192)
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        with mmap.mmap(descriptor, 8192) as mapping:
            assert mapping[:2] == b"yy"
            mapping[0:2] = b"zz"
    finally:
        os.close(descriptor)
    assert path.read_bytes()[:4] == b"zzyy"


def test_listing_ten_thousand_entries(memory_mount: Mounted) -> None:
    place, mount = memory_mount
    directory = place / "many"
    directory.mkdir()
    names = {f"entry-{number:05d}-{'n' * (number % 200)}" for number in range(10_000)}
    for name in names:
        (directory / name).touch()
    assert set(os.listdir(directory)) == names
    with os.scandir(directory) as entries:
        assert all(entry.is_file() and entry.stat().st_size == 0 for entry in entries)
    assert mount.operations()["readdirplus"]["count"] > 0
    for entry in os.scandir(directory):  # removing while listing loses nothing
        os.unlink(entry.path)
    assert os.listdir(directory) == []
    directory.rmdir()


def test_rename_replaces_exchanges_and_refuses(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    (place / "dir").mkdir()
    rename2 = ctypes.CDLL(None, use_errno=True).renameat2

    def rename(old: str, new: str, flags: int) -> int:
        result = rename2(-100, bytes(place / old), -100, bytes(place / new), flags)
        return ctypes.get_errno() if result else 0

    assert rename("a", "b", 1) == errno.EEXIST
    assert rename("a", "b", 2) == 0
    assert (place / "a").read_text() == "b"
    os.rename(place / "a", place / "b")
    assert (place / "b").read_text() == "b"
    os.rename(place / "b", place / "dir" / "c")
    with pytest.raises(OSError) as caught:
        os.rename(place / "dir", place / "dir" / "inside")
    assert caught.value.errno == errno.EINVAL
    assert os.listdir(place) == ["dir"]


def test_links_and_modes(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    (place / "file").write_text("content")
    os.symlink("file", place / "soft")
    os.link(place / "file", place / "hard")
    assert os.readlink(place / "soft") == "file"
    assert (place / "soft").read_text() == "content"
    assert os.stat(place / "hard").st_nlink == 2
    os.chmod(place / "file", 0o640)
    assert stat.S_IMODE(os.stat(place / "hard").st_mode) == 0o640
    os.utime(place / "file", ns=(1_000_000_001, 2_000_000_002))
    info = os.stat(place / "file")
    assert (info.st_atime_ns, info.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    os.truncate(place / "file", 3)
    assert (place / "hard").read_text() == "con"
    os.truncate(place / "file", 10)
    assert (place / "hard").read_bytes() == b"con" + bytes(7)
    os.mkfifo(place / "fifo")
    assert stat.S_ISFIFO(os.stat(place / "fifo").st_mode)
    target = "t" * 4000
    os.symlink(target, place / "long")
    assert os.readlink(place / "long") == target


def test_umask_is_applied_once(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    before = os.umask(0o027)
    try:
        (place / "file").touch(0o666)
        (place / "dir").mkdir(0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(place / "file").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(place / "dir").st_mode) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_is_kept_out_by_the_mode_of_a_cached_directory(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    (place / "private").mkdir(0o700)
    (place / "private" / "file").write_text("secret")
    (place / "private" / "file").chmod(0o644)
    assert (place / "private" / "file").read_text() == "secret"
    (place / "public").write_text("open")
    assert as_nobody(place, f"cat {place}/public") == "open"
    assert "Permission denied" in as_nobody(place, f"cat {place}/private/file")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_setuid_goes_when_somebody_else_writes(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    path = place / "program"
    path.write_text("x")
    path.chmod(0o4777)
    assert as_nobody(place, f"echo y >> {path}") == ""
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777


def test_open_file_outlives_its_name(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    with open(place / "gone", "w+b") as file:
        file.write(b"still here")
        file.flush()
        os.unlink(place / "gone")
        file.seek(0)
        assert file.read() == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert os.listdir(place) == []


def test_statfs_and_unsupported_operations(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    numbers = os.statvfs(place)
    assert numbers.f_blocks * numbers.f_frsize == 1 << 30
    assert numbers.f_namemax == 255
    with pytest.raises(OSError) as caught:
        os.setxattr(place, "user.x", b"1")
    assert caught.value.errno == errno.ENOTSUP
    with pytest.raises(OSError) as caught:
        (place / ("n" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG
    path = place / "sparse"
    path.touch()
    os.truncate(path, 3 * MIB)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert os.lseek(descriptor, 10, os.SEEK_DATA) == 10
        assert os.lseek(descriptor, 10, os.SEEK_HOLE) == 3 * MIB
        with pytest.raises(OSError):
            os.lseek(descriptor, 3 * MIB, os.SEEK_DATA)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_many_threads_on_own_and_shared_files(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    shared = place / "shared"
    block = 64 << 10
    shared.write_bytes(bytes(16 * block))

    def work(number: int) -> None:
        generator = random.Random(number)
        own = place / f"own-{number}"
        for round_ in range(20):
            data = generator.randbytes(generator.randrange(1, 200_000))
            own.write_bytes(data)
            assert own.read_bytes() == data
            os.rename(own, place / f"moved-{number}")
            os.rename(place / f"moved-{number}", own)
            descriptor = os.open(shared, os.O_RDWR)
            try:
                mine = bytes([number, round_]) * (block // 2)
                os.pwrite(descriptor, mine, number * block)
                assert os.pread(descriptor, block, number * block) == mine
            finally:
                os.close(descriptor)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(work, number) for number in range(16)]:
            done.result()
    content = shared.read_bytes()
    assert all(content[n * block] == n and content[n * block + 1] == 19 for n in range(16))


def test_killed_reader_leaves_the_mount_usable(memory_mount: Mounted) -> None:
    place, _ = memory_mount
    (place / "zeros").touch()
    os.truncate(place / "zeros", 512 * MIB)
    reader = subprocess.Popen(
        ["dd", f"if={place / 'zeros'}", "of=/dev/null", "bs=1M", "iflag=direct"],
        stderr=subprocess.DEVNULL,
    )
    reader.kill()
    reader.wait(30)
    (place / "after").write_text("fine")
    assert (place / "after").read_text() == "fine"


def test_unmount_from_outside_ends_the_mount(memory_mount: Mounted) -> None:
    place, mount = memory_mount
    assert mount.running()
    assert not mount.wait(0.0)
    _native.fuse_unmount(str(place))
    assert mount.wait(30.0)
    assert not mount.running()


def test_stop_without_force_refuses_while_in_use(memory_mount: Mounted) -> None:
    place, mount = memory_mount
    with open(place / "open", "w") as file:
        with pytest.raises(OSError) as caught:
            mount.stop(force=False)
        assert caught.value.errno == errno.EBUSY
        file.write("still works")
    assert (place / "open").read_text() == "still works"
    mount.stop(force=False)
    assert not os.path.ismount(place)


def test_force_ends_users_with_an_error_instead_of_a_hang(memory_mount: Mounted) -> None:
    place, mount = memory_mount
    descriptor = os.open(place / "open", os.O_CREAT | os.O_RDWR)
    try:
        mount.stop(force=True)
        with pytest.raises(OSError) as caught:
            os.pwrite(descriptor, b"x", 0)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    finally:
        os.close(descriptor)
