"""`fs3 check`: is the cluster as it says it is, and can what is wrong be mended?"""

import os
import pathlib
import secrets
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster import query_status
from fs3.cli.cluster_dir import ClusterDir, data_option, find_running
from fs3.types import ChainId

if TYPE_CHECKING:
    from fs3._proto import common_pb2, mgmtd_pb2
    from fs3.cli.inspection import MetaInspection, Outcome
    from fs3.meta.fsck import NameSpace
    from fs3.storage.admin import RpcConnection, StorageAdmin
    from fs3.storage.checker import Difference, Report

TOKEN_LIFETIME_MS = 600_000
REFERENCES = ("leaked", "beyond", "misplaced")
SHOWN_MAX = 20
WHOLE_TIMEOUT_S = 120.0

EXIT_LEFT = 3  # something is wrong and was not mended
EXIT_MENDED = 6  # something was wrong, all of it is mended


@click.command()
@data_option
@click.option("--deep", is_flag=True, help="Read all bytes, not only versions and checksums.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@click.pass_context
def check(ctx: click.Context, data: pathlib.Path | None, deep: bool, repair: bool) -> None:
    """Check name space, chunk references and replicas of the running cluster.

    \b
    name space   every inode has its names, every entry its inode, directories form one tree
    references   every chunk belongs to a file, inside its length, on its chain
    replicas     ids, versions, lengths, checksums are equal on a chain (--deep: bytes too)

    With --repair: inodes without a name appear in /lost+found, entries that lead nowhere go, link
    counts and pointers are set right, chunks of inodes that are gone are removed, a replica that
    differs from two that agree is brought level again. Whatever could be the only copy is left
    alone, and told.

    Works while the cluster is in use: what is found is looked at again before anything is done.

    \b
    Exit codes: 0 nothing is wrong; 1 the check could not run; 2 wrong usage;
                3 something is wrong and not mended; 6 all that was wrong is mended.
    """
    outcome = run_check(find_running(data), deep=deep, mend=repair, say=click.echo)
    for line in outcome.left[:SHOWN_MAX]:
        click.echo(f"  left     {line}")
    if len(outcome.left) > SHOWN_MAX:
        click.echo(f"  left     {len(outcome.left) - SHOWN_MAX} more")
    if outcome.left:
        hint = "a person has to decide" if repair else "fs3 check --repair mends what it can"
        click.echo(f"{len(outcome.left)} left, {len(outcome.mended)} mended: {hint}")
        ctx.exit(EXIT_LEFT)
    if outcome.mended:
        click.echo(f"all is well again: {len(outcome.mended)} mended")
        ctx.exit(EXIT_MENDED)
    click.echo("all is well")


def run_check(
    cluster: ClusterDir, *, deep: bool, mend: bool, say: Callable[[str], None]
) -> "Outcome":
    """All three parts. Raises ClickException when a part cannot run."""
    from fs3.cli.inspection import MetaInspection, mend_name_space
    from fs3.errors import Fs3Error

    status = query_status(cluster.known_state()["mgmtd"])
    try:
        inspection = MetaInspection(_meta_connection(cluster, status))
        space = inspection.name_space()
        say(
            f"name space: {space.inodes} inodes, {space.entries} entries, "
            f"{len(space.files)} files: {_counted(len(space.findings), 'finding')}"
        )
        if mend:
            space, outcome = mend_name_space(inspection, space, say)
        else:
            outcome = _found(space)
        _check_chunks(cluster, status, inspection, space, outcome, deep=deep, mend=mend, say=say)
    except Fs3Error as error:
        raise click.ClickException(f"the check could not go on: {error}") from None
    return outcome


def _found(space: "NameSpace") -> "Outcome":
    from fs3.cli.inspection import Outcome

    return Outcome(left=[f"{finding.check}: {finding.detail}" for finding in space.findings])


def _check_chunks(
    cluster: ClusterDir,
    status: "mgmtd_pb2.StatusReply",
    inspection: "MetaInspection",
    space: "NameSpace",
    outcome: "Outcome",
    *,
    deep: bool,
    mend: bool,
    say: Callable[[str], None],
) -> None:
    from fs3.cli.inspection import listed, live_files, sort_references
    from fs3.runtime.clock import RealClock
    from fs3.storage.checker import check as check_replicas

    routing = status.routing
    admin = storage_admin(cluster, routing)
    report = check_replicas(routing, admin, clock=RealClock(), deep=deep, live=live_files(space))
    references = [d for d in report.differences if d.kind in REFERENCES]
    replicas = [d for d in report.differences if d.kind not in REFERENCES]
    now: dict[int, set[tuple[int, int]]] = {}

    def still_there(difference: "Difference") -> bool:
        if difference.chain not in now:
            now[difference.chain] = listed(routing, admin, ChainId(difference.chain))
        return difference.chunk in now[difference.chain]

    found = sort_references(
        references, inspection.name_space() if references else space, still_there
    )
    wrong = len(found.leaked) + len(found.unclear)
    say(f"references: {report.files} files: {_counted(wrong, 'chunk')} of nobody")
    outcome.left += [f"{difference}; {why}" for difference, why in found.unclear]
    if mend:
        _remove(routing, admin, found.leaked, outcome, say)
    else:
        outcome.left += [str(difference) for difference in found.leaked]
    report.differences = replicas
    say(f"replicas: {str(report).splitlines()[0]}")
    if mend and any(difference.wrong for difference in replicas):
        replicas = _resync(cluster, replicas, outcome, deep=deep, say=say)
    outcome.left += map(str, replicas)
    if report.more_differences:
        outcome.left.append(f"{report.more_differences} further differences were not looked at")


def _remove(
    routing: "common_pb2.RoutingInfo",
    admin: "StorageAdmin",
    leaked: "list[Difference]",
    outcome: "Outcome",
    say: Callable[[str], None],
) -> None:
    from fs3.errors import Fs3Error

    chains = {chain.id: chain for chain in routing.chains}
    for difference in leaked:
        assert difference.chunk is not None
        try:
            admin.remove(chains[difference.chain], difference.chunk, secrets.token_bytes(16))
        except Fs3Error as error:
            outcome.left.append(f"{difference}; its removal failed: {error}")
            continue
        inode, index = difference.chunk
        outcome.mended.append(f"chunk {inode}.{index} is removed")
        say(f"  mended   leaked: chunk {inode}.{index} of chain {difference.chain} is removed")


def _resync(
    cluster: ClusterDir,
    differences: "list[Difference]",
    outcome: "Outcome",
    *,
    deep: bool,
    say: Callable[[str], None],
) -> "list[Difference]":
    """Starts the servers of wrong replicas anew, one after the other: a returning replica is
    compared with its predecessor and brought level. What is different afterwards."""
    wrong = {target for difference in differences for target in difference.wrong}
    routing = query_status(cluster.known_state()["mgmtd"]).routing
    names = {node.id: node.name for node in routing.nodes}
    nodes = {t.node_id for c in routing.chains for t in c.targets if t.target_id in wrong}
    for node in sorted(nodes):
        _wait_whole(cluster)  # its neighbours must hold everything before it goes
        pid = int(cluster.state()["processes"].get(names[node], {}).get("pid") or 0)
        if not pid:
            outcome.left.append(f"{names[node]} runs elsewhere: start it anew there")
            continue
        os.kill(pid, signal.SIGKILL)
        say(f"  mended   {names[node]} was started anew, its replicas are brought level")
        _wait_restarted(cluster, names[node], pid)
        _wait_whole(cluster)
    after = [d for d in replica_report(cluster, deep=deep).differences if d.kind not in REFERENCES]
    healed = {d.chunk for d in differences} - {d.chunk for d in after}
    outcome.mended += [f"replicas of chunk {chunk} are equal again" for chunk in healed]
    return after


def _wait_restarted(cluster: ClusterDir, name: str, old_pid: int) -> None:
    def restarted() -> bool:
        entry = cluster.state().get("processes", {}).get(name, {})
        return bool(entry.get("ready")) and entry.get("pid") not in (0, None, old_pid)

    _wait(restarted, f"{name} did not come back")


def _wait_whole(cluster: ClusterDir) -> None:
    _wait(
        lambda: query_status(cluster.known_state()["mgmtd"]).healthy,
        "the chains did not become whole",
    )


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WHOLE_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException(f"{what} in {WHOLE_TIMEOUT_S:.0f} s; see fs3 status")
        time.sleep(0.2)


def _counted(number: int, noun: str) -> str:
    return f"no {noun}" if not number else f"{number} {noun}{'s' if number > 1 else ''}"


# ---- connections -----------------------------------------------------------------------------


def replica_report(cluster: ClusterDir, *, deep: bool) -> "Report":
    """Compares all serving replicas of a running local cluster."""
    from fs3.runtime.clock import RealClock
    from fs3.storage.checker import check as check_replicas

    routing = query_status(cluster.known_state()["mgmtd"]).routing
    return check_replicas(routing, storage_admin(cluster, routing), clock=RealClock(), deep=deep)


def storage_admin(cluster: ClusterDir, routing: "common_pb2.RoutingInfo") -> "StorageAdmin":
    """Questions to the storage servers."""
    from fs3.storage.admin import StorageAdmin

    return StorageAdmin(routing, _connector(cluster, routing.cluster_id))


def _meta_connection(cluster: ClusterDir, status: "mgmtd_pb2.StatusReply") -> "RpcConnection":
    node = next((n for n in status.routing.nodes if n.role == "meta" and n.alive), None)
    if node is None or not node.addresses:
        raise click.ClickException("no metadata service is alive; see fs3 ps")
    return _connector(cluster, status.routing.cluster_id)(node.addresses[0])


def _connector(cluster: ClusterDir, cluster_id: bytes) -> "Callable[[str], RpcConnection]":
    """Connections with a server capability from the cluster's keyring."""
    from fs3.auth.capability import RIGHT_SERVER, Capability, mint
    from fs3.auth.keyring import Keyring
    from fs3.storage.admin import RpcConnection

    keyring = Keyring.load(cluster.keyring)
    instance_id = secrets.token_bytes(16)

    def token() -> bytes:
        now_ms = int(time.time() * 1000)
        capability = Capability(
            rights=RIGHT_SERVER,
            cluster=cluster_id[:4],
            inode=0,
            client=instance_id,
            issued_ms=now_ms,
            expiry_ms=now_ms + TOKEN_LIFETIME_MS,
        )
        return mint(capability, keyring)

    def connect(address: str) -> RpcConnection:
        return RpcConnection(
            address, cluster_id=cluster_id, instance_id=instance_id, token=token, timeout_s=30.0
        )

    return connect
