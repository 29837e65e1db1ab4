"""Real clusters for the tests: `fs3 up` in an own directory, checked and stopped at the end."""

import os
import pathlib
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from fs3.cli.cluster_dir import ClusterDir
from fs3.mount.mounts import mounted_at
from fs3.mount.umount import unmount

COMMAND_TIMEOUT_S = 120
ROOT = pathlib.Path(__file__).resolve().parents[2]


class LocalFs3:
    """One local cluster under test. Every command must succeed unless it is asked otherwise."""

    def __init__(self, base: pathlib.Path) -> None:
        self.data = base / "data"
        self.mount = base / "mount"
        self.cluster = ClusterDir(self.data)
        # Far from the ports that somebody works with on this machine, below the ephemeral ones.
        self.port = str(10_000 + zlib.crc32(bytes(base)) % 20_000)

    def fs3(self, *arguments: str, expect: int = 0) -> str:
        """Output of `fs3 ARGUMENTS`, standard error included."""
        done = subprocess.run(
            [sys.executable, "-m", "fs3.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            cwd=self.data.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(self.data.parent)},
        )
        assert done.returncode == expect, f"fs3 {' '.join(arguments)}:\n{done.stdout}{self.logs()}"
        return done.stdout

    def local(self, command: str, *arguments: str, expect: int = 0) -> str:
        return self.fs3(command, *arguments, "--data", str(self.data), expect=expect)

    def up(self, *arguments: str, expect: int = 0) -> str:
        mount = [] if "--no-mount" in arguments else ["--mount", str(self.mount)]
        return self.local("up", "-d", "--port", self.port, *mount, *arguments, expect=expect)

    def down(self, *arguments: str) -> str:
        return self.local("down", *arguments)

    def healthy(self) -> bool:
        command = [sys.executable, "-m", "fs3.cli", "status", "--data", str(self.data)]
        done = subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
        return done.returncode == 0

    def wait_healthy(self, timeout_s: float = 60) -> None:
        self.wait_for(self.healthy, "all chains whole", timeout_s)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        text = ""
        for path in sorted(self.cluster.logs.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-25:]
            text += f"\n==== {path.name}\n" + "\n".join(lines)
        return text

    def checked_down(self) -> None:
        """The end of every test: replicas equal, name space sound, then stopped and erased."""
        try:
            if self.cluster.running():
                self.wait_healthy()
                self.local("check")
        finally:
            if self.cluster.exists():
                self.down("--erase", "--yes")
            if mounted_at(str(self.mount)):  # a test failed: never leave a dead mount behind
                unmount(self.mount, lazy=True)


@pytest.fixture
def fs3(tmp_path: pathlib.Path) -> Iterator[LocalFs3]:
    """A cluster not yet started."""
    cluster = LocalFs3(tmp_path)
    yield cluster
    cluster.checked_down()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFs3]:
    """A running, mounted cluster, shared by the tests of a file."""
    cluster = LocalFs3(tmp_path_factory.mktemp("cluster"))
    cluster.up()
    cluster.wait_healthy()
    yield cluster
    cluster.checked_down()
