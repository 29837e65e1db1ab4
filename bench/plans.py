"""The plans: which works, on which systems, interleaved round after round."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.meter import Meter
from bench.results import Results, Sample
from bench.systems import SYSTEMS, Unavailable
from bench.works import Bench, Size, fio_works, name_works, small_works

__all__ = ["PLANS", "Plan", "measure"]

Works = Callable[[Bench, Size], Iterator[Sample]]


@dataclass(frozen=True)
class Plan:
    what: str
    works: tuple[Works, ...]
    systems: tuple[str, ...]
    size: Size
    repeats: int = 3


def _jobs(*counts: int) -> tuple[Works, ...]:
    return tuple(lambda bench, size, n=count: fio_works(bench, size, n) for count in counts)


ALONE = ("local", "fs3")
PEERS = ("local", "fs3", "glusterfs", "moosefs", "seaweedfs", "juicefs")
PLANS = {
    "quick": Plan(
        "fio with 1 and 8 jobs, names and small files, one peer",
        (*_jobs(1, 8), name_works, small_works),
        (*ALONE, "juicefs"),
        Size(mib=128, random_s=3, files=500),
        repeats=2,
    ),
    "fio": Plan("fio with 1, 4 and 8 jobs", _jobs(1, 4, 8), ALONE, Size(512, 10, 0)),
    "meta": Plan("names", (name_works,), ALONE, Size(0, 0, 5000)),
    "small": Plan("whole files of 4 KiB", (small_works,), ALONE, Size(0, 0, 5000)),
    "peers": Plan(
        "everything, against every peer that is installed",
        (*_jobs(1, 4, 8), name_works, small_works),
        PEERS,
        Size(mib=256, random_s=5, files=1000),
    ),
}


def measure(
    results: Results,
    works: tuple[Works, ...],
    size: Size,
    *,
    repeats: int,
    scratch: pathlib.Path,
    say: Callable[[str], None],
) -> None:
    """All systems of `results` in turn, `repeats` times; they stay mounted all the time, only one
    works. One that cannot run here is left out, and `results` says so."""
    with contextlib.ExitStack() as stack:
        places = []
        for name in list(results.systems):
            meter = Meter(name)
            system = SYSTEMS[name](scratch / name)
            stack.callback(meter.remove)
            stack.callback(system.stop)
            try:
                with meter.inside():
                    mount = system.start()
            except Unavailable as error:
                results.unavailable[name] = str(error)
                say(f"{name} is left out: {error}")
                continue
            results.systems[name] = system.description
            places.append((system, meter, mount))
        for system, meter, _ in places:
            results.idle_mib[system.name] = meter.memory_mib()
            say(f"{system.name}: {system.description}; {meter.memory_mib():.0f} MiB idle")
        for round_ in range(1, repeats + 1):
            for system, meter, mount in places:
                say(f"round {round_} of {repeats}: {system.name}")
                for sample in _round(Bench(system, meter, mount / "bench", round_), works, size):
                    results.samples.append(sample)
                    say(f"    {_line(sample)}")


def _round(bench: Bench, works: tuple[Works, ...], size: Size) -> Iterator[Sample]:
    bench.place.mkdir()
    for work in works:
        yield from work(bench, size)
    shutil.rmtree(bench.place)


def _line(sample: Sample) -> str:
    if sample.error:
        return f"{sample.work:<52} FAILED: {sample.error}"
    return f"{sample.work:<52} {sample.figure:12,.1f} {sample.unit}"
