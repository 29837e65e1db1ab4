"""`fs3 cluster init`, and what the local commands ask of mgmtd."""

import contextlib
import pathlib
import secrets
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster_dir import ClusterDir, Shape
from fs3.limits import LEASE_S_DEFAULT

if TYPE_CHECKING:
    from fs3._proto import mgmtd_pb2

MGMTD_TIMEOUT_S = 5.0


@click.group()
def cluster() -> None:
    """Make a new cluster."""


@cluster.command()
@click.option("--data", type=click.Path(path_type=pathlib.Path, file_okay=False), required=True)
@click.option("--nodes", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option("--replicas", type=click.IntRange(1, 8), default=3, show_default=True)
def init(data: pathlib.Path, nodes: int, replicas: int) -> None:
    """Write identity, keys and chain tables of a new cluster; `fs3 up` does it by itself."""
    directory = ClusterDir(data)
    if directory.exists():
        raise click.ClickException(
            f"{directory.root} already holds cluster {directory.load_shape().cluster_id}; "
            "take another directory, or forget this one with: fs3 down --erase"
        )
    if replicas > nodes:
        raise click.UsageError(f"--replicas {replicas} needs as many nodes, there are {nodes}")
    shape = Shape(secrets.token_hex(16), nodes, replicas, 2 * nodes, LEASE_S_DEFAULT)
    initialise(directory, shape)
    click.echo(
        f"cluster {shape.cluster_id} in {directory.root}: {shape.chains} chains of {replicas}"
    )


def initialise(directory: ClusterDir, shape: Shape) -> None:
    """Writes identity and keys. mgmtd makes the chain tables from the shape at its first start.

    cluster.json comes last: a crash before it is repeated from the start.
    """
    from fs3.auth.keyring import Keyring

    directory.root.mkdir(parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in directory.root.iterdir())
    foreign = [name for name in foreign if name not in _OWN_NAMES]
    if foreign:
        raise click.ClickException(
            f"{directory.root} is not empty (it has {foreign[0]!r}) and holds no cluster; "
            "name an empty or a new directory with --data"
        )
    directory.keyring.unlink(missing_ok=True)
    Keyring.create(directory.keyring)
    directory.save_shape(shape)


_OWN_NAMES = {"run", "logs", "keyring"}


def report_exit(address: str, node_id: int, incarnation: bytes, status: int) -> None:
    """Tells mgmtd that a process is certainly gone. Nothing is lost when mgmtd cannot be
    reached."""
    import grpc

    from fs3._proto import mgmtd_pb2
    from fs3.errors import OutcomeUnknown
    from fs3.runtime.clock import RealClock
    from fs3.runtime.managers import Managers

    request = mgmtd_pb2.ReportExitRequest(
        node_id=node_id, incarnation=incarnation, exit_status=status
    )
    managers = Managers(address, clock=RealClock())
    with contextlib.closing(managers), contextlib.suppress(grpc.RpcError, OutcomeUnknown):
        managers.ask(
            lambda stub: stub.ReportExit(request, timeout=MGMTD_TIMEOUT_S),
            timeout_s=MGMTD_TIMEOUT_S if "," in address else 0,
            what="report_exit",
        )


def query_status(address: str) -> "mgmtd_pb2.StatusReply":
    """The primary's Status; `address`: one manager or several with commas. Raises ClickException
    when none answers as primary."""
    import grpc

    from fs3._proto import mgmtd_pb2
    from fs3.errors import OutcomeUnknown
    from fs3.runtime.clock import RealClock
    from fs3.runtime.managers import Managers, call_reason

    request = mgmtd_pb2.StatusRequest()
    managers = Managers(address, clock=RealClock())
    try:
        with contextlib.closing(managers):
            reply: mgmtd_pb2.StatusReply = managers.ask(
                lambda stub: stub.Status(request, timeout=MGMTD_TIMEOUT_S),
                timeout_s=MGMTD_TIMEOUT_S if "," in address else 0,
                what="status",
            )
            return reply
    except (grpc.RpcError, OutcomeUnknown) as error:
        reason = error.detail if isinstance(error, OutcomeUnknown) else call_reason(error)
        raise click.ClickException(f"{reason} See: fs3 ps") from None
