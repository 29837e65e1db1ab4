"""The manager and three storage servers as real processes, with two chains of three; no mount."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys

from fs3._proto import common_pb2
from fs3.auth.keyring import Keyring
from fs3.cli.cluster import report_exit
from fs3.runtime.clock import RealClock
from fs3.runtime.membership import RoutingWatcher
from tests.cluster.storage_rig import SERVING, wait_for

__all__ = ["LEASE_S", "NODES", "SHAPE", "Processes"]

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = (1, 2, 3)
SHAPE = ("--storage-nodes", "1,2,3", "--replicas", "3", "--chains", "2")
LEASE_S = 2.0
READY_S = 30


class Processes:
    """`fs3 serve mgmtd` and one `fs3 serve storage` per node, with two chains of three."""

    def __init__(
        self, directory: pathlib.Path, lease_s: float = LEASE_S, storage: tuple[str, ...] = ()
    ) -> None:
        """`storage`: further options of every storage server."""
        self.directory = directory
        self._lease_s = lease_s
        self._storage = storage
        self.instance_id = os.urandom(16)
        self.keyring = Keyring.create(directory / "keyring")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.routing = common_pb2.RoutingInfo()
        self.manager = self.start_managers()
        self.incarnations: dict[int, str] = {}
        self.states: dict[int, list[int]] = {node: [] for node in NODES}  # of chain 1, as told
        self.watcher = RoutingWatcher(self.manager, self._set_routing, clock=RealClock())
        self.watcher.start()
        for node in NODES:
            self.start(node)

    def start_managers(self) -> str:
        """Their addresses."""
        return self.serve("mgmtd", *SHAPE, "--lease-s", str(self._lease_s))["grpc"]

    def _set_routing(self, routing: common_pb2.RoutingInfo) -> None:
        self.routing = routing
        for target in routing.chains[0].targets:
            seen = self.states[target.node_id]
            if not seen or seen[-1] != target.state:
                seen.append(target.state)

    def start(self, node: int, environment: dict[str, str] | None = None) -> None:
        options = ["--node-id", str(node), "--mgmtd", self.manager]
        options += ["--keyring", str(self.directory / "keyring"), *self._storage]
        ready = self.serve("storage", *options, name=f"storage-{node}", environment=environment)
        self.incarnations[node] = ready["incarnation"]

    def serve(
        self,
        role: str,
        *options: str,
        name: str = "",
        environment: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Starts a daemon and returns its ready line."""
        name = name or role
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fs3.cli", "serve", role, "--name", name]
        if "--kv" not in options:
            command += ["--data", str(self.directory / name)]
        command += ["--ready-fd", str(writer), *options]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            )
        os.close(writer)
        with os.fdopen(reader, "rb") as ready:
            assert select.select([ready], [], [], READY_S)[0], f"{name}: {self.logs()}"
            line = ready.readline()
        assert line, f"{name} did not start: {self.logs()}"
        return dict(json.loads(line))

    def kill(self, node: int) -> None:
        process = self.processes.pop(f"storage-{node}")
        process.kill()
        process.wait()

    def kill_proven(self, node: int) -> None:
        """As a supervisor does: the exit is seen and reported."""
        self.kill(node)
        report_exit(self.manager, node, bytes.fromhex(self.incarnations[node]), -signal.SIGKILL)

    def state(self, node: int) -> int:
        return self.states[node][-1]

    def signal(self, node: int, number: int) -> None:
        self.processes[f"storage-{node}"].send_signal(number)

    def serving(self) -> list[int]:
        """How many replicas serve, of each chain."""
        return [
            sum(target.state == SERVING for target in chain.targets)
            for chain in self.routing.chains
        ]

    def wait_serving(self, count: int) -> None:
        wait_for(f"{count} replicas serve", lambda: set(self.serving()) == {count})

    def close(self) -> None:
        self.watcher.stop()
        self.stop_all()

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-3000:]}"
            for path in sorted(self.directory.glob("*.log"))
        )
