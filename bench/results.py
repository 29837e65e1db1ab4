"""What a run has measured, and everything needed to repeat it; one JSON file."""

import json
import os
import pathlib
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field

__all__ = ["Results", "Sample", "describe_machine"]

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclass
class Sample:
    """One work of one system in one round. `error`: it failed, and why; the rest says nothing."""

    work: str
    system: str
    round: int
    figure: float = 0.0  # in `unit`, more is better
    unit: str = ""
    cpu_s: float = 0.0  # of all processes of the system
    gib: float = 0.0  # moved by the program, 0 when bytes are not the point
    operations: int = 0
    latency_us: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass
class Results:
    arguments: list[str]
    systems: dict[str, str] = field(default_factory=dict)  # name -> what it is
    unavailable: dict[str, str] = field(default_factory=dict)  # name -> why
    idle_mib: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    def works(self) -> list[str]:
        return list(dict.fromkeys(sample.work for sample in self.samples))

    def of(self, work: str, system: str) -> list[Sample]:
        """The rounds that succeeded."""
        return [s for s in self.samples if (s.work, s.system, s.error) == (work, system, "")]

    def errors(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.error]

    def write(self, path: pathlib.Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: pathlib.Path) -> "Results":
        told = json.loads(path.read_text())
        told["samples"] = [Sample(**sample) for sample in told["samples"]]
        return cls(**told)


def describe_machine() -> dict[str, str]:
    """Where and of what this was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit or "unknown",
        "kernel": platform.release(),
        "processors": str(os.cpu_count()),
        "memory": f"{pages / (1 << 30):.0f} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
    }
