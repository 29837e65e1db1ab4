"""The keeper with servers that only pretend: what it hands on, when it starts another one, when it
ends. Real mounts: tests/cluster/test_takeover.py."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

SERVER = """
import json, os, pathlib, signal, sys
from fs3.mount.keeper import Link

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
log, keeper = pathlib.Path(sys.argv[1]), Link(int(arguments["--keeper-fd"]))
inherited = [int(part) for part in arguments.get("--inherited", "").split(",") if part]
content = [os.pread(descriptor, 100, 0).decode() for descriptor in inherited]
with log.open("a") as file:
    file.write(json.dumps(content) + "\\n")
turn = len(log.read_text().splitlines())
"""

MEMORY = """
def memory(text):
    descriptor = os.memfd_create(text)
    os.pwrite(descriptor, text.encode(), 0)
    return descriptor
"""

KEEPER = """
import pathlib, sys
from fs3.mount.keeper import Keeper
from fs3.runtime.clock import RealClock

keeper = Keeper(pathlib.Path(sys.argv[1]), [sys.executable, "-c", sys.argv[2]], [sys.argv[3]],
                RealClock())
sys.exit(keeper.run(int(sys.argv[4])))
"""


def keep(tmp_path: pathlib.Path, server: str) -> tuple[subprocess.Popen[bytes], int]:
    """A keeper whose servers run that code, and the pipe that hears when it is ready."""
    reader, writer = os.pipe()
    code = SERVER + MEMORY + textwrap.dedent(server)
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(tmp_path), code, str(tmp_path / "log"), str(writer)],
            pass_fds=[writer],
            cwd=ROOT,
            stderr=stderr,
        )
    os.close(writer)
    return process, reader


def lines(tmp_path: pathlib.Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def test_the_next_server_gets_the_descriptors_of_the_one_that_was_killed(tmp_path):
    process, reader = keep(
        tmp_path,
        """
        if turn == 1:
            keeper.announce([memory("state"), memory("device")])
            os.kill(os.getpid(), signal.SIGKILL)
        elif turn == 2:
            os.kill(os.getpid(), signal.SIGKILL)  # before it serves
        keeper.announce(inherited)
        """,
    )
    with os.fdopen(reader) as pipe:
        assert json.loads(pipe.readline())["pid"] == process.pid
    assert process.wait(60) == 0, (tmp_path / "stderr").read_text()
    assert lines(tmp_path) == [[], ["state", "device"], ["state", "device"]]


def test_a_server_that_is_killed_and_cannot_end_is_not_waited_for(tmp_path):
    """One of its threads is in the kernel and waits for what only the next server answers. Here it
    sleeps; the main thread ends alone (exit, without the others)."""
    process, reader = keep(
        tmp_path,
        """
        if turn == 1:
            import ctypes, threading, time
            keeper.announce([memory("state")])
            threading.Thread(target=time.sleep, args=(600,)).start()
            exit_thread = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
            ctypes.CDLL(None).syscall(exit_thread, 0)
        keeper.announce(inherited)
        """,
    )
    assert process.wait(60) == 0, (tmp_path / "stderr").read_text()
    os.close(reader)
    assert lines(tmp_path) == [[], ["state"]]


def test_a_server_that_cannot_mount_ends_the_keeper(tmp_path):
    process, reader = keep(tmp_path, "sys.exit(3)")
    assert process.wait(60) == 3
    assert os.read(reader, 100) == b""
    os.close(reader)
    assert len(lines(tmp_path)) == 1


def test_one_that_dies_again_and_again_is_given_up(tmp_path):
    process, reader = keep(
        tmp_path,
        """
        keeper.announce(inherited or [memory("state")])
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert process.wait(120) == 1
    os.close(reader)
    assert len(lines(tmp_path)) == 10


@pytest.mark.parametrize("status", [0, 5])
def test_a_signal_is_passed_on_and_ends_both(tmp_path, status):
    process, reader = keep(
        tmp_path,
        f"""
        signal.signal(signal.SIGTERM, lambda *_: os._exit({status}))
        keeper.announce([memory("state")])
        while True:
            signal.pause()
        """,
    )
    with os.fdopen(reader) as pipe:
        pipe.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == status
    assert len(lines(tmp_path)) == 1


def test_a_server_without_its_keeper_hears_of_it(tmp_path):
    process, reader = keep(
        tmp_path,
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that only the socket tells
        keeper.announce([memory("state")])
        if not keeper.wait():
            log.with_name("gone").touch()
        """,
    )
    with os.fdopen(reader) as pipe:
        pipe.readline()
    process.kill()
    process.wait(60)
    for _ in range(600):
        if (tmp_path / "gone").exists():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the server waits for ever")
