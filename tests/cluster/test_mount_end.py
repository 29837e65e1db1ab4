"""The end of a mount's process, however it comes."""

import contextlib
import mmap
import os
import pathlib
import signal

from fs3.mount.keeper import mount_server
from tests.cluster.conftest import LocalFs3


def pid_of(fs3: LocalFs3, name: str) -> int:
    return int(fs3.cluster.state()["processes"][name]["pid"])


def children(pid: int) -> str:
    tasks = pathlib.Path(f"/proc/{pid}/task")
    try:
        return "".join((task / "children").read_text() for task in tasks.iterdir())
    except OSError:
        return ""


def test_a_mount_killed_while_it_waits_for_its_own_requests_is_gone(fs3: LocalFs3) -> None:
    """Once its own thread waited for the write-back of a mapped page, and the process, killed
    meanwhile, stayed for ever: unkillable, with its mount."""
    fs3.up()
    fs3.wait_healthy()
    storages = [pid_of(fs3, f"storage-{number}") for number in (1, 2, 3)]
    mount = pid_of(fs3, "mount")
    path = fs3.mount / "mapped"
    path.write_bytes(bytes(8192))
    try:
        # The open file dies with its mount: its close says so.
        with (
            contextlib.suppress(OSError),
            path.open("r+b") as file,
            mmap.mmap(file.fileno(), 8192) as memory,
        ):
            memory[:4] = b"wait"  # a dirty page; nothing below may touch the mapping
            for pid in storages:
                os.kill(pid, signal.SIGSTOP)
            server = mount_server(mount)
            os.kill(mount, signal.SIGTERM)
            fs3.wait_for(lambda: children(server) != "", "the mount waits for its write-back")
            os.kill(server, signal.SIGKILL)
            fs3.wait_for(lambda: pid_of(fs3, "mount") not in (mount, 0), "another mount process")
            assert not pathlib.Path(f"/proc/{server}").exists()
    finally:
        for pid in storages:
            os.kill(pid, signal.SIGCONT)
    fs3.wait_healthy()
    fs3.wait_for(lambda: os.path.isfile(path), "the mount is back")
