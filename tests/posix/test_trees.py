"""One tree, changed through two mounts by eight processes at once (trees.py)."""

import pytest

from tests.posix.conftest import Mounts
from tests.posix.trees import run


@pytest.mark.timeout(3600)
def test_two_mounts_show_one_tree_after_eight_processes_changed_it(
    mounts: Mounts, deep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(1, 11) if deep else [1]:  # a minute each, or half a minute
        said = run([mounts.first, mounts.second], seconds=60 if deep else 30, seed=seed)
        with capsys.disabled():
            print(f"\n  {said}")
        mounts.cluster.local("check")
