"""Medians, spread and ratios of interleaved samples."""

import statistics

from bench.quick import Samples


def table(samples: Samples, *, reference: str, ceiling: str) -> str:
    """One line per work: each system's median with its spread, and the reference over the others.

    Spread is (largest - smallest) / median of the rounds. A ratio above 1: the reference is faster.
    """
    systems = list(dict.fromkeys(name for row in samples.values() for name in row))
    others = [name for name in systems if name != reference and reference in systems]
    head = f"{'work':<46}" + "".join(f"{name:>18}" for name in systems)
    lines = [head + "".join(f"{f'{reference}/{name}':>14}" for name in others)]
    for work, row in samples.items():
        line = f"{work:<46}" + "".join(f"{_cell(row.get(name, [])):>18}" for name in systems)
        lines.append(line + "".join(f"{_ratio(row, reference, name):>14}" for name in others))
    rounds = max(len(values) for row in samples.values() for values in row.values())
    lines.append(f"median (spread) of {rounds} rounds")
    if ceiling in systems:
        lines.append(f"{ceiling} is the ceiling: one copy, no network, no FUSE")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    median = statistics.median(values)
    spread = (max(values) - min(values)) / median if median else 0.0
    return f"{median:,.0f} ({spread:.0%})"


def _ratio(row: dict[str, list[float]], reference: str, other: str) -> str:
    if not row.get(reference) or not row.get(other):
        return "-"
    return f"{statistics.median(row[reference]) / statistics.median(row[other]):.2f}"
