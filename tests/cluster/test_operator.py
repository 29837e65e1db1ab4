"""What a person does to a local cluster besides work: interrupt it, kill its parts, reboot,
mistype."""

import contextlib
import errno
import json
import os
import pathlib
import pty
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fs3.cli.cluster_dir import ClusterDir
from fs3.mount.mounts import mounted_at
from tests.cluster.conftest import COMMAND_TIMEOUT_S, ROOT, LocalFs3


class Foreground:
    """`fs3 up` on a terminal of its own."""

    def __init__(self, fs3: LocalFs3, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "fs3.cli", "up", "--data", str(fs3.data), *arguments]
        command += ["--port", fs3.port]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=fs3.data.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(fs3.data.parent)},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # controlling terminal
        )
        os.close(slave)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Reads what it says; fails when it ends before it said `wanted`."""
        while wanted not in self.text:
            try:
                piece = os.read(self._master, 65536)
            except OSError as error:  # the other side is closed
                assert error.errno == errno.EIO
                piece = b""
            assert piece, f"ended without {wanted!r}:\n{self.text}"
            self.text += piece.decode()

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self) -> int:
        """The exit status, after everything it said was read."""
        with contextlib.suppress(AssertionError):
            self.read_until("\0never said")
        return self.process.wait(COMMAND_TIMEOUT_S)

    def close_terminal(self) -> None:
        os.close(self._master)


def gone(pids: list[int]) -> bool:
    return not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)


def pids_of(cluster: ClusterDir) -> list[int]:
    return [entry["pid"] for entry in cluster.state()["processes"].values()]


def test_ctrl_c_ends_it_in_order(fs3: LocalFs3) -> None:
    terminal = Foreground(fs3, "--mount", str(fs3.mount))
    terminal.read_until("Stop:")
    pids = pids_of(fs3.cluster)
    with (fs3.mount / "not synced").open("wb", buffering=0) as file:
        file.write(b"u" * 100_000)
        terminal.press_ctrl_c()
        assert terminal.wait() == 0
        with pytest.raises(OSError):
            file.write(b"too late")
        with contextlib.suppress(OSError):
            file.close()
    assert "Stopping" in terminal.text
    assert "not synced" in terminal.text, "says who used the mount"
    assert "data kept" in terminal.text
    assert gone(pids)
    assert mounted_at(str(fs3.mount)) is None
    fs3.up()
    assert (fs3.mount / "not synced").read_bytes() == b"u" * 100_000


def test_ctrl_c_while_it_starts(fs3: LocalFs3) -> None:
    fs3.data.mkdir()
    terminal = Foreground(fs3, "--no-mount")
    fs3.wait_for(lambda: fs3.cluster.supervisor() != 0, "the lock is taken")
    terminal.press_ctrl_c()
    assert terminal.wait() in (0, 130)
    assert not fs3.cluster.running()
    fs3.up("--no-mount")


def test_closed_terminal_ends_it_in_order(fs3: LocalFs3) -> None:
    terminal = Foreground(fs3, "--mount", str(fs3.mount))
    terminal.read_until("Stop:")
    pids = pids_of(fs3.cluster)
    terminal.close_terminal()
    terminal.process.send_signal(signal.SIGHUP)
    terminal.process.wait(COMMAND_TIMEOUT_S)
    assert gone(pids)
    assert mounted_at(str(fs3.mount)) is None


def test_deaths_are_said_and_everything_comes_back_where_it_was(fs3: LocalFs3) -> None:
    terminal = Foreground(fs3, "--mount", str(fs3.mount))
    terminal.read_until("Stop:")
    fs3.wait_healthy()
    before = fs3.cluster.state()
    (fs3.mount / "a").write_bytes(b"a" * 3_000_000)
    fs3.local("kill", "mount")  # its keeper starts the next one, and nobody notices
    for name in ("meta", "mgmtd", "storage-1"):
        fs3.local("kill", name)
        terminal.read_until(f"{name} ended (SIGKILL)")

    def back() -> bool:
        state = fs3.cluster.state()["processes"]
        return all(entry["ready"] and entry["pid"] for entry in state.values())

    fs3.wait_for(back, "all processes started again")
    fs3.wait_healthy()
    after = fs3.cluster.state()
    assert after["mgmtd"] == before["mgmtd"]
    addresses = [state["processes"]["meta"]["addresses"] for state in (before, after)]
    assert addresses[0] == addresses[1], "clients that know only this address find it again"
    assert (fs3.mount / "a").read_bytes() == b"a" * 3_000_000
    terminal.press_ctrl_c()
    assert terminal.wait() == 0


def test_rebooted_machine(fs3: LocalFs3) -> None:
    fs3.up()
    (fs3.mount / "a").write_text("hello")
    state = fs3.cluster.state()
    pids = [state["supervisor"], *pids_of(fs3.cluster)]
    mount_pid = state["processes"]["mount"]["pid"]
    for pid in [mount_pid, *pids]:  # the mount first: it must not get the time to unmount
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    fs3.wait_for(lambda: gone(pids), "all gone")
    assert mounted_at(str(fs3.mount)) is not None
    assert "is not running" in fs3.local("ps", expect=1)
    fs3.up()
    assert (fs3.mount / "a").read_text() == "hello"


def test_unwell_is_an_exit_status(fs3: LocalFs3) -> None:
    fs3.up("--no-mount")
    fs3.wait_healthy()
    fs3.local("kill", "--hold", "3600", "storage-2")
    fs3.wait_for(lambda: not fs3.healthy(), "the death is known")
    assert "storage-2 is down" in fs3.local("status", expect=3)
    assert not json.loads(fs3.local("status", "-o", "json", expect=3))["healthy"]
    (fs3.cluster.run / "storage-2.hold").unlink()


def test_two_clusters_at_once(fs3: LocalFs3, tmp_path: pathlib.Path) -> None:
    other = LocalFs3(tmp_path / "z w\u00f6 lf")
    other.data.parent.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "fs3.cli"]
    starts = [
        subprocess.Popen(
            [*command, "up", "-d", "--data", one.data, "--mount", one.mount, *shape],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for one, shape in (
            (fs3, ["--nodes", "1"]),
            (other, ["--nodes", "5", "--replicas", "2"]),
        )
    ]
    said = [start.communicate(timeout=COMMAND_TIMEOUT_S)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    (fs3.mount / "which").write_text("first")
    (other.mount / "which").write_text("other")
    assert (fs3.mount / "which").read_text() == "first"
    assert other.local("cat", "/which") == "other"
    unnamed = [*command, "ps"]
    done = subprocess.run(unnamed, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert f"--data '{other.data}'" in done.stderr, "as one types it into a shell"
    refused = subprocess.run(
        [*command, "down", "--erase"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert refused.returncode == 1
    other.checked_down()
    found = subprocess.run(
        [*command, "down", "--erase"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert found.returncode == 2, "a cluster that was only found is not erased without a word"
    assert fs3.cluster.running()
    assert (fs3.mount / "which").read_text() == "first"


def test_lease_of_an_existing_cluster_changes(fs3: LocalFs3) -> None:
    fs3.up("--no-mount", "--lease-s", "3")
    fs3.down()
    fs3.up("--no-mount", "--lease-s", "6")
    fs3.wait_healthy()
    assert fs3.cluster.load_shape().lease_s == 6
    assert "2" in fs3.local("up", "-d", "--lease-s", "0.5", expect=2)


def test_mount_over_the_data_is_refused(fs3: LocalFs3) -> None:
    for mount in (fs3.data, fs3.data.parent):
        said = fs3.local("up", "-d", "--mount", str(mount), expect=2)
        assert "overlap" in said
    assert not fs3.data.exists()


def test_nothing_runs(fs3: LocalFs3) -> None:
    assert "no cluster is running" in fs3.fs3("down", expect=1)
    assert "holds no cluster" in fs3.local("down", expect=1)
    fs3.up("--no-mount")
    fs3.down()
    assert "was not running" in fs3.down()
    for command in (["ls", "/"], ["ps"], ["status"], ["kill", "meta"], ["info", "/"], ["check"]):
        assert "fs3 up" in fs3.local(*command, expect=1)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "fs3-test", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_nearly_full_at_start(fs3: LocalFs3, small_disk: pathlib.Path) -> None:
    fs3.cluster = ClusterDir(small_disk / "data")
    fs3.data = small_disk / "data"
    filler = small_disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    said = fs3.up("--no-mount", expect=1)
    assert "No space left on device" in said or "full" in said
    assert "Traceback" not in said
    assert not fs3.cluster.running()


def test_garbage_on_metrics_and_grpc_ports(fs3: LocalFs3, tmp_path: pathlib.Path) -> None:
    fs3.up("--no-mount")
    fs3.wait_healthy()
    state = fs3.cluster.state()
    rng = random.Random(11)
    ports = [state["mgmtd"]]
    ports += [entry["metrics"] for entry in state["processes"].values() if entry["metrics"]]
    assert len(ports) > 4, "every daemon has a metrics port"
    for address in ports:
        host, _, port = address.rpartition(":")
        for garbage in (b"\0", b"GET " + b"/" * 100_000, rng.randbytes(50_000), b"\r\n" * 50_000):
            send_garbage(host, int(port), garbage)
    assert fs3.healthy()
    assert pids_of(fs3.cluster) == [entry["pid"] for entry in state["processes"].values()]
    assert "Traceback" not in fs3.logs()


def send_garbage(host: str, port: int, garbage: bytes) -> None:
    """Until the other side has had enough; a reset is an answer."""
    with (
        socket.create_connection((host, port), timeout=10) as connection,
        contextlib.suppress(OSError),
    ):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
