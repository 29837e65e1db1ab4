"""The works: what is done in the mount of a system, and what comes of it as a Sample."""

import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.fio import Figures, fio
from bench.meter import Meter
from bench.results import Sample
from bench.systems import System

__all__ = ["Bench", "Size", "fio_works", "name_works", "small_works"]

SMALL = os.urandom(4096)
PER_DIRECTORY = 100
READ_BACK_BYTES = 8192


@dataclass(frozen=True)
class Size:
    mib: int  # of the data of one fio work, over all its jobs
    random_s: int  # of a random work
    files: int  # of the works on names


@dataclass
class Bench:
    """One system in one round."""

    system: System
    meter: Meter
    place: pathlib.Path
    round: int

    def cold(self) -> None:
        with self.meter.inside():
            self.system.make_cold()

    def sample(self, work: str, unit: str) -> Sample:
        return Sample(work, self.system.name, self.round, unit=unit)


def fio_works(bench: Bench, size: Size, jobs: int) -> Iterator[Sample]:
    """Files are made by the sequential write, and used by the others."""
    label = f"{jobs} job{'s' if jobs > 1 else ''}"
    yield _fio(bench, size, jobs, "sequential-write", f"sequential write 1 MiB, fsync, {label}")
    bench.cold()
    yield _fio(bench, size, jobs, "sequential-read", f"sequential read 1 MiB cold, {label}")
    yield _fio(bench, size, jobs, "sequential-read", f"sequential read 1 MiB again, {label}")
    bench.cold()
    direct = "sequential-read-direct"
    yield _fio(bench, size, jobs, direct, f"sequential read 1 MiB O_DIRECT, {label}")
    yield _fio(bench, size, jobs, "random-read-direct", f"random read 4 KiB O_DIRECT, {label}")
    yield _fio(bench, size, jobs, "random-write", f"random write 4 KiB, fsync at the end, {label}")
    durable = "random-write-fdatasync"
    yield _fio(bench, size, jobs, durable, f"random write 4 KiB + fdatasync, {label}")
    for file in bench.place.iterdir():
        file.unlink()


def _fio(bench: Bench, size: Size, jobs: int, job: str, work: str) -> Sample:
    is_random = job.startswith("random")
    sample = bench.sample(work, "IOPS" if is_random else "MiB/s")
    each_mib = max(size.mib // jobs, 8)
    before_s = bench.meter.cpu_s()
    try:
        figures: Figures = fio(
            job, bench.place, jobs=jobs, size_mib=each_mib, random_s=size.random_s
        )
    except (RuntimeError, OSError) as error:
        sample.error = str(error)
        return sample
    sample.cpu_s = bench.meter.cpu_s() - before_s
    sample.figure = figures.per_s if is_random else figures.mib_per_s
    sample.gib = figures.bytes / (1 << 30)
    sample.operations = figures.operations
    sample.latency_us = figures.latency_us
    return sample


# ---- names and small files: one process, directories of 100


def name_works(bench: Bench, size: Size) -> Iterator[Sample]:
    paths, directories = _tree(bench.place, size.files)
    yield _each(bench, "create empty", paths, _create)
    bench.cold()
    yield _each(bench, "stat cold", paths, os.stat)
    yield _each(bench, "stat again", paths, os.stat)
    bench.cold()
    listed = _each(bench, "readdir with attributes, cold", directories, _list)
    listed.figure *= PER_DIRECTORY
    listed.unit = "entries/s"
    yield listed
    yield _each(bench, "rename", paths, lambda path: os.rename(path, path.with_suffix(".new")))
    renamed = [path.with_suffix(".new") for path in paths]
    yield _each(bench, "unlink", renamed, os.unlink)
    shutil.rmtree(bench.place / "names")


def small_works(bench: Bench, size: Size) -> Iterator[Sample]:
    paths, _ = _tree(bench.place, size.files)
    yield _each(bench, "create and write 4 KiB", paths, _write_small)
    bench.cold()
    yield _each(bench, "open and read 4 KiB, cold", paths, _read_small)
    yield _each(bench, "open and read 4 KiB, again", paths, _read_small)
    shutil.rmtree(bench.place / "names")


def _tree(place: pathlib.Path, files: int) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    top = place / "names"
    paths = [top / f"{n // PER_DIRECTORY:04}" / f"{n:06}" for n in range(files)]
    directories = sorted({path.parent for path in paths})
    for directory in directories:
        directory.mkdir(parents=True)
    return paths, directories


def _each(
    bench: Bench, work: str, paths: list[pathlib.Path], do: Callable[[pathlib.Path], object]
) -> Sample:
    sample = bench.sample(work, "ops/s")
    before_s, begin_s = bench.meter.cpu_s(), time.perf_counter()
    try:
        for path in paths:
            do(path)
    except (RuntimeError, OSError) as error:
        sample.error = str(error)
        return sample
    seconds = time.perf_counter() - begin_s
    sample.cpu_s = bench.meter.cpu_s() - before_s
    sample.operations = len(paths)
    sample.figure = len(paths) / seconds
    return sample


def _create(path: pathlib.Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def _list(path: pathlib.Path) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def _write_small(path: pathlib.Path) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(file, SMALL)
    os.close(file)


def _read_small(path: pathlib.Path) -> None:
    file = os.open(path, os.O_RDONLY)
    data = os.read(file, READ_BACK_BYTES)
    os.close(file)
    if data != SMALL:
        raise RuntimeError(f"{path} reads back differently")
