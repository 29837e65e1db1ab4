"""Rings of shared memory on a real mount, used as programs written for 3FS use them."""

import contextlib
import errno
import mmap
import os
import pathlib
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from fs3.mount.mounts import mounted_at
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted
from tests.cluster.test_takeover import kill_server
from tests.cluster.usrbio.programs import USRBIO, compiled, example

SOURCES = pathlib.Path(__file__).parent / "usrbio"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    into = tmp_path_factory.mktemp("programs")
    return {path.stem: compiled(path, into) for path in SOURCES.glob("*.c")}


def registered(fs3: LocalFs3) -> list[str]:
    return os.listdir(fs3.mount / "3fs-virt" / "iovs")


class Worker:
    """worker.c at work in FILE."""

    def __init__(self, program: pathlib.Path, fs3: LocalFs3, file: str, seed: int) -> None:
        self.process = subprocess.Popen(
            [program, fs3.mount, fs3.mount / file, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_round(self) -> None:
        """It has made one more. Fails with what it says when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()

    def finish(self) -> None:
        _, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors.decode()


@contextlib.contextmanager
def open_directory(path: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def working(
    programs: dict[str, pathlib.Path], fs3: LocalFs3, names: list[str]
) -> Iterator[list[Worker]]:
    workers = [Worker(programs["worker"], fs3, name, i) for i, name in enumerate(names)]
    try:
        yield workers
    finally:
        for worker in workers:
            with worker.process:
                worker.process.kill()


def test_every_function_keeps_its_conventions(
    running: LocalFs3, programs: dict[str, pathlib.Path]
) -> None:
    directory = running.mount / "abi"
    directory.mkdir()
    done = subprocess.run(
        [programs["abi"], running.mount, directory],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + running.logs()
    assert registered(running) == []


def test_the_library_needs_nothing_but_libc() -> None:
    library = USRBIO / "lib" / "libhf3fs_api_shared.so"
    said = subprocess.check_output(["readelf", "-d", library], text=True)
    assert re.findall(r"SONAME.*\[(.*)\]", said) == ["libhf3fs_api_shared.so"]
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", said))
    assert needed <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}
    exported = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    names = {line.split()[-1] for line in exported.splitlines()}
    header = (USRBIO / "include" / "hf3fs_usrbio.h").read_text()
    declared = set(re.findall(r"^\w[\w *]*\b((?:hf3fs|fs3)_\w+)\(", header, re.MULTILINE))
    assert names == declared


def test_many_processes_at_once(running: LocalFs3, programs: dict[str, pathlib.Path]) -> None:
    names = [f"many{i}" for i in range(4)]
    with working(programs, running, names) as workers:
        for _ in range(5):
            for worker in workers:
                worker.wait_round()
        assert len(registered(running)) == 3 * len(workers)
        for worker in workers:
            worker.finish()
    assert registered(running) == []


def test_what_a_killed_program_had_is_gone(
    running: LocalFs3, programs: dict[str, pathlib.Path]
) -> None:
    """In the middle of its batches; the others go on."""
    with working(programs, running, ["killed0", "killed1", "stays"]) as workers:
        for worker in workers:
            worker.wait_round()
        before = {name for name in os.listdir("/dev/shm") if name.startswith("fs3-iov-")}
        for worker in workers[:2]:
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()
        running.wait_for(lambda: len(registered(running)) == 3, "only one program's names")
        gone = before - set(os.listdir("/dev/shm"))
        assert len(gone) == 2
        for _ in range(3):
            workers[2].wait_round()
        workers[2].finish()
    running.wait_for(lambda: registered(running) == [], "no names")


def test_a_program_that_does_everything_wrong_hurts_nobody(
    running: LocalFs3, programs: dict[str, pathlib.Path]
) -> None:
    with working(programs, running, ["sane"]) as workers:
        workers[0].wait_round()
        for i in range(3):
            command = [programs["abandoner"], running.mount, running.mount / f"insane{i}"]
            done = subprocess.run(command, timeout=120, check=False)
            assert done.returncode == 0
            workers[0].wait_round()
        workers[0].finish()
    running.wait_for(lambda: registered(running) == [], "no names")


def test_memory_is_registered_by_a_symlink(running: LocalFs3) -> None:
    iovs = running.mount / "3fs-virt" / "iovs"
    shm = pathlib.Path(f"/dev/shm/fs3-test-{uuid.uuid4()}")
    name = str(uuid.uuid4())
    shm.write_bytes(bytes(mmap.PAGESIZE))
    try:
        os.symlink(shm, iovs / name)
        assert os.readlink(iovs / name) == str(shm)
        with pytest.raises(FileExistsError):
            os.symlink(shm, iovs / f"{name}.b4096")
    finally:
        shm.unlink()
    assert os.listdir(iovs) == [name]
    info = os.lstat(iovs / name)
    assert info.st_mode & 0o7777 == 0o400
    assert info.st_uid == os.getuid()
    os.unlink(iovs / name)
    assert os.listdir(iovs) == []
    for target, name, error in (
        (shm, str(uuid.uuid4()), errno.ENOENT),
        ("/etc/hostname", str(uuid.uuid4()), errno.EINVAL),
        (shm, "x", errno.EINVAL),
    ):
        with pytest.raises(OSError) as told:
            os.symlink(target, iovs / name)
        assert told.value.errno == error
    with pytest.raises(PermissionError):
        (iovs / "file").touch()


def test_rings_go_on_when_the_server_is_killed_or_replaced(
    running: LocalFs3, programs: dict[str, pathlib.Path]
) -> None:
    """What was under way is done again by the next process; the programs notice nothing."""
    with working(programs, running, ["over0", "over1"]) as workers:
        for _ in range(3):
            for worker in workers:
                worker.wait_round()
            kill_server(running)
        for worker in workers:
            worker.wait_round()
        running.fs3("mount", "--upgrade", str(running.mount))
        for _ in range(20):  # some were in the pipe before
            for worker in workers:
                worker.wait_round()
        assert len(registered(running)) == 3 * len(workers)
        workers[0].process.send_signal(signal.SIGKILL)
        kill_server(running)
        workers[1].finish()
    running.wait_for(lambda: registered(running) == [], "no names")


def test_the_end_of_the_mount_is_told(
    running: LocalFs3, programs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    with mounted(running, tmp_path / "ends", "native", "--no-survive") as mount:
        worker = subprocess.Popen(
            [programs["worker"], mount.place, mount.place / "ends", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with worker:
            assert worker.stdout is not None
            assert worker.stderr is not None
            assert worker.stdout.readline()
            mount.process.send_signal(signal.SIGTERM)
            assert worker.wait(120) == 1
            assert re.search(rf"-({errno.ENOTCONN}|{errno.ESHUTDOWN})$", worker.stderr.read())
        mount.process.wait()


def test_the_examples_of_the_page_do_what_they_say(
    running: LocalFs3, tmp_path: pathlib.Path
) -> None:
    path = running.mount / "example"
    path.write_bytes(b"".join(bytes([i + 1]) * (1 << 20) for i in range(15)) + b"\x10")
    (tmp_path / "example.c").write_text(example("c"))
    program = compiled(tmp_path / "example.c", tmp_path)
    said = subprocess.check_output([program, path], text=True)
    assert said.split() == [str(i + 1) for i in range(16)]
    said = subprocess.check_output([sys.executable, "-c", example("python"), path], text=True)
    assert sorted(map(int, said.split()[1::2])) == list(range(1, 17))


def test_a_mount_of_the_type_of_3fs(
    running: LocalFs3, programs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    with mounted(running, tmp_path / "typed", "native", "-o", "hf3fs") as mount:
        found = mounted_at(str(mount.place))
        assert found is not None
        assert found.type == "fuse.hf3fs"
        directory = mount.place / "typed"
        directory.mkdir()
        subprocess.run([programs["abi"], mount.place, directory], check=True, timeout=120)


def test_a_write_by_an_ordinary_user_takes_setuid_away(
    running: LocalFs3, programs: dict[str, pathlib.Path]
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to be two users")
    path = running.mount / "setuid"
    for uid, kept in ((0, 0o4777), (1000, 0o777)):
        path.touch()
        path.chmod(0o4777)
        # The directories above are root's alone: what is needed of them is opened before.
        with open_directory(running.mount) as mount:
            here = f"/proc/self/fd/{mount}"
            command = [programs["writer"], here, f"{here}/setuid", str(uid)]
            subprocess.run(command, pass_fds=[mount], check=True, timeout=60)
        assert path.stat().st_mode & 0o7777 == kept
        assert path.read_bytes() == b"x" * 10_000
