"""The target state table: total, each row reachable, and no stale target is ever promoted."""

import itertools

import pytest

from fs3.mgmtd.transitions import TABLE, Belief, Public, Situation, next_row

FLAGS = (
    "forming",
    "complete",
    "others_serve",
    "chosen_last",
    "sync_turn",
    "leave_turn",
    "leaving",
    "gives_way",
)


def sensible(public: Public, belief: Belief, situation: Situation) -> bool:
    """Inputs that chains.step can produce."""
    if situation.forming:
        return public is Public.OFFLINE and not (
            situation.others_serve or situation.sync_turn or situation.leave_turn
        )
    if situation.complete:
        return False
    if situation.chosen_last and (
        public is not Public.SERVING
        or situation.others_serve
        or belief in (Belief.UPTODATE, Belief.SILENT)
    ):
        return False
    if situation.leave_turn and not (
        public is Public.SERVING
        and situation.leaving
        and situation.others_serve
        and belief in (Belief.UPTODATE, Belief.SILENT)
    ):
        return False
    if situation.gives_way and not (
        public is Public.SYNCING
        and belief is Belief.ONLINE
        and situation.others_serve
        and not situation.leaving
    ):
        return False
    return not situation.sync_turn or (
        public in (Public.WAITING, Public.OFFLINE)
        and situation.others_serve
        and not situation.leaving
    )


INPUTS = [
    (public, belief, situation)
    for public in Public
    for belief in Belief
    for values in itertools.product((False, True), repeat=len(FLAGS))
    if sensible(public, belief, situation := Situation(**dict(zip(FLAGS, values, strict=True))))
]


def test_every_input_has_a_row() -> None:
    for public, belief, situation in INPUTS:
        next_row(public, belief, situation)


def test_every_row_decides_some_input() -> None:
    deciding = {next_row(*inputs).id for inputs in INPUTS}
    assert deciding == {row.id for row in TABLE}


def test_ids_are_unique_and_begin_with_their_state() -> None:
    letters = {"F": Public.OFFLINE, "S": Public.SERVING, "L": Public.LASTSRV, "Y": Public.SYNCING}
    letters |= {"W": Public.WAITING, "O": Public.OFFLINE}
    assert len({row.id for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert row.public is letters[row.id[0]]


def test_only_full_targets_are_made_serving() -> None:
    for public, belief, situation in INPUTS:
        row = next_row(public, belief, situation)
        if row.next is not Public.SERVING or public is Public.SERVING:
            continue
        if situation.forming:
            assert situation.complete
        else:
            assert belief is Belief.UPTODATE
            assert public in (Public.SYNCING, Public.LASTSRV)


def test_lastsrv_leaves_only_to_serve() -> None:
    for public, belief, situation in INPUTS:
        if public is Public.LASTSRV:
            after = next_row(public, belief, situation).next
            assert after in (Public.LASTSRV, Public.SERVING)


def test_a_live_server_that_serves_is_never_dropped_at_once() -> None:
    for public, belief, situation in INPUTS:
        if public is Public.SERVING and belief in (Belief.UPTODATE, Belief.SILENT):
            after = next_row(public, belief, situation).next
            assert after in (Public.SERVING, Public.SYNCING)


def test_an_impossible_input_is_a_bug_and_says_so() -> None:
    with pytest.raises(AssertionError, match="no row for LASTSRV"):
        next_row(Public.LASTSRV, Belief.LOST, Situation(forming=True))
