"""Runs one job file of bench/jobs in a directory, and reads what fio says."""

import json
import os
import pathlib
import subprocess
from dataclasses import dataclass
from typing import Any

__all__ = ["Figures", "fio"]

JOBS = pathlib.Path(__file__).resolve().parent / "jobs"
TIMEOUT_S = 900
PERCENTILES = {"p50": "50.000000", "p99": "99.000000", "p99.9": "99.900000"}


@dataclass(frozen=True)
class Figures:
    bytes: int
    operations: int
    seconds: float  # of the whole run, with the fsync at its end
    latency_us: dict[str, float]  # by percentile; without the fsyncs

    @property
    def mib_per_s(self) -> float:
        return self.bytes / self.seconds / (1 << 20)

    @property
    def per_s(self) -> float:
        return self.operations / self.seconds


def command(job: str, place: pathlib.Path) -> list[str]:
    return [
        "fio",
        f"--directory={place}",
        "--ioengine=psync",
        "--group_reporting",
        "--randrepeat=0",
        "--fallocate=none",
        "--percentile_list=50:99:99.9",
        "--output-format=json",
        str(JOBS / f"{job}.fio"),
    ]


def fio(job: str, place: pathlib.Path, *, jobs: int, size_mib: int, random_s: int) -> Figures:
    """`size_mib`: of the file of each job. Raises RuntimeError with fio's own words."""
    parameters = {"SIZE": f"{size_mib}m", "JOBS": str(jobs), "SECONDS_OF_RANDOM": str(random_s)}
    done = subprocess.run(
        command(job, place),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **parameters},
    )
    if done.returncode:
        words = (done.stderr or done.stdout)[-800:]
        raise RuntimeError(f"fio {job} in {place} ended with {done.returncode}: {words}")
    told: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = max((told["read"], told["write"]), key=lambda one: one["total_ios"])
    latency = side["clat_ns"].get("percentile", {})
    return Figures(
        bytes=side["io_bytes"],
        operations=side["total_ios"],
        seconds=max(side["runtime"], told["job_runtime"] / jobs) / 1000,
        latency_us={name: latency.get(key, 0) / 1000 for name, key in PERCENTILES.items()},
    )
