"""`fs3 check`: compares every replica of every chunk of the local cluster."""

import pathlib
import secrets
import time
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster import query_status
from fs3.cli.cluster_dir import ClusterDir, data_option, find_running

if TYPE_CHECKING:
    from fs3._proto import common_pb2
    from fs3.storage.admin import StorageAdmin
    from fs3.storage.checker import Report

TOKEN_LIFETIME_MS = 600_000


@click.command()
@data_option
@click.option("--deep", is_flag=True, help="Read all bytes, not only versions and checksums.")
@click.pass_context
def check(ctx: click.Context, data: pathlib.Path | None, deep: bool) -> None:
    """Compare the replicas of every chain: ids, versions, lengths, checksums (--deep: bytes).

    Exit code 3 when they differ. On a cluster under load, differences are looked at again before
    they count.
    """
    report = replica_report(find_running(data), deep=deep)
    click.echo(str(report))
    if not report.ok:
        ctx.exit(3)


def replica_report(cluster: ClusterDir, *, deep: bool) -> "Report":
    """Compares all serving replicas of a running local cluster."""
    from fs3.runtime.clock import RealClock
    from fs3.storage.checker import check as check_replicas

    routing = query_status(cluster.known_state()["mgmtd"]).routing
    return check_replicas(routing, storage_admin(cluster, routing), clock=RealClock(), deep=deep)


def storage_admin(cluster: ClusterDir, routing: "common_pb2.RoutingInfo") -> "StorageAdmin":
    """Questions to the storage servers, with a server capability from the cluster's keyring."""
    from fs3.auth.capability import RIGHT_SERVER, Capability, mint
    from fs3.auth.keyring import Keyring
    from fs3.storage.admin import RpcConnection, StorageAdmin

    keyring = Keyring.load(cluster.keyring)
    instance_id = secrets.token_bytes(16)

    def token() -> bytes:
        now_ms = int(time.time() * 1000)
        capability = Capability(
            rights=RIGHT_SERVER,
            cluster=routing.cluster_id[:4],
            inode=0,
            client=instance_id,
            issued_ms=now_ms,
            expiry_ms=now_ms + TOKEN_LIFETIME_MS,
        )
        return mint(capability, keyring)

    def connect(address: str) -> RpcConnection:
        return RpcConnection(
            address,
            cluster_id=routing.cluster_id,
            instance_id=instance_id,
            token=token,
        )

    return StorageAdmin(routing, connect)
