"""The board: watchers get the newest, versions only grow, slow ones skip."""

import threading

import pytest

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.mgmtd.routing import Board, encode, reports_of
from fs3.types import NodeId
from tests.unit.cluster_driver import serving


def info(version: int) -> common_pb2.RoutingInfo:
    return common_pb2.RoutingInfo(version=version)


def test_a_watcher_gets_the_newest_at_once_and_skips_what_it_missed() -> None:
    board = Board()
    for version in (1, 2, 3):
        board.publish(info(version))
    watch = board.watch(threading.Event())
    assert next(watch).version == 3
    board.publish(info(4))
    board.publish(info(5))
    assert next(watch).version == 5
    board.close()
    assert list(watch) == []


def test_a_watcher_that_knows_the_newest_waits() -> None:
    board = Board()
    board.publish(info(7))
    got: list[int] = []
    watch = board.watch(threading.Event(), known_version=7)
    thread = threading.Thread(target=lambda: got.extend(r.version for r in watch))
    thread.start()
    board.publish(info(8))
    board.publish(info(9))
    while 9 not in got:
        threading.Event().wait(0.001)
    board.close()
    thread.join()
    assert got == sorted(set(got))
    assert got[0] > 7


def test_a_watcher_that_left_ends() -> None:
    board = Board()
    board.publish(info(1))
    gone = threading.Event()
    watch = board.watch(gone)
    next(watch)
    assert board.watchers() == 1
    gone.set()
    board.wake()
    assert list(watch) == []
    assert board.watchers() == 0


def test_an_older_routing_is_never_published() -> None:
    board = Board()
    board.publish(info(2))
    for version in (1, 2):
        with pytest.raises(AssertionError, match=f"routing {version} after 2"):
            board.publish(info(version))


def test_routing_tells_states_nodes_and_tables() -> None:
    cluster = serving(nodes=4, replicas=3, chains=4)
    cluster.kill(2)
    routing = encode(cluster.state)
    assert routing.version == cluster.state.version
    assert {node.id: node.alive for node in routing.nodes}[2] is False
    assert [table.chains for table in routing.tables] == [[1, 2, 3, 4]]
    for chain in routing.chains:
        states = [target.state for target in chain.targets]
        assert states == sorted(states)
        for target in chain.targets:
            down = target.node_id == NodeId(2)
            assert target.state == (common_pb2.OFFLINE if down else common_pb2.SERVING)


def test_an_unknown_local_state_counts_as_closed() -> None:
    target = mgmtd_pb2.LocalTarget(target_id=1, chain_id=1)
    target.MergeFromString(
        mgmtd_pb2.LocalTarget(state=2).SerializeToString().replace(b"\x02", b"\x63")
    )
    assert reports_of([target])[0].local == 0


def test_a_beat_reaches_every_watcher_and_hides_no_version() -> None:
    board = Board()
    board.publish(common_pb2.RoutingInfo(version=1))
    watch = board.watch(threading.Event())
    assert next(watch) is not None
    board.beat()
    board.beat()
    assert next(watch) is None
    board.beat()
    board.publish(common_pb2.RoutingInfo(version=2))
    newest = next(watch)
    assert newest is not None
    assert newest.version == 2
    board.close()
    assert list(watch) == []
