"""More mounts of a cluster under test, each a process of its own in the foreground."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from fs3.mount.mounts import mounted_at
from tests.cluster.conftest import COMMAND_TIMEOUT_S, ROOT, LocalFs3


class MountProcess:
    """`fs3 mount` at `place`; its output is in `log`."""

    def __init__(
        self, cluster: LocalFs3, place: pathlib.Path, frontend: str, *options: str
    ) -> None:
        self.place = place
        self.log = cluster.cluster.logs / f"{place.name}.log"
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fs3.cli", "mount", str(place), "--foreground"]
        command += ["--frontend", frontend, "--data", str(cluster.data), "--ready-fd", str(writer)]
        command += options
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, pass_fds=[writer], cwd=ROOT
            )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            line = pipe.readline()  # empty when the process died first
        assert line, self.log.read_text()
        assert json.loads(line)["pid"] == self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit status after that signal."""
        self.process.send_signal(number)
        return self.process.wait(COMMAND_TIMEOUT_S)


@contextlib.contextmanager
def mounted(
    cluster: LocalFs3, place: pathlib.Path, frontend: str, *options: str
) -> Iterator[MountProcess]:
    """Mounted inside the block; ends cleanly."""
    mount = MountProcess(cluster, place, frontend, *options)
    try:
        yield mount
    finally:
        if mount.process.poll() is None:
            mount.stop()
    assert mount.process.returncode == 0, mount.log.read_text()
    assert mounted_at(os.path.realpath(place)) is None
