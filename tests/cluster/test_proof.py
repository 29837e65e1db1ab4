"""The proof: real trees and programs on the mount while storage nodes are killed under them."""

import pathlib

import pytest

from fs3.cli.selftest import run_selftest
from tests.cluster.conftest import ROOT, LocalFs3


@pytest.mark.timeout(1200)
def test_real_programs_while_nodes_die(fs3: LocalFs3, capsys: pytest.CaptureFixture[str]) -> None:
    fs3.up()
    fs3.wait_healthy()
    repository: pathlib.Path | None = ROOT if (ROOT / ".git").exists() else None

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    say("")
    proved = run_selftest(fs3.cluster, full=True, kill=True, repository=repository, say=say)
    assert len(proved) == 8
