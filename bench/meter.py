"""What the processes of one system cost: CPU seconds and memory, by a control group of their own.

Whatever is started inside `inside()` stays in the group, also when it becomes a daemon. What the
kernel does in the name of the program that works (fio) is not in it.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

__all__ = ["Meter"]

ROOT = pathlib.Path("/sys/fs/cgroup")


class Meter:
    """REQUIRES root and control groups, of version 1 or 2; without them `available` is False and
    nothing is counted."""

    def __init__(self, name: str) -> None:
        self._is_v1 = (ROOT / "cpuacct").is_dir()
        parent = ROOT / "cpuacct" if self._is_v1 else ROOT
        self._group = parent / f"fs3-bench-{os.getpid()}-{name}"
        self._outside = parent / _own_group("cpuacct" if self._is_v1 else "")
        try:
            self._group.mkdir()
            self.available = True
        except OSError:
            self.available = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread starts now belongs to the system."""
        if not self.available:
            yield
            return
        (self._group / "cgroup.procs").write_text("0")
        try:
            yield
        finally:
            (self._outside / "cgroup.procs").write_text("0")

    def cpu_s(self) -> float:
        """All CPU time of the group until now, user and kernel; 0 when nothing is counted."""
        if not self.available:
            return 0.0
        if self._is_v1:
            return int((self._group / "cpuacct.usage").read_text()) / 1e9
        lines = (self._group / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6

    def memory_mib(self) -> float:
        """Proportional set size of all processes of the group."""
        if not self.available:
            return 0.0
        pids = (self._group / "cgroup.procs").read_text().split()
        return sum(map(_pss_kib, pids)) / 1024

    def remove(self) -> None:
        """After the last process of the system has ended."""
        with contextlib.suppress(OSError):
            self._group.rmdir()


def _own_group(controller: str) -> str:
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (not controller and not controllers):
            return path.lstrip("/")
    return ""


def _pss_kib(pid: str) -> int:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
