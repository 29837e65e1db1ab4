"""Events of the cluster state machine, one story per test."""

from dataclasses import replace

import pytest

from fs3.mgmtd.cluster import (
    Heartbeat,
    Moved,
    NodeExited,
    NumberDrawn,
    Persist,
    Refusal,
    RoutingChanged,
    TargetLeaves,
    Tick,
    apply,
    resumed,
)
from fs3.mgmtd.transitions import TABLE, Public
from fs3.types import NodeId
from tests.unit.cluster_driver import (
    LEASE_S,
    LOCAL_OFFLINE,
    LOCAL_ONLINE,
    LOCAL_UPTODATE,
    SECOND,
    Cluster,
    serving,
)

# ---- birth


def test_a_new_chain_serves_when_its_last_empty_disk_appears() -> None:
    cluster = Cluster()
    cluster.start(1, 2)
    assert cluster.publics() == "OOO"
    assert cluster.chain().version == 1
    cluster.start(3)
    assert cluster.publics() == "SSS"
    assert cluster.chain().version == 2
    assert not cluster.chain().forming


def test_a_new_chain_does_not_form_over_a_disk_that_holds_data() -> None:
    cluster = Cluster()
    cluster.start(1, 2)
    cluster.start(3, used_bytes=4096)
    assert cluster.publics() == "OOO"


def test_a_new_chain_forms_by_heartbeat_when_targets_are_made_after_registration() -> None:
    cluster = Cluster()
    for node in (1, 2, 3):
        cluster.incarnations[node] = bytes([node]) * 16
        cluster.submit(cluster.registration(node, ()))
    assert cluster.publics() == "OOO"
    cluster.beat(1, 2, 3)
    assert cluster.publics() == "SSS"


def test_an_empty_disk_takes_the_way_of_resync_later() -> None:
    cluster = serving()
    cluster.kill(3)
    cluster.start(3, used_bytes=0)
    assert cluster.publics() == "SSY"


# ---- death and return


def test_a_proven_exit_demotes_at_once_and_others_go_on() -> None:
    cluster = serving()
    cluster.kill(2)
    assert cluster.publics() == "SOS"
    assert cluster.chain().version == 3
    assert cluster.rows[-1] == "S6"


def test_silence_demotes_after_a_whole_lease_and_not_before() -> None:
    cluster = serving()
    cluster.advance(LEASE_S - 0.5, beating=(1, 3))
    assert cluster.publics() == "SSS"
    cluster.advance(0.5, beating=(1, 3))
    assert cluster.publics() == "SOS"
    assert not cluster.state.nodes[NodeId(2)].alive


def test_the_last_of_a_chain_waits_as_lastsrv() -> None:
    cluster = serving()
    for node in (1, 2, 3):
        cluster.kill(node)
    assert cluster.publics() == "OOL"


def test_when_all_vanish_in_one_event_the_tail_most_becomes_lastsrv() -> None:
    cluster = serving()
    tail = cluster.chain().targets[-1].node
    cluster.advance(LEASE_S)
    assert cluster.public(tail) is Public.LASTSRV
    assert sorted(cluster.publics()) == ["L", "O", "O"]
    assert cluster.chain().version == 3


def test_a_failed_disk_is_not_chosen_as_lastsrv_when_another_one_may_come_back() -> None:
    cluster = serving(nodes=2)
    tail = cluster.chain().targets[-1].node
    head = cluster.chain().targets[0].node
    cluster.kill(head)
    assert cluster.public(tail) is Public.SERVING
    cluster.beat(tail, local=LOCAL_OFFLINE)
    assert cluster.public(tail) is Public.LASTSRV


def test_lastsrv_serves_again_once_its_server_says_up_to_date() -> None:
    cluster = serving()
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start(3, used_bytes=1)
    assert cluster.public(3) is Public.LASTSRV
    cluster.beat(3, local=LOCAL_ONLINE, used_bytes=1)
    assert cluster.public(3) is Public.LASTSRV
    cluster.beat(3, local=LOCAL_UPTODATE, used_bytes=1)
    assert cluster.publics() == "OOS"


def test_up_to_date_in_a_registration_is_not_believed() -> None:
    cluster = serving()
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start(3)
    assert cluster.public(3) is Public.LASTSRV


def test_lastsrv_that_does_not_report_its_target_is_waited_for() -> None:
    """A replaced disk: the server does not make the target anew while the chain waits for it."""
    cluster = serving()
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start(3)
    cluster.beat(3, missing=True)
    assert cluster.public(3) is Public.LASTSRV
    cluster.beat(3, local=LOCAL_UPTODATE)
    assert cluster.public(3) is Public.SERVING


def test_others_that_return_first_wait_for_lastsrv() -> None:
    cluster = serving()
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start(1, 2, used_bytes=1)
    assert cluster.publics() == "WWL"
    cluster.start(3, used_bytes=1)
    cluster.beat(3, local=LOCAL_UPTODATE, used_bytes=1)
    assert cluster.publics() == "YWS"


def test_one_target_syncs_at_a_time_and_the_next_follows() -> None:
    cluster = serving()
    cluster.kill(1)
    cluster.kill(2)
    cluster.start(1, 2)
    assert cluster.publics() == "YWS"
    cluster.beat(1, local=LOCAL_UPTODATE)
    assert cluster.publics() == "SYS"
    cluster.beat(2, local=LOCAL_UPTODATE)
    assert cluster.publics() == "SSS"


def test_a_target_that_returned_becomes_the_tail() -> None:
    cluster = serving()
    head = cluster.chain().targets[0].node
    cluster.kill(head)
    cluster.start(head)
    cluster.beat(head, local=LOCAL_UPTODATE)
    assert cluster.chain().targets[-1].node == head


def test_resync_that_fails_puts_the_target_offline_and_the_next_one_syncs() -> None:
    cluster = serving()
    cluster.kill(1)
    cluster.kill(2)
    cluster.start(1, 2)
    cluster.beat(1, local=LOCAL_OFFLINE)
    assert cluster.publics() == "OYS"


def test_a_syncing_target_waits_when_nobody_serves_any_more() -> None:
    cluster = serving()
    cluster.kill(1)
    cluster.kill(2)
    cluster.start(1)
    assert cluster.publics() == "YOS"
    cluster.beat(1, used_bytes=1)
    cluster.kill(3)
    assert cluster.publics() == "WOL"
    cluster.kill(1)
    assert cluster.publics() == "OOL"


def test_a_target_missing_from_a_heartbeat_counts_as_closed() -> None:
    cluster = serving()
    cluster.beat(2, missing=True)
    assert cluster.publics() == "SOS"
    assert cluster.rows[-1] == "S5"


def test_a_server_that_says_it_is_behind_leaves() -> None:
    cluster = serving()
    cluster.beat(2, local=LOCAL_ONLINE)
    assert cluster.publics() == "SOS"
    assert cluster.rows[-1] == "S4"
    cluster.beat(2)
    assert cluster.publics() == "SYS"


# ---- incarnations, sequences, stale reports


def test_a_new_incarnation_demotes_what_the_former_one_served_in_the_same_event() -> None:
    cluster = serving()
    cluster.start(2)
    assert cluster.publics() == "SYS"
    assert cluster.chain().version == 3
    assert len(cluster.routing_changes()) == 1


def test_a_new_incarnation_of_the_only_server_waits_as_lastsrv() -> None:
    cluster = serving(nodes=1)
    cluster.start(1, used_bytes=1)
    assert cluster.publics() == "L"
    cluster.beat(1, local=LOCAL_UPTODATE, used_bytes=1)
    assert cluster.publics() == "S"


def test_a_new_incarnation_while_syncing_raises_the_chain_version() -> None:
    cluster = serving()
    cluster.kill(2)
    cluster.start(2)
    before = cluster.chain().version
    cluster.start(2)
    assert cluster.publics() == "SYS"
    assert cluster.chain().version == before + 1


def test_registering_twice_with_one_incarnation_changes_nothing() -> None:
    cluster = serving()
    cluster.register(2, used_bytes=1)
    assert cluster.publics() == "SSS"
    assert cluster.chain().version == 2


def test_an_old_process_cannot_come_back() -> None:
    cluster = serving()
    old = cluster.incarnations[2]
    cluster.start(2)
    cluster.submit(Heartbeat(NodeId(2), old, 0, 99, (), cluster.now_ns))
    assert cluster.refusal() is Refusal.SUPERSEDED
    current, cluster.incarnations[2] = cluster.incarnations[2], old
    cluster.register(2)
    assert cluster.refusal() is Refusal.SUPERSEDED
    assert cluster.state.nodes[NodeId(2)].incarnation == current


def test_a_process_reported_dead_cannot_come_back() -> None:
    cluster = serving()
    cluster.kill(2)
    cluster.beat(2)
    assert cluster.refusal() is Refusal.SUPERSEDED
    cluster.register(2)
    assert cluster.refusal() is Refusal.SUPERSEDED
    assert cluster.publics() == "SOS"


def test_an_exit_of_a_former_process_is_refused() -> None:
    cluster = serving()
    old = cluster.incarnations[2]
    cluster.start(2)
    cluster.submit(NodeExited(NodeId(2), old, cluster.now_ns))
    assert cluster.refusal() is Refusal.SUPERSEDED
    assert cluster.state.nodes[NodeId(2)].alive


def test_an_exit_told_twice_changes_nothing_the_second_time() -> None:
    cluster = serving()
    cluster.kill(2)
    assert cluster.kill(2) == []


def test_one_declared_dead_gets_no_lease_by_heartbeat_and_must_register() -> None:
    cluster = serving()
    cluster.advance(LEASE_S, beating=(1, 3))
    cluster.beat(2, local=LOCAL_UPTODATE)
    assert cluster.refusal() is Refusal.DECLARED_DEAD
    assert cluster.publics() == "SOS"
    cluster.register(2)
    assert cluster.refusal() is None
    assert cluster.publics() == "SYS"


def test_a_repeated_heartbeat_is_refused() -> None:
    cluster = serving()
    event = cluster.heartbeat(1, tuple(cluster.reports(1, None)))
    cluster.submit(event)
    cluster.submit(event)
    assert cluster.refusal() is Refusal.OUT_OF_ORDER
    assert cluster.publics() == "SSS"


# ---- order: what arrives late


def test_a_registration_of_a_dead_process_does_not_displace_the_living_one() -> None:
    """It was drawn first, and arrives after the next process of the node has registered."""
    cluster = Cluster()
    cluster.start(1, 3)
    late = cluster.registration(2, tuple(cluster.reports(2, LOCAL_ONLINE)), incarnation=b"d" * 16)
    cluster.start(2)
    cluster.beat(1, 2, 3, used_bytes=1)
    assert cluster.publics() == "SSS"
    cluster.submit(late)
    assert cluster.refusal() is Refusal.OUT_OF_DATE
    assert cluster.publics() == "SSS"
    assert cluster.state.nodes[NodeId(2)].incarnation == cluster.incarnations[2]
    cluster.beat(2, used_bytes=1)
    assert cluster.refusal() is None


def test_a_late_copy_of_its_own_registration_says_nothing_again() -> None:
    """When it began the process held no target; it has made them since, and serves."""
    cluster = Cluster()
    cluster.incarnations[2] = b"2" * 16
    first = cluster.registration(2, ())
    cluster.submit(first)
    cluster.start(1, 3)
    cluster.beat(2)
    assert cluster.publics() == "SSS"
    for copy in range(2):
        cluster.submit(first)
        assert cluster.refusal() is Refusal.OUT_OF_DATE, copy
        assert cluster.publics() == "SSS"


def test_a_late_heartbeat_from_before_a_registration_is_ignored() -> None:
    cluster = serving()
    late = cluster.heartbeat(2, ())
    cluster.register(2, used_bytes=1)
    cluster.submit(late)
    assert cluster.refusal() is Refusal.OUT_OF_ORDER
    assert cluster.publics() == "SSS"


def test_a_late_heartbeat_of_a_former_term_is_ignored() -> None:
    """The new term knows no sequence yet, so the term itself decides."""
    cluster = serving()
    late = cluster.heartbeat(2, ())
    cluster.state = resumed(cluster.state, cluster.now_ns, cluster.state.lease_ns, 1)
    cluster.submit(late)
    assert cluster.refusal() is Refusal.OTHER_TERM
    assert cluster.publics() == "SSS"
    cluster.beat(2, used_bytes=1)
    assert cluster.refusal() is None


def test_a_number_of_a_former_term_does_not_count_and_the_living_draw_again() -> None:
    """A primary that does not know yet that it is deposed gives one out after that of the new
    term was drawn: the two have no order."""
    cluster = serving()
    cluster.kill(2)
    stale = cluster.registration(2, (), incarnation=b"n" * 16)
    cluster.state = resumed(cluster.state, cluster.now_ns, cluster.state.lease_ns, 1)
    cluster.submit(stale)
    assert cluster.refusal() is Refusal.OUT_OF_DATE
    assert not cluster.state.nodes[NodeId(2)].alive
    cluster.start(2, used_bytes=1)
    assert cluster.refusal() is None
    assert cluster.publics() == "SYS"


def test_a_number_that_nobody_drew_does_not_count() -> None:
    cluster = serving()
    event = cluster.registration(2, (), incarnation=b"n" * 16)
    cluster.submit(replace(event, number=event.number + 1))
    assert cluster.refusal() is Refusal.OUT_OF_DATE
    assert cluster.publics() == "SSS"


def test_drawing_changes_nothing_in_the_world() -> None:
    cluster = serving()
    before = cluster.state
    assert cluster.submit(NumberDrawn()) == []
    assert replace(cluster.state, drawn=before.drawn) == before


def test_of_two_processes_with_one_node_id_one_ends_and_stays_away() -> None:
    """An operator's mistake. Whichever registered and was displaced may not fight its way back."""
    cluster = serving()
    one, other = b"1" * 16, b"2" * 16
    first = cluster.registration(2, (), incarnation=one)
    cluster.submit(cluster.registration(2, (), incarnation=other))
    cluster.submit(first)  # drawn earlier: it may be dead
    assert cluster.refusal() is Refusal.OUT_OF_DATE
    cluster.submit(cluster.registration(2, (), incarnation=one))  # but it is not
    assert cluster.refusal() is None
    for _ in range(3):
        cluster.submit(cluster.registration(2, (), incarnation=other))
        assert cluster.refusal() is Refusal.SUPERSEDED
        assert cluster.state.nodes[NodeId(2)].incarnation == one


def test_an_unknown_node_must_register() -> None:
    cluster = serving()
    cluster.submit(Heartbeat(NodeId(9), b"x" * 16, 0, 1, (), 0))
    assert cluster.refusal() is Refusal.UNKNOWN_NODE
    cluster.submit(Heartbeat(NodeId(1), b"x" * 16, 0, 1, (), 0))
    assert cluster.refusal() is Refusal.UNKNOWN_NODE


def test_up_to_date_under_an_older_chain_version_promotes_nobody() -> None:
    cluster = serving()
    cluster.kill(2)
    cluster.start(2)
    cluster.beat(2, local=LOCAL_UPTODATE, stale=1)
    assert cluster.publics() == "SYS"
    cluster.beat(2, local=LOCAL_UPTODATE)
    assert cluster.publics() == "SSS"


def test_online_under_an_older_chain_version_demotes_nobody() -> None:
    cluster = serving()
    cluster.beat(2, local=LOCAL_ONLINE, stale=1)
    assert cluster.publics() == "SSS"


def test_a_disk_that_failed_is_believed_under_any_chain_version() -> None:
    cluster = serving()
    cluster.beat(2, local=LOCAL_OFFLINE, stale=1)
    assert cluster.publics() == "SOS"


def test_a_target_of_another_node_is_refused() -> None:
    cluster = serving()
    reports = tuple(cluster.reports(1, LOCAL_UPTODATE))
    cluster.submit(cluster.heartbeat(2, reports))
    assert cluster.refusal() is Refusal.FOREIGN_TARGET
    assert "wrong server" in str(cluster.effects[0])
    assert cluster.publics() == "SSS"


# ---- leaving


def test_a_live_target_leaves_in_two_steps() -> None:
    """Reads stop first, under a version whose writes need its answer; then it goes."""
    cluster = serving()
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    assert cluster.publics() == "SYS"
    cluster.beat(2, local=LOCAL_UPTODATE, stale=1)  # has not seen the new version: may still read
    assert cluster.publics() == "SYS"
    cluster.beat(2, local=LOCAL_ONLINE)
    assert cluster.publics() == "SOS"
    cluster.beat(2, local=LOCAL_ONLINE)
    assert cluster.publics() == "SOS"


def test_a_leaving_target_that_dies_is_gone() -> None:
    cluster = serving()
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    cluster.kill(2)
    assert cluster.publics() == "SOS"
    cluster.start(2)
    assert cluster.publics() == "SOS"


def test_a_leaving_target_that_does_not_know_stays_in_the_way_of_writes() -> None:
    """If it went, the returning LASTSRV could take writes that its stale reads do not show."""
    cluster = serving(nodes=2)
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    cluster.kill(1)
    assert cluster.publics() == "LY"
    cluster.start(1, used_bytes=1)
    cluster.beat(1, local=LOCAL_UPTODATE, used_bytes=1)
    assert cluster.publics() == "SY"
    cluster.beat(2, local=LOCAL_ONLINE)
    assert cluster.publics() == "SO"


def test_a_target_that_begins_to_leave_as_another_process_returns_is_not_dropped_at_once() -> None:
    """The return is two steps of one event; no report can speak of the first one yet."""
    cluster = serving()
    cluster.submit(TargetLeaves(cluster.target(1), True, cluster.now_ns))
    assert cluster.publics() == "YSS"
    cluster.beat(2, 3, local=LOCAL_UPTODATE)
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    assert cluster.publics() == "YSS"
    cluster.start(1, used_bytes=1)
    assert cluster.publics() == "OYS"
    cluster.beat(2, local=LOCAL_UPTODATE)
    assert cluster.publics() == "OOS"


def test_the_only_copy_cannot_leave() -> None:
    cluster = serving(nodes=1)
    cluster.submit(TargetLeaves(cluster.target(1), True, cluster.now_ns))
    assert cluster.publics() == "S"


def test_leaving_waits_while_another_syncs_and_can_be_taken_back() -> None:
    cluster = serving()
    cluster.kill(3)
    cluster.start(3)
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    assert cluster.publics() == "SSY"
    cluster.submit(TargetLeaves(cluster.target(2), False, cluster.now_ns))
    cluster.beat(3, local=LOCAL_UPTODATE)
    assert cluster.publics() == "SSS"


def test_one_called_back_while_it_leaves_is_not_dropped_when_the_others_die() -> None:
    """Its server has not heard that reads stop, and may answer them until it has."""
    cluster = serving()
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    assert cluster.publics() == "SYS"
    cluster.submit(TargetLeaves(cluster.target(2), False, cluster.now_ns))
    cluster.kill(1)
    cluster.kill(3)
    assert cluster.publics() == "OYL"
    cluster.beat(2, local=LOCAL_UPTODATE, used_bytes=1, stale=1)
    assert cluster.publics() == "OYL"
    cluster.beat(2, local=LOCAL_UPTODATE, used_bytes=1)
    assert cluster.publics() == "OWL"


def test_a_waiting_target_may_leave() -> None:
    cluster = serving()
    cluster.kill(1)
    cluster.kill(2)
    cluster.start(1, 2)
    cluster.submit(TargetLeaves(cluster.target(2), True, cluster.now_ns))
    assert cluster.publics() == "YOS"


def test_an_unknown_target_cannot_leave() -> None:
    cluster = serving()
    cluster.submit(TargetLeaves(cluster.target(1), True, 0))
    cluster = serving()
    effects = apply(cluster.state, TargetLeaves(123456789, True, 0))[1]  # type: ignore[arg-type]
    assert "in no chain" in str(effects[0])


# ---- time of mgmtd itself


def test_a_pause_of_mgmtd_kills_nobody() -> None:
    cluster = serving()
    cluster.advance(1, beating=(1, 2, 3))
    cluster.now_ns += 60 * SECOND
    cluster.submit(Tick(cluster.now_ns))
    assert cluster.publics() == "SSS"
    cluster.advance(LEASE_S - 0.5)
    assert cluster.publics() == "SSS"
    cluster.advance(0.5)
    assert sorted(cluster.publics()) == ["L", "O", "O"]


def test_after_a_restart_everybody_counts_as_just_seen_and_silence_means_nothing() -> None:
    cluster = serving()
    cluster.now_ns = 1_000 * SECOND
    cluster.state = resumed(cluster.state, cluster.now_ns, cluster.state.lease_ns, 1)
    cluster.submit(Tick(cluster.now_ns))
    assert cluster.publics() == "SSS"
    cluster.advance(LEASE_S - 0.5, beating=(1, 2))
    assert cluster.publics() == "SSS"
    cluster.advance(0.5, beating=(1, 2))
    assert cluster.publics() == "SSO"


def test_a_shorter_lease_after_a_restart_waits_for_the_longer_ones() -> None:
    cluster = serving()
    cluster.state = resumed(cluster.state, cluster.now_ns, 2 * SECOND, 1)
    cluster.advance(LEASE_S - 0.5, beating=(1, 2))
    assert cluster.publics() == "SSS"
    cluster.advance(0.5, beating=(1, 2))
    assert cluster.publics() == "SSO"


# ---- effects


def test_an_event_that_changes_nothing_has_no_effects() -> None:
    cluster = serving()
    cluster.beat(1, used_bytes=1)
    assert cluster.effects == []


def test_persist_comes_before_the_routing_and_names_what_changed() -> None:
    cluster = serving(nodes=4, replicas=3, chains=4)
    effects = cluster.kill(2)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Persist) < kinds.index(RoutingChanged)
    with_2 = {c.id for c in cluster.state.chains.values() if any(t.node == 2 for t in c.targets)}
    changed = cluster.routing_changes()[0]
    assert set(changed.chains) == with_2
    assert changed.version == cluster.state.version
    persist = next(effect for effect in effects if isinstance(effect, Persist))
    assert persist.nodes == (2,)
    assert set(persist.chains) == with_2


def test_events_leave_the_former_state_as_it_was() -> None:
    cluster = serving()
    before = cluster.state
    version, chain = before.version, before.chains[cluster.chain().id]
    cluster.kill(2)
    assert before.version == version
    assert before.chains[chain.id] is chain
    assert before.nodes[NodeId(2)].alive


def test_moves_tell_row_and_reason() -> None:
    cluster = serving()
    moved = [effect for effect in cluster.kill(2) if isinstance(effect, Moved)]
    assert [move.move.row.reason for move in moved] == ["its server is gone"]


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_versions_grow_by_one_per_event(nodes: int) -> None:
    cluster = serving(nodes=nodes)
    for node in range(1, nodes + 1):
        before, routing = cluster.chain().version, cluster.state.version
        cluster.start(node)
        assert cluster.chain().version - before == 1
        assert cluster.state.version - routing == 1
        cluster.beat(*range(1, nodes + 1), local=LOCAL_UPTODATE, used_bytes=1)


def test_the_table_has_no_row_that_no_story_reaches() -> None:
    """The rows that move a target; those that keep it are counted in test_cluster_random."""
    moving = {row.id for row in TABLE if row.next is not row.public}
    told = {"F1", "S1", "S3", "S4", "S5", "S6", "L1", "Y1", "Y2", "Y3", "Y6", "Y7"}
    assert moving == told | {"W1", "W2", "W3", "O2", "O3"}
