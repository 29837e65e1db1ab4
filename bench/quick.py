"""The quick plan: fio (sequential and random, read and write, 1 and 8 jobs) and a metadata
micro-benchmark (create, stat, readdir, unlink, whole 4 KiB files)."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from bench.systems import System

Samples = dict[str, dict[str, list[float]]]
"""Work -> system -> one figure per round. The work's name ends with its unit in brackets."""

RANDOM_RUNTIME_S = 5


def run_quick(systems: list[System], *, repeats: int, size_mib: int, files: int) -> Samples:
    """All systems in turn, `repeats` times; they stay mounted all the time, only one works."""
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        places = []
        for system in systems:
            stack.callback(system.stop)
            places.append((system, system.start()))
            print(f"{system.name}: {system.description}", flush=True)
        for repeat in range(repeats):
            for system, mount in places:
                print(f"round {repeat + 1} of {repeats}: {system.name}", flush=True)
                for work, figure in _round(system, mount, size_mib, files):
                    samples.setdefault(work, {}).setdefault(system.name, []).append(figure)
                    print(f"    {work:<46} {figure:12.1f}", flush=True)
    return samples


def _round(
    system: System, mount: pathlib.Path, size_mib: int, files: int
) -> Iterator[tuple[str, float]]:
    place = mount / "bench"
    place.mkdir()
    yield from _fio_works(system, place, size_mib)
    yield from _metadata_works(system, place / "files", files)
    shutil.rmtree(place)


# ---- fio ----


def _fio_works(system: System, place: pathlib.Path, size_mib: int) -> Iterator[tuple[str, float]]:
    for jobs in (1, 8):
        size = max(size_mib // jobs, 8)
        label = f"{jobs} job{'s' if jobs > 1 else ''}"
        yield f"sequential write 1 MiB, {label} (MiB/s)", _fio(place, "write", "1m", jobs, size)
        system.make_cold()
        yield f"sequential read cold 1 MiB, {label} (MiB/s)", _fio(place, "read", "1m", jobs, size)
        system.make_cold()
        yield f"random read cold 4 KiB, {label} (IOPS)", _fio(place, "randread", "4k", jobs, size)
        yield f"random write 4 KiB, {label} (IOPS)", _fio(place, "randwrite", "4k", jobs, size)
        for file in place.iterdir():
            file.unlink()


def _fio(place: pathlib.Path, pattern: str, block: str, jobs: int, size_mib: int) -> float:
    """MiB/s for sequential work, operations per second for random work (limited in time).

    The time of the final fsync counts: the figure is bytes over the job's whole run time.
    """
    random = pattern.startswith("rand")
    command = ["fio", "--name=job", f"--directory={place}", f"--rw={pattern}", f"--bs={block}"]
    command += [f"--numjobs={jobs}", f"--size={size_mib}m", "--ioengine=psync", "--group_reporting"]
    command += ["--output-format=json", "--randrepeat=0", "--fallocate=none"]
    if random:
        command += [f"--runtime={RANDOM_RUNTIME_S}"]
    if "write" in pattern:
        command += ["--end_fsync=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}"
        )
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = job["write" if "write" in pattern else "read"]
    seconds = max(side["runtime"], job["job_runtime"] / jobs) / 1000
    return float(side["total_ios"] / seconds if random else side["io_bytes"] / seconds / (1 << 20))


# ---- metadata and small files ----


def _metadata_works(system: System, place: pathlib.Path, files: int) -> Iterator[tuple[str, float]]:
    """One process; `files` files in directories of 100."""
    paths = [place / f"{number // 100:04}" / f"{number:06}" for number in range(files)]
    directories = sorted({path.parent for path in paths})
    for directory in directories:
        directory.mkdir(parents=True)
    yield "create empty (files/s)", _rate(files, lambda: _each(paths, _create))
    system.make_cold()
    yield "stat cold (files/s)", _rate(files, lambda: _each(paths, os.stat))
    system.make_cold()
    listed = _rate(files, lambda: _each(directories, _list))
    yield "readdir with attributes, cold (entries/s)", listed
    yield "unlink (files/s)", _rate(files, lambda: _each(paths, os.unlink))
    yield "create and write 4 KiB (files/s)", _rate(files, lambda: _each(paths, _write_small))
    system.make_cold()
    yield "open and read 4 KiB, cold (files/s)", _rate(files, lambda: _each(paths, _read_small))
    shutil.rmtree(place)


def _rate(count: int, work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def _each(paths: list[pathlib.Path], work: Callable[[pathlib.Path], object]) -> None:
    for path in paths:
        work(path)


def _create(path: pathlib.Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def _list(path: pathlib.Path) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


_SMALL = os.urandom(4096)


def _write_small(path: pathlib.Path) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(file, _SMALL)
    os.close(file)


def _read_small(path: pathlib.Path) -> None:
    file = os.open(path, os.O_RDONLY)
    data = os.read(file, 8192)
    os.close(file)
    if data != _SMALL:
        raise RuntimeError(f"{path} reads back differently")
