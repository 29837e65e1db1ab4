"""One self-contained HTML page of a run: bars with spread, latencies, costs, the commands."""

import html
import pathlib
import shlex

from bench.fio import command
from bench.report import Cell, cell
from bench.results import Results

__all__ = ["page"]

COLOURS = ("#8a8f98", "#1565c0", "#ef6c00", "#2e7d32", "#6a1b9a", "#ad1457", "#00838f")
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH, VALUE_WIDTH = 420, 18, 96, 150
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }
h2 { font-size: 1.05em; margin: 2em 0 .3em; } table { border-collapse: collapse; }
td, th { padding: .15em .8em .15em 0; text-align: right; } td:first-child, th:first-child
{ text-align: left; } pre { background: #f4f4f4; padding: .8em; overflow-x: auto; }
.failed { color: #b00020; } svg text { font-size: 13px; }
"""


def page(results: Results) -> str:
    systems = [name for name in results.systems if name not in results.unavailable]
    parts = [
        f"<!doctype html><meta charset=utf-8><title>fs3 bench</title><style>{STYLE}</style>",
        "<h1>fs3 beside its ceiling and its peers</h1>",
        _table([("system", "what it is", "idle MiB")], _system_rows(results, systems)),
        *(_work(results, work, systems) for work in results.works()),
        _failures(results),
        "<h2>The machine, and how to repeat this</h2>",
        _table([], [(name, value) for name, value in results.machine.items()]),
        f"<pre>{html.escape(_commands(results))}</pre>",
    ]
    return "\n".join(parts) + "\n"


def _system_rows(results: Results, systems: list[str]) -> list[tuple[str, ...]]:
    return [
        (name, results.systems[name], f"{results.idle_mib.get(name, 0):,.0f}") for name in systems
    ]


def _work(results: Results, work: str, systems: list[str]) -> str:
    cells = {name: cell(results, work, name) for name in systems}
    unit = next((one.unit for one in cells.values() if one.unit), "")
    parts = [f"<h2>{html.escape(work)}, {html.escape(unit)}</h2>", _bars(results, work, cells)]
    with_latency = {name: one for name, one in cells.items() if any(one.latency_us.values())}
    if with_latency:
        names = list(next(iter(with_latency.values())).latency_us)
        rows = [
            (
                name,
                *(f"{one.latency_us[each]:,.0f}" for each in names),
                f"{one.cpu_us_per_operation:,.1f}",
                f"{one.cpu_s_per_gib:,.2f}",
            )
            for name, one in with_latency.items()
        ]
        head = ("", *(f"{name} us" for name in names), "CPU us/op", "CPU s/GiB")
        parts.append(_table([head], rows))
    return "\n".join(parts)


def _bars(results: Results, work: str, cells: dict[str, Cell]) -> str:
    """A bar to the median, a line from the smallest to the largest."""
    most = max((sample.figure for name in cells for sample in results.of(work, name)), default=0.0)
    scale = BAR_WIDTH / most if most else 0.0
    width, height = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH, (BAR_HEIGHT + 4) * len(cells)
    parts = [f'<svg width="{width}" height="{height}" role="img">']
    for row, (name, one) in enumerate(cells.items()):
        top = row * (BAR_HEIGHT + 4)
        figures = [sample.figure for sample in results.of(work, name)]
        parts.append(f'<text x="0" y="{top + 14}">{html.escape(name)}</text>')
        if figures:
            colour = COLOURS[row % len(COLOURS)]
            parts.append(
                f'<rect x="{LABEL_WIDTH}" y="{top}" width="{one.median * scale:.1f}" '
                f'height="{BAR_HEIGHT}" fill="{colour}"/>'
            )
            least, largest = (LABEL_WIDTH + end(figures) * scale for end in (min, max))
            middle = top + BAR_HEIGHT / 2
            parts.append(
                f'<line x1="{least:.1f}" x2="{largest:.1f}" y1="{middle}" y2="{middle}" '
                'stroke="#000" stroke-width="1.5"/>'
            )
        text = f"{one.median:,.0f} ({one.spread:.0%})" if figures else "failed"
        parts.append(f'<text x="{LABEL_WIDTH + BAR_WIDTH + 8}" y="{top + 14}">{text}</text>')
    return "".join(parts) + "</svg>"


def _failures(results: Results) -> str:
    lines = [f"{name} was left out: {why}" for name, why in results.unavailable.items()]
    lines += [f"{s.system}, {s.work}, round {s.round}: {s.error}" for s in results.errors()]
    if not lines:
        return ""
    items = "".join(f"<li class=failed>{html.escape(line)}</li>" for line in lines)
    return f"<h2>What failed</h2><ul>{items}</ul>"


def _commands(results: Results) -> str:
    example = shlex.join(command("JOB", pathlib.Path("MOUNT/bench")))
    return f"bench/run {shlex.join(results.arguments)}\n\nwhich runs, for each job file:\n{example}"


def _table(head: list[tuple[str, ...]], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    lines = [line(row, "th") for row in head] + [line(row, "td") for row in rows]
    return f"<table>{''.join(lines)}</table>"
