"""`fs3 status`: one screen, from mgmtd's point of view."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

import click

from fs3.cli.cluster import query_status
from fs3.cli.cluster_dir import data_option, find_running
from fs3.limits import GIB

if TYPE_CHECKING:
    from fs3._proto import mgmtd_pb2

_STATES = {0: "unknown", 1: "serving", 2: "lastsrv", 3: "syncing", 4: "waiting", 5: "offline"}
UNHEALTHY = 3


@click.command()
@data_option
@click.option("--mgmtd", help="HOST:PORT[,..] of the managers, instead of the local cluster's.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or for programs.",
)
@click.pass_context
def status(ctx: click.Context, data: pathlib.Path | None, mgmtd: str | None, output: str) -> None:
    """Health, nodes, chains and capacity. Exit code 3 when the cluster is not well."""
    reply = query_status(mgmtd or find_running(data).known_state()["mgmtd"])
    summary = _summary(reply)
    click.echo(json.dumps(summary, indent=1) if output == "json" else _table(summary))
    if not reply.healthy:
        ctx.exit(UNHEALTHY)


def _summary(reply: "mgmtd_pb2.StatusReply") -> dict[str, Any]:
    names = {entry.node.id: entry.node.name for entry in reply.nodes}
    return {
        "healthy": reply.healthy,
        "health": reply.health,
        "routing_version": reply.routing.version,
        "epoch": reply.epoch,
        "nodes": [_node(entry) for entry in reply.nodes],
        "chains": [
            {
                "id": chain.id,
                "version": chain.version,
                "targets": [
                    {
                        "target": target.target_id,
                        "node": names.get(target.node_id, str(target.node_id)),
                        "state": _STATES[target.state],
                    }
                    for target in chain.targets
                ],
            }
            for chain in reply.routing.chains
        ],
    }


def _node(entry: "mgmtd_pb2.NodeStatus") -> dict[str, Any]:
    # Targets of one disk share its space, so the node has what its largest target reports.
    capacity = max((target.capacity_bytes for target in entry.targets), default=0)
    free = max((target.free_bytes for target in entry.targets), default=0)
    return {
        "id": entry.node.id,
        "name": entry.node.name,
        "role": entry.node.role,
        "alive": entry.node.alive,
        "heartbeat_age_s": round(entry.last_heartbeat_age_s, 2),
        "address": entry.node.addresses[0] if entry.node.addresses else "",
        "capacity_bytes": capacity,
        "free_bytes": free,
        "used_bytes": sum(target.used_bytes for target in entry.targets),
        "damaged_chunks": sum(target.damaged_chunks for target in entry.targets),
        "repaired_chunks": sum(target.repaired_chunks for target in entry.targets),
        "scrub_passes": max((target.scrub_passes for target in entry.targets), default=0),
        "scrub_age_s": round(max((t.scrub_age_s for t in entry.targets), default=0.0), 1),
    }


def _table(summary: dict[str, Any]) -> str:
    lines = [summary["health"], ""]
    lines.append(f"{'NODE':<11} {'STATE':<7} {'HEARTBEAT':>9} {'USED':>10} {'FREE':>10}  ADDRESS")
    for node in summary["nodes"]:
        lines.append(
            f"{node['name']:<11} {'alive' if node['alive'] else 'down':<7} "
            f"{node['heartbeat_age_s']:>7.1f} s {_gib(node['used_bytes']):>10} "
            f"{_gib(node['free_bytes']):>10}  {node['address']}"
        )
    lines += _integrity(summary["nodes"])
    lines += ["", f"{'CHAIN':<6} {'VERSION':>7}  REPLICAS (head first)"]
    for chain in summary["chains"]:
        replicas = "  ".join(f"{target['node']} {target['state']}" for target in chain["targets"])
        lines.append(f"{chain['id']:<6} {chain['version']:>7}  {replicas}")
    return "\n".join(lines)


def _integrity(nodes: list[dict[str, Any]]) -> list[str]:
    """What the disks' bytes are worth: one line per storage server."""
    lines = ["", f"{'DISK OF':<11} {'DAMAGED':>8} {'REPAIRED':>9}  SCRUBBED"]
    for node in nodes:
        if node["role"] != "storage":
            continue
        damaged, repaired = node["damaged_chunks"], node["repaired_chunks"]
        passes, age_s = node["scrub_passes"], node["scrub_age_s"]
        scrubbed = f"{_ago(age_s)} ago, {passes} times since it started" if passes else "not yet"
        lines.append(f"{node['name']:<11} {damaged:>8} {repaired:>9}  {scrubbed}")
    return lines


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size else "-"
