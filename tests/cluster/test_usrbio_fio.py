"""Job files of fio through rings (bench/usrbio_fio): what was written is read back and compared."""

import json
import os
import pathlib
import subprocess
from typing import Any

import pytest

from tests.cluster.conftest import ROOT, LocalFs3

JOBS = ROOT / "bench" / "jobs"


def usrbio_fio(*arguments: str | pathlib.Path, expect: int = 0) -> str:
    """Its output; standard error when it is to fail."""
    done = subprocess.run(
        [ROOT / "bench" / "usrbio_fio", *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "SIZE": "4m", "JOBS": "2", "SECONDS_OF_RANDOM": "1"},
    )
    assert done.returncode == expect, done.stderr
    return done.stderr if expect else done.stdout


def figures(*arguments: str | pathlib.Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(usrbio_fio("--output-format=json", *arguments))["jobs"][0]
    return told


@pytest.mark.parametrize("kind", ["write", "randwrite"])
def test_verify_reads_back_every_block(running: LocalFs3, kind: str) -> None:
    common = (f"--directory={running.mount}", "--size=8m", "--bs=20k", "--iodepth=16")
    writing = (f"--name={kind}", f"--rw={kind}", "--verify=crc32c", "--end_fsync=1", *common)
    told = figures(*writing)
    assert told["write"]["total_ios"] == 8 * 1024 // 20
    assert told["write"]["io_bytes"] == told["write"]["total_ios"] * 20 * 1024
    reading = (f"--name={kind}", "--rw=randread", "--verify=crc32c", *common)
    assert figures(*reading)["read"]["total_ios"] == 8 * 1024 // 20
    # One byte is another: that is found, and its block named.
    with (running.mount / f"{kind}.0.0").open("r+b", buffering=0) as file:
        file.seek(3 * 20 * 1024 + 100)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    said = usrbio_fio(*reading, expect=1)
    assert f"the block at {3 * 20 * 1024} is damaged" in said


@pytest.mark.parametrize("job", sorted(path.stem for path in JOBS.glob("*.fio")))
def test_the_job_files_of_the_benches_run(running: LocalFs3, job: str) -> None:
    directory = running.mount / "jobs"
    directory.mkdir(exist_ok=True)
    told = figures(f"--directory={directory}", "--percentile_list=50:99.9", JOBS / f"{job}.fio")
    side = max((told["read"], told["write"]), key=lambda each: each["total_ios"])
    assert side["total_ios"] > 0
    assert side["runtime"] > 0
    assert set(side["clat_ns"]["percentile"]) == {"50.000000", "99.900000"}


def test_mixed_jobs_and_sections(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "two.fio"
    file.write_text(
        f"""; two jobs, one after the other
        [global]
        ioengine=external:hf3fs_usrbio.so
        mountpoint={running.mount}
        directory={running.mount}
        size=4m
        [mixed]
        rw=randrw
        rwmixread=30
        bs=64k
        iodepth=8
        [after]
        stonewall
        rw=read
        bs=1m
        """
    )
    told = json.loads(usrbio_fio("--output-format=json", file))["jobs"]
    assert [each["jobname"] for each in told] == ["mixed", "after"]
    assert told[0]["read"]["total_ios"] + told[0]["write"]["total_ios"] == 64
    assert told[0]["read"]["total_ios"] > 0
    assert told[1]["read"]["total_ios"] == 4


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--rw=trim", "rw=trim is not known"),
        ("--verify=md5", "only crc32c"),
        ("--zonemode=zbd", "the option zonemode is not known"),
        ("--bs=4q", "not a size"),
        ("--iodepth=0", "iodepth is from 1"),
        ("--time_based=1", "needs a runtime"),
    ],
)
def test_what_it_does_not_know_is_named(
    running: LocalFs3, tmp_path: pathlib.Path, option: str, words: str
) -> None:
    base = ("--name=x", f"--directory={running.mount}", "--size=1m")
    assert words in usrbio_fio(*base, option, expect=2)
    assert "lies in no mount" in usrbio_fio(
        "--name=x", f"--directory={tmp_path}", "--size=1m", expect=1
    )
