"""The table in the terminal: medians, spread and ratios of interleaved samples; failed works."""

import statistics
from collections.abc import Callable

from bench.results import Results, Sample

__all__ = ["Cell", "cell", "table"]

REFERENCE, CEILING = "fs3", "local"


class Cell:
    """All rounds of one work on one system."""

    def __init__(self, samples: list[Sample]) -> None:
        figures = [sample.figure for sample in samples]
        self.rounds = len(figures)
        self.median = statistics.median(figures) if figures else 0.0
        self.spread = (max(figures) - min(figures)) / self.median if self.median else 0.0
        self.unit = samples[0].unit if samples else ""
        self.cpu_s_per_gib = _per(samples, lambda sample: sample.gib)
        self.cpu_us_per_operation = 1e6 * _per(samples, lambda sample: float(sample.operations))
        self.latency_us = {
            name: statistics.median(sample.latency_us.get(name, 0.0) for sample in samples)
            for name in (samples[0].latency_us if samples else {})
        }


def _per(samples: list[Sample], amount: Callable[[Sample], float]) -> float:
    total = sum(map(amount, samples))
    return sum(sample.cpu_s for sample in samples) / total if total else 0.0


def cell(results: Results, work: str, system: str) -> Cell:
    return Cell(results.of(work, system))


def table(results: Results) -> str:
    """One line per work: each system's median with its spread, and fs3 over the others. Spread is
    (largest - smallest) / median of the rounds. A ratio above 1: fs3 is faster."""
    systems = [name for name in results.systems if name not in results.unavailable]
    others = [name for name in systems if name != REFERENCE and REFERENCE in systems]
    width = max([len(work) for work in results.works()] + [4])
    head = f"{'work':<{width}} {'':>9}" + "".join(f"{name:>18}" for name in systems)
    lines = [head + "".join(f"{f'fs3/{name}':>15}" for name in others)]
    for work in results.works():
        cells = {name: cell(results, work, name) for name in systems}
        unit = next((one.unit for one in cells.values() if one.unit), "")
        line = f"{work:<{width}} {unit:>9}" + "".join(f"{_text(cells[n]):>18}" for n in systems)
        lines.append(line + "".join(f"{_ratio(cells, name):>15}" for name in others))
    lines.append("")
    lines.append(_costs(results, systems, width))
    lines.append(f"median (spread) of {max((s.round for s in results.samples), default=0)} rounds")
    if CEILING in systems:
        lines.append(f"{CEILING} is the ceiling: one copy, no network, no FUSE")
    lines += [f"{name} was left out: {why}" for name, why in results.unavailable.items()]
    lines += [f"FAILED {s.system}, {s.work}, round {s.round}: {s.error}" for s in results.errors()]
    return "\n".join(lines)


def _costs(results: Results, systems: list[str], width: int) -> str:
    """CPU time of all processes of a system; where bytes are the point, per GiB of them."""
    lines = []
    for work in results.works():
        cells = {name: cell(results, work, name) for name in systems}
        per_gib = "MiB/s" in {one.unit for one in cells.values()}
        unit = "CPU s/GiB" if per_gib else "CPU us/op"
        figures = [
            one.cpu_s_per_gib if per_gib else one.cpu_us_per_operation for one in cells.values()
        ]
        if any(figures):
            lines.append(f"{work:<{width}} {unit:>9}" + "".join(f"{f:>18,.1f}" for f in figures))
    idle = "".join(f"{results.idle_mib.get(name, 0):>18,.0f}" for name in systems)
    lines.append(f"{'memory of all idle processes':<{width}} {'MiB':>9}{idle}")
    return "\n".join(lines)


def _text(one: Cell) -> str:
    return f"{one.median:,.0f} ({one.spread:.0%})" if one.rounds else "-"


def _ratio(cells: dict[str, Cell], other: str) -> str:
    mine, theirs = cells[REFERENCE].median, cells[other].median
    return f"{mine / theirs:.2f}" if mine and theirs else "-"
