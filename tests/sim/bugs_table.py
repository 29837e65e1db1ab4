"""All planted bugs: those of disks, servers, managers and clients; and the table of every one.

`tests/run` replays each with a seed that catches it (bugs.txt); the deep run finds each from seed 1
within 2,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fs3.errors import OutcomeUnknown, RetryElsewhere, RetryLater
from fs3.kv.election import Election
from fs3.mgmtd import cluster, transitions
from fs3.mgmtd.cluster import Event
from fs3.mgmtd.state import LOCAL_UPTODATE, ClusterState, TargetReport
from fs3.mgmtd.transitions import Belief, Public, Row, Situation
from fs3.types import ChainVersion
from tests.sim import messages
from tests.sim.bugs import Bugs, aimed, aimed_at_readers
from tests.sim.bugs_replica import REPLICA_BUGS
from tests.sim.disk import Chunk, Identity
from tests.sim.ledger import Operation
from tests.sim.loop import MS

if TYPE_CHECKING:
    from tests.sim.manager import Core
    from tests.sim.node import StorageNode
    from tests.sim.target import Target

__all__ = ["PLANTED"]


# ---- disks


class AnswerBeforeDurable(Bugs):
    name = "answer-before-durable"
    disk_quirks = frozenset({"sync-lies"})


class TailAnswersEarly(Bugs):
    """The tail answers while its write is still on the way to the disk."""

    name = "tail-answers-before-it-wrote"
    disk_quirks = frozenset({"answers-early"})


class ServesPending(Bugs):
    """A read sees the version that has not committed."""

    name = "serves-pending"
    disk_quirks = frozenset({"serves-pending"})


class WriteErrorIgnored(Bugs):
    """A failed write or sync is retried, which means: taken as done."""

    name = "write-error-ignored"
    disk_quirks = frozenset({"ignores-eio"})


class ChecksumNotVerified(Bugs):
    name = "checksum-not-verified"
    disk_quirks = frozenset({"no-checksum"})


class CommitWithoutRow(Bugs):
    """The dedup row is not written with the commit."""

    name = "commit-without-dedup-row"
    disk_quirks = frozenset({"no-dedup-row"})


ON_ENGINE: Mapping[str, str] = MappingProxyType({"engine": "1"})


class EngineLogNotSynced(Bugs):
    """The engine answers before the log of its metadata is on the device."""

    name = "engine-answers-before-the-log"
    aim = ON_ENGINE
    disk_quirks = frozenset({"sync-lies"})


class EngineDataNotFlushed(Bugs):
    """The engine's metadata names bytes that have not reached the device."""

    name = "engine-names-bytes-not-flushed"
    aim = ON_ENGINE
    disk_quirks = frozenset({"data-sync-lies"})


# ---- storage servers


class LeaseBeforeRouting(Bugs):
    """The lease begins before the routing was applied under which it was given."""

    name = "lease-before-routing"
    aim = aimed_at_readers("unseen")
    lease_before_routing = True

    def registered(self, node: StorageNode, routing: ClusterState) -> None:
        node.after(500 * MS, lambda: node.apply_routing(routing))


class LeaseFromReply(Bugs):
    """The lease is counted from when the answer came, not from when the request was sent."""

    name = "lease-counted-from-the-reply"
    aim = aimed_at_readers("unheard", lease_ns="2e9", slow="0.3", slow_ns="1e9")

    def lease_from_ns(self, sent_ns: int, now_ns: int) -> int:
        return now_ns


class LeaseTooLong(Bugs):
    name = "server-keeps-its-lease-too-long"
    aim = aimed_at_readers("unseen")
    lease_stretch = 1.7


class WallClockInLeases(Bugs):
    name = "wall-clock-in-leases"
    wall_clock_in_leases = True


class EmptyDiskMadeUp(Bugs):
    """A target that should hold acknowledged writes is made anew on a blank disk."""

    name = "target-made-up-on-a-blank-disk"
    aim = aimed("last_disk_away,most_die,kill")
    makes_up_targets = True


class PendingForgotten(Bugs):
    """A restart forgets pending versions."""

    name = "pending-forgotten-at-restart"

    def loaded(self, chunk: Chunk) -> Chunk:
        return chunk if chunk.committed is None else replace(chunk, pending=None)


class OlderChainAccepted(Bugs):
    """A message of any chain version is taken as one of the present version."""

    name = "any-chain-version-accepted"

    def arriving(self, target: Target, request: Any) -> Any:
        return replace(request, chain_version=target.replica.chain_version)


class ForwardOfAnyChain(Bugs):
    """The same, only for what the predecessor sends."""

    name = "forward-of-any-chain-version-accepted"

    def arriving(self, target: Target, request: Any) -> Any:
        if isinstance(request, messages.Forwarded):
            return replace(request, chain_version=target.replica.chain_version)
        return request


class DedupWithoutChannel(Bugs):
    """Updates are recognised by client and sequence, whatever the channel."""

    name = "dedup-without-channel"

    def arriving(self, target: Target, request: Any) -> Any:
        if isinstance(request, messages.UpdateRequest):
            client, _, sequence = request.identity
            return replace(request, identity=(client, 0, sequence))
        return request


class LastPagesForgotten(Bugs):
    """The first page of the successor's list is taken for all of it."""

    name = "resync-forgets-later-pages"
    one_page = True


class DoneEarly(Bugs):
    """Says that the successor is level when its list came."""

    name = "done-before-the-last-chunk"
    tells_done_early = True


class SyncingServes(Bugs):
    """A replica that is being brought level serves already."""

    name = "syncing-replica-serves"

    def state(self, public: Public) -> Public:
        return Public.SERVING if public is Public.SYNCING else public


class ReportsUptodate(Bugs):
    """Whatever the replica says, the report says that it is up to date."""

    name = "reports-up-to-date-too-early"

    def report(self, node: StorageNode, report: TargetReport) -> TargetReport:
        return replace(report, local=LOCAL_UPTODATE)


class ReportsAhead(Bugs):
    """A chain version is acknowledged when it arrives, and applied half a second later."""

    name = "chain-version-acknowledged-before-applied"
    aim = aimed_at_readers("leave,unseen_clients")

    def __init__(self) -> None:
        self._heard: dict[int, ClusterState] = {}

    def routing(self, node: StorageNode, routing: ClusterState) -> None:
        self._heard[node.id] = routing
        node.after(500 * MS, lambda: node.apply_routing(routing))
        node.nudge()

    def report(self, node: StorageNode, report: TargetReport) -> TargetReport:
        heard = self._heard.get(node.id)
        version = heard.chains[report.chain].version if heard else report.chain_version
        return replace(report, chain_version=ChainVersion(max(version, report.chain_version)))


class SameLife(Bugs):
    """A restarted process says that it is the old one."""

    name = "incarnation-used-again"

    def life(self, epoch: int) -> int:
        return 1


class ForwardsOldContent(Bugs):
    """Forwards name no identity: the successor cannot recognise retries."""

    name = "forward-without-identity"

    def leaving(self, target: Target, request: Any) -> Any:
        return replace(request, identity=(bytes(16), 0, 0))


# ---- managers


class ManagerInAHurry(Bugs):
    """Declares servers dead after half a lease."""

    name = "manager-in-a-hurry"
    aim = aimed_at_readers("unseen")

    def manager(self, core: Core) -> None:
        tick = core.tick

        def hurried() -> None:
            core.loop_clock.ahead_ns = core.process.world.plan.lease_ns // 2
            try:
                tick()
            finally:
                core.loop_clock.ahead_ns = 0

        core.tick = hurried  # type: ignore[method-assign]


def _resumed_as_it_was(state: ClusterState, now_ns: int, lease_ns: int, epoch: int) -> ClusterState:
    resumed = cluster_resumed(state, now_ns, lease_ns, epoch)
    nodes = {
        number: replace(node, last_seen_ns=now_ns - lease_ns)
        for number, node in resumed.nodes.items()
    }
    return replace(resumed, nodes=nodes)


cluster_resumed = cluster.resumed


class RestartIsImpatient(Bugs):
    """After a restart of mgmtd nobody gets the time to be heard."""

    name = "restarted-manager-is-impatient"
    patches = (("fs3.mgmtd.cluster.resumed", _resumed_as_it_was),)


class NoEpoch(Bugs):
    """Writes of the state do not compare the epoch."""

    name = "two-primaries-without-epoch"

    def election(self, election: Election) -> Election:
        election.guard = election._read  # type: ignore[assignment,method-assign]
        return election


class NotHeld(Bugs):
    """A primary whose own lease ended goes on acknowledging heartbeats."""

    name = "old-primary-grants-leases"
    aim = aimed_at_readers("former_primary", managers="3")

    def election(self, election: Election) -> Election:
        election.held = lambda: True  # type: ignore[method-assign]
        return election


class PublishedBeforeWritten(Bugs):
    """Routing goes out before it is in the store; a crash in between forgets it."""

    name = "routing-published-before-written"

    def manager(self, core: Core) -> None:
        persist = core._persist

        def persist_newest(what: Any) -> None:
            with suppress(RetryElsewhere):  # its term is over, as it knows then
                persist(core.newest(), what)

        def late(state: ClusterState, what: Any) -> None:
            if state.version <= 1:
                persist(state, what)
            else:
                core.process.after(300 * MS, lambda: persist_newest(what))

        core._persist = late  # type: ignore[method-assign]


class UnknownIsFailure(Bugs):
    """A commit whose outcome is not known counts as one that did not happen."""

    name = "unknown-commit-taken-as-failure"
    aim = aimed_at_readers("restart_manager,unseen", unknown="0.5", managers="2")

    def manager(self, core: Core) -> None:
        write = core._kv

        class Trusting:
            def __getattr__(self, name: str) -> Any:
                return getattr(write, name)

            def begin(self) -> Any:
                transaction = write.begin()
                commit = transaction.commit

                def careless() -> int:
                    try:
                        return commit()
                    except OutcomeUnknown as error:
                        raise RetryLater(error.code, error.where, error.detail) from None

                transaction.commit = careless  # type: ignore[method-assign]
                return transaction

        core._kv = Trusting()  # type: ignore[assignment]


def _row(change: dict[str, Public], extra: Row | None = None) -> Any:
    real = transitions.next_row

    def next_row(public: Public, belief: Belief, situation: Situation) -> Row:
        if extra is not None and extra.fits(public, belief, situation):
            return extra
        row = real(public, belief, situation)
        return replace(row, next=change[row.id]) if row.id in change else row

    return next_row


class LeaverDroppedAtOnce(Bugs):
    """A live server's target leaves the chain before the server knows."""

    name = "target-dropped-without-acknowledgement"
    aim = aimed_at_readers("leaves_unseen")
    patches = (("fs3.mgmtd.chains.next_row", _row({"S1": Public.OFFLINE})),)


class SyncingServesByTable(Bugs):
    """A syncing target is made serving by its first report."""

    name = "serving-before-level"
    patches = (("fs3.mgmtd.chains.next_row", _row({"Y5": Public.SERVING})),)


class LastServerReplaced(Bugs):
    """When the last that served is away, whoever is there serves."""

    name = "last-server-replaced-by-a-staler-one"
    patches = (
        (
            "fs3.mgmtd.chains.next_row",
            _row(
                {"L2": Public.OFFLINE},
                Row(
                    "O9",
                    Public.OFFLINE,
                    frozenset({Belief.ONLINE, Belief.UPTODATE}),
                    Public.SERVING,
                    "planted",
                    others_serve=False,
                ),
            ),
        ),
    )


class ExitOfAnybody(Bugs):
    """A report of an exit is believed whichever process it was."""

    name = "exit-of-a-former-process-believed"
    aim = aimed_at_readers("late_exit")

    def event(self, core: Core, event: Event) -> Event:
        if isinstance(event, cluster.NodeExited):
            node = core.newest().nodes.get(event.node)
            if node is not None:
                return replace(event, incarnation=node.incarnation)
        return event


class HeartbeatOfAnybody(Bugs):
    """A late heartbeat of a former process counts as one of the present."""

    name = "heartbeat-of-a-former-process-believed"
    aim = aimed("eio,eio_once", late="0.15", late_ns="8e9", nodes="3", replicas="3", chains="1")

    def event(self, core: Core, event: Event) -> Event:
        if isinstance(event, cluster.Heartbeat):
            node = core.newest().nodes.get(event.node)
            if node is not None and node.alive:
                return replace(
                    event,
                    incarnation=node.incarnation,
                    epoch=core.epoch,
                    sequence=node.sequence + 1,
                )
        return event


class RegistrationsWithoutOrder(Bugs):
    """A registration counts whenever it comes, also when its process is dead and another runs."""

    name = "registrations-without-order"
    aim = aimed("storm,kill", late="0.1", late_ns="8e9", nodes="3", replicas="3", chains="1")

    def event(self, core: Core, event: Event) -> Event:
        if isinstance(event, cluster.NodeRegistered):
            state = core.newest()
            node = state.nodes.get(event.identity.id)
            number = node.number + 1 if node is not None else 1
            core._state = replace(state, drawn=max(state.drawn, number))
            return replace(event, epoch=core.epoch, number=number)
        return event


class ReportOfAnyChain(Bugs):
    """What a server reports counts for the present chain version, whichever it spoke of."""

    name = "report-of-an-older-chain-version-believed"

    def event(self, core: Core, event: Event) -> Event:
        if isinstance(event, cluster.Heartbeat):
            known = core.newest().chains
            reports = tuple(replace(r, chain_version=known[r.chain].version) for r in event.reports)
            return replace(event, reports=reports)
        return event


# ---- clients


class NewIdentityPerAttempt(Bugs):
    """A retry is sent as a new update."""

    name = "retry-with-a-new-identity"

    def identity(self, operation: Operation) -> Identity:
        client, channel, sequence = super().identity(operation)
        return client, channel, sequence * 1000 + operation.attempts


PLANTED: dict[str, type[Bugs]] = {
    bug.name: bug
    for bug in (
        *REPLICA_BUGS,
        AnswerBeforeDurable,
        TailAnswersEarly,
        ServesPending,
        WriteErrorIgnored,
        ChecksumNotVerified,
        CommitWithoutRow,
        EngineLogNotSynced,
        EngineDataNotFlushed,
        LeaseBeforeRouting,
        LeaseFromReply,
        LeaseTooLong,
        WallClockInLeases,
        EmptyDiskMadeUp,
        PendingForgotten,
        OlderChainAccepted,
        ForwardOfAnyChain,
        DedupWithoutChannel,
        LastPagesForgotten,
        DoneEarly,
        SyncingServes,
        ReportsUptodate,
        ReportsAhead,
        SameLife,
        ForwardsOldContent,
        ManagerInAHurry,
        RestartIsImpatient,
        NoEpoch,
        NotHeld,
        PublishedBeforeWritten,
        UnknownIsFailure,
        LeaverDroppedAtOnce,
        SyncingServesByTable,
        LastServerReplaced,
        ExitOfAnybody,
        HeartbeatOfAnybody,
        RegistrationsWithoutOrder,
        ReportOfAnyChain,
        NewIdentityPerAttempt,
    )
}
