"""The processes of the cluster under test: started, killed, stopped, continued, restarted."""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from fs3.cli.check import storage_admin
from fs3.cli.cluster import query_status, report_exit
from fs3.cli.cluster_dir import ClusterDir
from fs3.mount.keeper import mount_server
from fs3.runtime.clock import RealClock
from fs3.storage.checker import check
from tests.nemesis.failure import Failure
from tests.nemesis.hosts import Hosts

__all__ = ["Cluster", "wait_for"]

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY_S = 60.0
FIRST_NODE = 101
CONTROL = "control"  # the host of the nemesis itself


@dataclass
class _Process:
    host: str
    command: list[str]
    popen: subprocess.Popen[bytes] | None = None
    ready: dict[str, str] = field(default_factory=dict)
    stopped: bool = False  # by SIGSTOP


class Cluster:
    """`storages` storage servers, one manager, one metadata service, and mounts "a" and "b".

    Thread-safe. Names: mgmtd, meta, storage-1.., mount-a, mount-b; each on the host of its name.
    """

    def __init__(
        self, directory: pathlib.Path, hosts: Hosts, storages: int, lease_s: float
    ) -> None:
        self.directory = directory
        self.hosts = hosts
        self.lease_s = lease_s
        self.storages = [f"storage-{number}" for number in range(1, storages + 1)]
        self._lock = threading.RLock()
        self._processes: dict[str, _Process] = {}
        self._cluster = ClusterDir(directory)
        self.mgmtd = f"{hosts.address('mgmtd')}:7201"

    @staticmethod
    def host_names(storages: int) -> list[str]:
        servers = [f"storage-{number}" for number in range(1, storages + 1)]
        return [CONTROL, "mgmtd", "meta", *servers, "mount-a", "mount-b"]

    def start(self) -> None:
        from fs3.auth.keyring import Keyring

        Keyring.create(self._cluster.keyring)
        nodes = [str(FIRST_NODE + index) for index in range(len(self.storages))]
        shape = ["--storage-nodes", ",".join(nodes), "--replicas", "3"]
        limits = ["--lease-s", str(self.lease_s), "--insecure-network"]
        self._serve("mgmtd", ["--grpc", self.mgmtd, *shape, *limits])
        self._serve("meta", ["--node-id", "2", *self._native("meta", 7202), "--gc-delay-s", "1"])
        for index, name in enumerate(self.storages):
            self._serve(name, ["--node-id", nodes[index], *self._native(name, 7211 + index)])
        for name in ("mount-a", "mount-b"):
            self.mount(name)
        self.wait_healthy()

    def _native(self, host: str, port: int) -> list[str]:
        options = ["--listen", f"tcp://{self.hosts.address(host)}:{port}", "--mgmtd", self.mgmtd]
        return [*options, "--keyring", str(self._cluster.keyring)]

    def _serve(self, name: str, options: list[str]) -> None:
        role = name.partition("-")[0]
        command = ["serve", role, "--name", name, "--data", str(self.directory / name), *options]
        self._processes[name] = _Process(name, command)
        self.restart(name)

    # ---- mounts ----

    def mount(self, name: str) -> pathlib.Path:
        """A mount by a process of its own, on the host of that name."""
        point = self.point(name)
        point.mkdir(exist_ok=True)
        command = ["mount", str(point), "--mgmtd", self.mgmtd, "--foreground"]
        self._processes[name] = _Process(name, command)
        self.restart(name)
        return point

    def point(self, name: str) -> pathlib.Path:
        return self.directory / name

    def remount(self, name: str) -> None:
        """Ends a mount and makes it again: everything that its process had cached is gone."""
        self.end(name)
        self.restart(name)

    # ---- processes ----

    def restart(self, name: str) -> None:
        """Starts it and waits until it serves. Nothing when it runs."""
        with self._lock:
            process = self._processes[name]
            if process.popen is not None and process.popen.poll() is None:
                return
            reader, writer = os.pipe()
            python = [sys.executable, "-m", "fs3.cli", *process.command, "--ready-fd", str(writer)]
            with (self.directory / f"{name}.log").open("ab") as log:
                process.popen = subprocess.Popen(
                    self.hosts.command(process.host, python),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writer],
                    cwd=self.directory,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            os.close(writer)
            process.stopped = False
        with os.fdopen(reader, "rb") as pipe:
            line = pipe.readline() if select.select([pipe], [], [], READY_S)[0] else b""
        if line:
            process.ready = dict(json.loads(line))

    def kill(self, name: str, *, proven: bool = False) -> None:
        """SIGKILL, a mount with the process that its keeper runs. `proven`: mgmtd is told, as a
        supervisor does."""
        with self._lock:
            process = self._processes[name]
            popen, process.stopped = process.popen, False
        if popen is None or popen.poll() is not None:
            return
        server = mount_server(popen.pid)
        popen.kill()
        popen.wait()
        if server:
            with contextlib.suppress(ProcessLookupError):  # it ends by itself without its keeper
                os.kill(server, signal.SIGKILL)
        if proven and process.ready.get("incarnation"):
            incarnation = bytes.fromhex(process.ready["incarnation"])
            report_exit(self.mgmtd, int(process.ready["node_id"]), incarnation, -signal.SIGKILL)

    def pause(self, name: str) -> None:
        with self._lock:
            process = self._processes[name]
            if process.popen is not None and process.popen.poll() is None:
                process.popen.send_signal(signal.SIGSTOP)
                process.stopped = True

    def go_on(self, name: str) -> None:
        with self._lock:
            process = self._processes[name]
            if process.stopped and process.popen is not None:
                process.popen.send_signal(signal.SIGCONT)
                process.stopped = False

    def end(self, name: str) -> None:
        """SIGTERM, and it must end."""
        process = self._processes[name]
        if process.popen is None or process.popen.poll() is not None:
            return
        process.popen.terminate()
        try:
            process.popen.wait(60)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end within 60 s of SIGTERM") from None

    def heal(self) -> None:
        """No cut, nothing stopped, everything runs."""
        self.hosts.mend()
        for name in self._processes:
            self.go_on(name)
        for name in self._processes:
            self.restart(name)

    def dump(self) -> None:
        """Every process dumps stacks and statistics into its log; sockets.txt has the sockets."""
        with (self.directory / "sockets.txt").open("wb") as file:
            for host in self.host_names(len(self.storages)):
                file.write(f"== {host}\n".encode())
                file.flush()
                command = self.hosts.command(
                    host, ["ss", "--tcp", "--all", "--numeric", "--options"]
                )
                subprocess.run(command, stdout=file, stderr=file, check=False)
        for process in self._processes.values():
            if process.popen is not None and process.popen.poll() is None:
                process.popen.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        self.hosts.mend()
        for name in reversed(self._processes):
            self.go_on(name)
            with contextlib.suppress(Failure):
                self.end(name)
        for name in list(self._processes):
            self.kill(name)
        for name in ("mount-a", "mount-b"):
            subprocess.run(["umount", "-l", str(self.point(name))], capture_output=True)

    # ---- what the cluster says of itself ----

    def healthy(self) -> bool:
        with contextlib.suppress(click.ClickException):
            return query_status(self.mgmtd).healthy
        return False

    def wait_healthy(self, timeout_s: float = 90.0) -> None:
        wait_for(self.healthy, "full replication of every chain", timeout_s)

    def replicas_equal(self) -> int:
        """Bytes of every chunk on all its targets; how many chunks there are."""
        self.wait_healthy()
        routing = query_status(self.mgmtd).routing
        admin = storage_admin(self._cluster, routing)
        report = check(routing, admin, clock=RealClock(), deep=True)
        if not report.ok:
            raise Failure(f"replicas differ: {report}")
        return report.chunks


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            raise Failure(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.1)
