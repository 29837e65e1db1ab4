"""The arithmetic of the benchmarks, and that what failed is shown."""

import html.parser
import pathlib

from bench.page import page
from bench.report import cell, table
from bench.results import Results, Sample


def made() -> Results:
    results = Results(["peers"], {"local": "a directory", "fs3": "fs3 up", "gone": ""})
    results.unavailable["gone"] = "not installed <here>"
    for round_, figure in enumerate((100.0, 300.0, 200.0), 1):
        results.samples.append(
            Sample("write", "fs3", round_, figure, "MiB/s", cpu_s=1.0, gib=0.5, operations=512)
        )
    results.samples.append(Sample("write", "local", 1, 800.0, "MiB/s", gib=0.5))
    results.samples.append(Sample("write", "local", 2, error="fio ended with 1"))
    return results


def test_a_cell_is_the_median_of_what_succeeded() -> None:
    mine = cell(made(), "write", "fs3")
    assert (mine.rounds, mine.median, mine.spread) == (3, 200.0, 1.0)
    assert mine.cpu_s_per_gib == 2.0
    assert round(mine.cpu_us_per_operation) == round(1e6 / 512)
    assert cell(made(), "write", "local").rounds == 1


def test_the_table_has_ratios_costs_and_failures() -> None:
    text = table(made())
    assert "200 (100%)" in text
    assert "0.25" in text  # fs3 / local
    assert "FAILED local, write, round 2: fio ended with 1" in text
    assert "gone was left out: not installed <here>" in text


def test_a_run_can_be_read_again(tmp_path: pathlib.Path) -> None:
    made().write(tmp_path / "run.json")
    assert Results.read(tmp_path / "run.json") == made()


def test_the_page_is_one_file_and_well_formed() -> None:
    class Parser(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "rect", "line"):
                self.open.append(tag)
            assert not {"src", "href"} & {name for name, _ in attrs}  # type: ignore[attr-defined]

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            assert tag in ("rect", "line")

    text = page(made())
    parser = Parser()
    parser.feed(text)
    assert parser.open == []
    assert "fio ended with 1" in text
    assert "not installed &lt;here&gt;" in text
