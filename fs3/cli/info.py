"""`fs3 info`: where the bytes of a file live."""

import pathlib
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster import query_status
from fs3.cli.cluster_dir import data_option, find_running
from fs3.cli.connect import connected, inside
from fs3.layout import Tables, chain_of, tables_of

if TYPE_CHECKING:
    from fs3._proto import common_pb2

CHUNKS_SHOWN = 16


@click.command()
@click.argument("path")
@click.option("--all", "show_all", is_flag=True, help=f"Every chunk, not the first {CHUNKS_SHOWN}.")
@data_option
def info(path: str, show_all: bool, data: pathlib.Path | None) -> None:
    """Path to inode, layout, chunks, chains and replicas with their states."""
    with connected(data) as client:
        attributes = client.attributes(inside(path, data))
    routing = query_status(find_running(data).known_state()["mgmtd"]).routing
    layout = attributes.layout
    click.echo(f"inode {attributes.inode}, {attributes.size} bytes")
    if not layout.chunk_size:
        click.echo("no chunks: only regular files have a layout of their own")
        return
    click.echo(
        f"layout: chunks of {layout.chunk_size} bytes over {layout.stripe} chains "
        f"of table {layout.chain_table}.{layout.chain_table_version}, seed {layout.seed}"
    )
    tables = tables_of(routing)
    chains = {chain.id: chain for chain in routing.chains}
    names = {node.id: node.name for node in routing.nodes}
    count = -(-attributes.size // layout.chunk_size)
    for index in range(count if show_all else min(count, CHUNKS_SHOWN)):
        chain = chains[_chain(layout, index, tables)]
        click.echo(
            f"chunk {index:>5}  chain {chain.id} v{chain.version}  {_replicas(chain, names)}"
        )
    if count > CHUNKS_SHOWN and not show_all:
        click.echo(f"... {count - CHUNKS_SHOWN} more chunks (--all)")


def _chain(layout: "common_pb2.Layout", index: int, tables: Tables) -> int:
    try:
        return chain_of(layout, index, tables)
    except KeyError:
        raise click.ClickException(
            f"routing info has no chain table {layout.chain_table}.{layout.chain_table_version}; "
            "is this mgmtd of another cluster?"
        ) from None


def _replicas(chain: "common_pb2.Chain", names: dict[int, str]) -> str:
    from fs3._proto import common_pb2

    return "  ".join(
        f"{names.get(target.node_id, target.node_id)} (target {target.target_id}) "
        f"{common_pb2.TargetState.Name(target.state).lower()}"
        for target in chain.targets
    )
