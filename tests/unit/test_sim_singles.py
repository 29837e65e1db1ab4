"""The single faults of the metadata service find what they are for."""

import pytest

from fs3.runtime import failpoint
from tests.sim.bugs_meta import GcForgetsChunks, NoIdempotencyRow
from tests.sim.ledger import Violation
from tests.sim.singles_meta import run_meta


@pytest.mark.parametrize(
    ("bug", "point", "action"),
    [
        (NoIdempotencyRow, "create.committed", "kill"),
        (GcForgetsChunks, "gc.claimed", "pause"),
    ],
)
def test_a_planted_bug_is_found_at_its_point(bug, point, action):
    with pytest.raises(Violation) as found:
        run_meta(point, action, bugs=bug())
    assert found.value.rule != "coverage"


def test_a_point_that_nothing_passes_is_a_failure():
    with pytest.raises(Violation, match="never passed"):
        run_meta("create.no_such_step", "kill")


def test_nothing_stays_armed():
    run_meta("create.committed", "kill")
    assert failpoint.armed() == []
