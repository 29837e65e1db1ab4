"""`fs3 down`, `fs3 ps`, `fs3 kill`: the processes of the local cluster."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import time
from typing import Any

import click

from fs3.cli.cluster_dir import (
    DEFAULT_DATA,
    END_OF_USE,
    ClusterDir,
    data_option,
    find,
    find_running,
    named,
)
from fs3.cli.supervisor import memory_bytes
from fs3.limits import MIB
from fs3.mount.keeper import mount_server

DOWN_TIMEOUT_S = 90.0


@click.command()
@data_option
@click.option(
    "--erase", is_flag=True, help="Also delete all data of the cluster. There is no way back."
)
@click.option("--yes", is_flag=True, help="Do not ask before erasing.")
def down(data: pathlib.Path | None, erase: bool, yes: bool) -> None:
    """Stop the local cluster; the data stays unless --erase."""
    cluster = find(data)
    if erase:
        _confirm(cluster, yes, said=data is not None)
    stopped = _stop(cluster)
    if erase:
        _erase(cluster)
    elif stopped:
        click.echo(f"stopped; data kept in {cluster.root} (fs3 up continues)")
    else:
        click.echo(f"the cluster in {cluster.root} was not running")


def _stop(cluster: ClusterDir) -> bool:
    pid = cluster.supervisor()
    if not pid:
        return False
    _say_users(cluster)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while cluster.running():
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"the supervisor (pid {pid}) did not stop in {DOWN_TIMEOUT_S:.0f} s; "
                f"see {cluster.logs}, or end it with: kill -9 {pid} (its processes end with it)"
            )
        time.sleep(0.02)
    return True


def _say_users(cluster: ClusterDir) -> None:
    mount = cluster.state().get("mount", "")
    if mount:
        from fs3.mount.umount import users

        if who := users(pathlib.Path(mount)):
            click.echo(f"{mount} {END_OF_USE} {who}", err=True)


def _confirm(cluster: ClusterDir, yes: bool, *, said: bool) -> None:
    """Asks on a terminal. Elsewhere --erase is enough for the cluster that was named or lies here;
    one that was only found because it runs is not erased by mistake."""
    shape = cluster.load_shape()
    what = f"all data of cluster {shape.cluster_id[:8]} in {cluster.root}"
    if yes:
        return
    if os.isatty(0):
        click.confirm(f"delete {what}?", abort=True)
    elif not said and cluster.root != DEFAULT_DATA.absolute() and "FS3_DATA" not in os.environ:
        raise click.UsageError(
            f"this would delete {what}; say so: fs3 down --erase {named(cluster)}"
        )


def _erase(cluster: ClusterDir) -> None:
    shape = cluster.load_shape()
    for name in [
        "mgmtd",
        "meta",
        "logs",
        "run",
        *(f"storage-{n}" for n in range(1, shape.nodes + 1)),
    ]:
        shutil.rmtree(cluster.root / name, ignore_errors=True)
    cluster.keyring.unlink(missing_ok=True)
    cluster.shape_file.unlink()
    with contextlib.suppress(OSError):  # the directory may hold something of the user's
        cluster.root.rmdir()
    click.echo(f"erased the cluster in {cluster.root}")


@click.command()
@data_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or for programs.",
)
def ps(data: pathlib.Path | None, output: str) -> None:
    """Processes of the local cluster: pid, memory (proportional set size), restarts."""
    state = find_running(data).known_state()
    processes = state["processes"]
    if output == "json":
        click.echo(json.dumps(processes, indent=1))
        return
    click.echo(
        f"{'NAME':<11} {'PID':>8} {'STATE':<9} {'MEMORY':>9} {'RESTARTS':>8}  "
        f"{'ADDRESS':<24} METRICS"
    )
    total = memory_bytes(int(state["supervisor"]))
    click.echo(_row("supervisor", int(state["supervisor"]), "ready", total, 0, ""))
    for name, entry in processes.items():
        size = memory_bytes(entry["pid"]) if entry["pid"] else 0
        size += memory_bytes(mount_server(entry["pid"])) if name == "mount" and entry["pid"] else 0
        total += size
        address = entry["addresses"][0] if entry["addresses"] else ""
        where = address or (state["mgmtd"] if name == "mgmtd" else "")
        if entry["metrics"]:
            where = f"{where:<24} http://{entry['metrics']}/metrics"
        click.echo(_row(name, entry["pid"], _condition(entry), size, entry["restarts"], where))
    click.echo(f"{'':<30} {total / MIB:5.0f} MiB in all")


def _condition(entry: dict[str, Any]) -> str:
    if not entry["pid"]:
        return "held" if entry["held"] else "down"
    return "ready" if entry["ready"] else "starting"


def _row(name: str, pid: int, state: str, size: int, restarts: int, address: str) -> str:
    return f"{name:<11} {pid:>8} {state:<9} {size / MIB:5.0f} MiB {restarts:>8}  {address}"


@click.command()
@click.argument("name")
@data_option
@click.option(
    "--hold", "hold_s", type=click.FloatRange(0, 86400), help="Keep it down for so many seconds."
)
def kill(name: str, data: pathlib.Path | None, hold_s: float | None) -> None:
    """Kill one process with SIGKILL, to see what happens. The supervisor starts it again after a
    pause.

    NAME as `fs3 ps` shows it: storage-2, meta, mgmtd, mount.
    """
    cluster = find_running(data)
    processes = cluster.known_state()["processes"]
    if name not in processes:
        raise click.UsageError(f"there is no {name}; there are {', '.join(processes)}")
    if hold_s is not None:
        (cluster.run / f"{name}.hold").write_text(f"{time.time() + hold_s}\n")
    pid = int(processes[name]["pid"])
    server = mount_server(pid) if name == "mount" and pid else 0
    if server and hold_s is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        click.echo(f"killed mount (pid {server}); the next process takes it over. Watch: fs3 ps")
        return
    if not pid:
        raise click.ClickException(f"{name} is down already; the supervisor starts it again soon")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    back = f"stays down for {hold_s:.0f} s" if hold_s else "comes back in about two seconds"
    click.echo(f"killed {name} (pid {pid}); it {back}. Watch: fs3 status")
