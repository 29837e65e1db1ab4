"""`fs3 serve`: one daemon in the foreground. The composition root: options become a configuration.

Each command imports its daemon when it runs, so that the others cost nothing.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from fs3.limits import HEARTBEAT_S_DEFAULT, LEASE_S_DEFAULT

if TYPE_CHECKING:
    from fs3.runtime.config import DaemonConfig

__all__ = ["serve"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound="DaemonConfig")

NATIVE_DEFAULT = "tcp://127.0.0.1:0"


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_common: Callable[[F], F] = _options(
    click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=pathlib.Path),
        metavar="FILE",
        help="TOML; its section [mgmtd], [meta] or [storage] has these options as keys with "
        "underscores. What is said here counts more.",
    ),
    click.option("--data", default="", metavar="DIR", help="The directory it owns alone."),
    click.option(
        "--grpc", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Tools."
    ),
    click.option("--cluster-id", default="", metavar="HEX", help="32 hex digits; refuses others."),
    click.option("--node-id", type=int, default=0, metavar="N", help="Its number in the cluster."),
    click.option("--name", default="", help="For people: storage-2."),
    click.option("--keyring", default="", metavar="FILE", help="Keys of the capabilities."),
    click.option("--metrics-port", type=int, default=-1, help="0: any free; -1: off."),
    click.option("--ready-fd", type=int, default=-1, help="Gets a JSON line when it serves."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text"),
    click.option("--log-level", default="info", show_default=True),
)
_store: Callable[[F], F] = _options(
    click.option(
        "--kv",
        default="",
        envvar="FS3_KV",
        metavar="ADDRESS",
        help="postgres://user@host/database instead of --data: several processes on one store.",
    ),
)
_native: Callable[[F], F] = _options(
    click.option(
        "--listen", multiple=True, default=[NATIVE_DEFAULT], show_default=True, metavar="ADDRESS"
    ),
    click.option("--mgmtd", default="", metavar="HOST:PORT[,..]", help="The cluster managers."),
)


@click.group()
def serve() -> None:
    """One daemon in the foreground: mgmtd, meta or storage."""


@serve.command()
@_common
@_store
@click.option("--lease-s", type=float, default=LEASE_S_DEFAULT, show_default=True)
@click.option("--heartbeat-s", type=float, default=HEARTBEAT_S_DEFAULT, show_default=True)
@click.option("--insecure-network", is_flag=True, help="Plain text from other hosts, too.")
@click.option("--storage-nodes", default="", metavar="1,2,3", help="Shape of a new cluster.")
@click.option("--disks-per-node", type=int, default=1, show_default=True)
@click.option("--replicas", type=int, default=3, show_default=True)
@click.option("--chains", type=int, default=0, help="0: two per storage server.")
def mgmtd(storage_nodes: str, **options: Any) -> None:
    """The cluster manager."""
    from fs3.mgmtd.daemon import run
    from fs3.runtime.config import MgmtdConfig

    try:
        options["storage_nodes"] = tuple(int(node) for node in storage_nodes.split(",") if node)
    except ValueError:
        raise click.BadParameter(f"{storage_nodes!r}: numbers with commas between") from None
    sys.exit(run(_parsed(MgmtdConfig, options)))


@serve.command()
@_common
@_store
@_native
@click.option(
    "--sync-interval-s",
    type=float,
    default=1.0,
    show_default=True,
    help="Of the store's log; fsync does not wait for it.",
)
@click.option(
    "--gc-delay-s", type=float, default=10.0, show_default=True, help="From unlink to removal."
)
@click.option(
    "--hosts",
    multiple=True,
    metavar="RULE",
    help="'NETWORK [admin] [uids=LOW-HIGH]': whose mounts may speak for which users; the root of a "
    "host that is no admin is nobody. Without any: every host is an admin.",
)
def meta(**options: Any) -> None:
    """The metadata service."""
    from fs3.meta.daemon import run
    from fs3.runtime.config import MetaConfig

    sys.exit(run(_parsed(MetaConfig, options)))


@serve.command()
@_common
@_native
@click.option("--disks", multiple=True, metavar="DIR", help="One per disk, instead of --data.")
@click.option("--capacity", "capacity_bytes", type=int, default=0, help="Bytes; 0: all there is.")
@click.option("--scrub-period-s", type=float, default=14 * 86400.0, show_default=True)
@click.option("--scrub-mib-s", type=float, default=32.0, show_default=True, help="At most.")
@click.option("--resync-mib-s", type=float, default=0.0, help="At most; 0: no bound.")
def storage(**options: Any) -> None:
    """The storage service."""
    from fs3.runtime.config import StorageConfig
    from fs3.storage.daemon import run

    sys.exit(run(_parsed(StorageConfig, options)))


def _parsed(kind: type[C], options: dict[str, Any]) -> C:
    """The checked configuration; a bad option or file is a usage error that names it."""
    from fs3.errors import BadRequest
    from fs3.runtime.config import load, parse

    path = options.pop("config")
    try:
        if path is None:
            return parse(kind, options, "options")
        context = click.get_current_context()
        said = {name: value for name, value in options.items() if _was_said(context, name)}
        return load(kind, path, str(context.info_name), **said)
    except BadRequest as error:
        where = f"{error.where}: " if path is not None else ""
        raise click.UsageError(where + error.detail) from None


def _was_said(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


if __name__ == "__main__":
    serve()
