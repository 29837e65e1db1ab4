"""`fs3 up`: from nothing to a mounted, replicated cluster of real processes on this machine."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from fs3.cli.cluster_dir import (
    DEFAULT_DATA,
    DEFAULT_MOUNT,
    END_OF_USE,
    ClusterDir,
    Shape,
    register,
    write_durably,
)
from fs3.cli.foreground import Interrupted, StopRequests, in_background, printed
from fs3.cli.ports import FIRST_PORT, reserved_ports
from fs3.cli.supervisor import Process, StartError, Supervisor, ending
from fs3.limits import GIB, LEASE_S_DEFAULT, LEASE_S_MAX, LEASE_S_MIN, MIB

FIRST_STORAGE_NODE = 101  # node ids of storage-1, storage-2, ...
TICK_S = 0.1


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user asked for."""

    data: pathlib.Path
    mount: pathlib.Path | None
    nodes: int
    replicas: int
    lease_s: float
    capacity_mib: int  # 0: what the disk has
    first_port: int = FIRST_PORT


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    default=DEFAULT_DATA,
    show_default=True,
    help="Everything lives in this directory.",
)
@click.option(
    "--mount",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    default=DEFAULT_MOUNT,
    show_default=True,
    help="Mount point; made when missing.",
)
@click.option("--nodes", type=click.IntRange(1, 64), help="Storage nodes of a new cluster (3).")
@click.option("--replicas", type=click.IntRange(1, 8), help="Copies of each chunk (3).")
@click.option(
    "--lease-s",
    type=click.FloatRange(LEASE_S_MIN, LEASE_S_MAX),
    help="Lease: after so long a silent node counts as dead (4).",
)
@click.option("--no-mount", is_flag=True, help="No mount: Python client and commands only.")
@click.option(
    "--capacity-mib",
    type=click.IntRange(64, 1 << 40),
    help="Space each storage node may use. Default: what the disk has.",
)
@click.option(
    "--port",
    type=click.IntRange(1024, 65000),
    default=FIRST_PORT,
    show_default=True,
    help="The first TCP ports of 127.0.0.1 that are free from here on are used.",
)
@click.option("-d", "--detach", is_flag=True, help="In the background; stop it with `fs3 down`.")
def up(
    data: pathlib.Path,
    mount: pathlib.Path,
    nodes: int | None,
    replicas: int | None,
    lease_s: float | None,
    no_mount: bool,
    capacity_mib: int | None,
    port: int,
    detach: bool,
) -> None:
    """Set up and run a whole cluster on this machine.

    Manager, metadata service, storage nodes and a mount, as real processes, with all data in one
    directory. On an existing directory it continues with the data.
    """
    cluster = ClusterDir(data)
    shape = cluster.load_shape() if cluster.exists() else None
    if shape is not None:
        _refuse_change(shape, nodes, replicas)
    options = Options(
        data=cluster.root,
        mount=None if no_mount else mount.absolute(),
        nodes=nodes or (shape.nodes if shape else 3),
        replicas=replicas or (shape.replicas if shape else min(3, nodes or 3)),
        lease_s=lease_s or (shape.lease_s if shape else LEASE_S_DEFAULT),
        capacity_mib=capacity_mib or 0,
        first_port=port,
    )
    if options.replicas > options.nodes:
        raise click.UsageError(
            f"--replicas {options.replicas} needs as many nodes, there are {options.nodes}: "
            "copies of a chunk never share a node"
        )
    _refuse_own_data(options)
    if detach:
        sys.exit(in_background(cluster.log, functools.partial(_run, cluster, options)))
    _run(cluster, options, printed, lambda: None)


def _refuse_change(shape: Shape, nodes: int | None, replicas: int | None) -> None:
    for name, wanted, has in (
        ("nodes", nodes, shape.nodes),
        ("replicas", replicas, shape.replicas),
    ):
        if wanted is not None and wanted != has:
            raise click.UsageError(
                f"this cluster has {has} {name}; --{name} {wanted} is for a new one "
                "(other directory, or `fs3 down --erase` first)"
            )


def _refuse_own_data(options: Options) -> None:
    """A mount over the data would hide it from the processes that keep it, and one inside it would
    be taken for something of the user's."""
    if options.mount is None:
        return
    # Only the parent is looked at: the mount point itself may be a dead mount.
    mount, data = options.mount.parent.resolve() / options.mount.name, options.data.resolve()
    if mount == data or mount in data.parents or data in mount.parents:
        raise click.UsageError(
            f"--mount {mount} and --data {data} overlap; take two directories side by side"
        )


def _run(
    cluster: ClusterDir,
    options: Options,
    say: Callable[[str], None],
    on_ready: Callable[[], None],
) -> None:
    begin_s = time.monotonic()
    ports_held = reserved_ports(2, options.first_port)
    with cluster.locked(), ports_held as ports, StopRequests().caught() as stop:
        mount = _usable_mount(options.mount, say)
        shape = _load_or_create(cluster, options)
        local = LocalCluster(cluster, shape, options, mount, ports, say)
        link = register(cluster)
        try:
            local.start(stop)
            say(local.banner(time.monotonic() - begin_s))
            on_ready()
            while not stop.asked:
                local.tick()
                time.sleep(TICK_S)
            say("  Stopping (Ctrl-C again: at once)")
        except StartError as error:
            raise click.ClickException(str(error)) from None
        except Interrupted:
            raise click.Abort from None
        finally:
            local.stop(stop)
            link.unlink(missing_ok=True)
        say(f"  Stopped; data kept in {_shorten(cluster.root)} (fs3 up continues)")


def _load_or_create(cluster: ClusterDir, options: Options) -> Shape:
    if cluster.exists():
        shape = dataclasses.replace(cluster.load_shape(), lease_s=options.lease_s)
        if shape != cluster.load_shape():
            cluster.save_shape(shape)
        return shape
    from fs3.cli.cluster import initialise

    shape = Shape(
        cluster_id=secrets.token_hex(16),
        nodes=options.nodes,
        replicas=options.replicas,
        chains=2 * options.nodes,
        lease_s=options.lease_s,
    )
    initialise(cluster, shape)
    return shape


def _usable_mount(mount: pathlib.Path | None, say: Callable[[str], None]) -> pathlib.Path | None:
    """The mount point, made when missing; None (with a sentence) when this machine cannot mount."""
    if mount is None:
        return None
    if obstacle := _fuse_obstacle():
        say(
            f"  No mount: {obstacle}.\n"
            "  The commands (fs3 put, fs3 ls, ...) and the Python client (fs3.Client) "
            "work all the same."
        )
        return None
    from fs3.mount.mount_point import check_mount_point

    # What is there already, perhaps a dead mount or a file, is for check_mount_point to judge.
    with contextlib.suppress(FileExistsError):
        os.makedirs(mount)
    check_mount_point(mount)
    return mount


def _fuse_obstacle(device: str = "/dev/fuse") -> str:
    """Why nobody can mount here; empty when this user can."""
    if not os.path.exists(device):
        return (
            f"this machine has no {device} (as root: modprobe fuse; in a container: start it "
            "with --device /dev/fuse --cap-add SYS_ADMIN)"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return f"this user may not open {device} (as root: chmod 666 {device})"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "there is no fusermount3, which ordinary users mount with (apt-get install fuse3)"
    return ""


class LocalCluster:
    """The processes of one machine's cluster, in the order they start."""

    def __init__(
        self,
        cluster: ClusterDir,
        shape: Shape,
        options: Options,
        mount: pathlib.Path | None,
        ports: list[int],
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._shape = shape
        self._options = options
        self._mount = mount
        self._supervisor = Supervisor(cluster.run, self._on_exit)
        self._say = say
        self._mgmtd, self._meta = (f"127.0.0.1:{port}" for port in ports)

    def start(self, stop: StopRequests) -> None:
        """All at once: each daemon waits by itself for the one it needs. Raises Interrupted when
        `stop` was asked for meanwhile."""
        servers = [self._mgmtd_process(), self._meta_process()]
        servers += [self._storage_process(number) for number in range(1, self._shape.nodes + 1)]
        for process in servers:
            self._supervisor.start(process)
        mounts = [self._mount_process()] if self._mount else []
        for process in mounts:
            self._supervisor.start(process)
        self._write_state()  # for `fs3 ps`, which may want to know what takes so long
        self._supervisor.wait_ready(
            [process.name for process in servers + mounts], interrupted=lambda: stop.asked
        )
        self._write_state()

    def _common(self, name: str, node_id: int) -> list[str]:
        identity = ["--name", name, "--node-id", str(node_id)]
        return [*identity, "--cluster-id", self._shape.cluster_id, "--metrics-port", "0"]

    def _process(self, name: str, node_id: int, arguments: list[str]) -> Process:
        return Process(name, arguments, self._cluster.logs / f"{name}.log", node_id)

    def _mgmtd_process(self) -> Process:
        arguments = ["serve", "mgmtd", "--data", str(self._cluster.root / "mgmtd")]
        arguments += ["--grpc", self._mgmtd, "--lease-s", str(self._shape.lease_s)]
        nodes = ",".join(str(FIRST_STORAGE_NODE + n) for n in range(self._shape.nodes))
        arguments += ["--storage-nodes", nodes, "--replicas", str(self._shape.replicas)]
        arguments += ["--chains", str(self._shape.chains)]
        return self._process("mgmtd", 1, arguments + self._common("mgmtd", 1))

    def _meta_process(self) -> Process:
        arguments = ["serve", "meta", "--data", str(self._cluster.root / "meta")]
        arguments += ["--listen", f"tcp://{self._meta}", "--mgmtd", self._mgmtd]
        arguments += ["--keyring", str(self._cluster.keyring)]
        return self._process("meta", 2, arguments + self._common("meta", 2))

    def _storage_process(self, number: int) -> Process:
        name, node_id = f"storage-{number}", FIRST_STORAGE_NODE + number - 1
        capacity = self._options.capacity_mib * MIB
        arguments = ["serve", "storage", "--data", str(self._cluster.root / name)]
        arguments += ["--listen", "tcp://127.0.0.1:0", "--mgmtd", self._mgmtd]
        arguments += ["--keyring", str(self._cluster.keyring), "--capacity", str(capacity)]
        return self._process(name, node_id, arguments + self._common(name, node_id))

    def _mount_process(self) -> Process:
        arguments = ["mount", str(self._mount), "--mgmtd", self._mgmtd, "--foreground"]
        arguments += ["--cluster-id", self._shape.cluster_id]
        return self._process("mount", 0, arguments)

    def tick(self) -> None:
        if self._supervisor.tick():
            self._write_state()

    def stop(self, stop: StopRequests) -> None:
        """The mount first: what programs wrote there and did not sync yet is stored."""
        from fs3.mount.mount_point import check_mount_point

        if self._mount is not None and self._supervisor.runs("mount"):
            self._say_users(self._mount)
        self._supervisor.stop(lambda text: self._say(f"  {text}"), hurry=lambda: stop.hurry)
        (self._cluster.run / "state.json").unlink(missing_ok=True)
        if self._mount is not None:
            with contextlib.suppress(OSError):  # takes away what a killed mount process left
                check_mount_point(self._mount)

    def _say_users(self, mount: pathlib.Path) -> None:
        from fs3.mount.umount import users

        if who := users(mount):
            self._say(f"  {_shorten(mount)} {END_OF_USE} {who}")

    def _on_exit(self, process: Process, status: int) -> None:
        """A storage node's death is proven: tell mgmtd, so nobody waits for the lease to run
        out."""
        self._say(
            f"  {process.name} ended ({ending(status)}); it is started again, see {process.log}"
        )
        incarnation = (process.ready or {}).get("incarnation", "")
        if process.node_id and process.name != "mgmtd" and incarnation:
            from fs3.cli.cluster import report_exit

            report_exit(self._mgmtd, process.node_id, bytes.fromhex(incarnation), status)

    def _write_state(self) -> None:
        processes = {}
        for process in self._supervisor.processes:
            processes[process.name] = {
                "pid": process.pid,
                "restarts": process.restarts,
                "ready": process.ready is not None,
                "held": process.held,
                "addresses": (process.ready or {}).get("addresses", []),
                "metrics": (process.ready or {}).get("metrics", ""),
                "log": str(process.log),
            }
        state: dict[str, Any] = {
            "supervisor": os.getpid(),
            "mgmtd": self._mgmtd,
            "mount": str(self._mount) if self._mount else "",
            "cluster_id": self._shape.cluster_id,
            "processes": processes,
        }
        write_durably(self._cluster.run / "state.json", json.dumps(state, indent=1) + "\n")

    def banner(self, seconds: float) -> str:
        """What a person sees when everything is ready."""
        by_name = {process.name: process for process in self._supervisor.processes}
        storage_s = max(p.ready_s for n, p in by_name.items() if n.startswith("storage-"))
        shape = self._shape
        lines = [
            _line("mgmtd", by_name["mgmtd"].ready_s, self._mgmtd),
            _line("meta", by_name["meta"].ready_s, _addresses(by_name["meta"])),
            _line(
                "storage",
                storage_s,
                f"{shape.nodes} nodes x 1 disk, {shape.chains} chains of {shape.replicas}",
            ),
        ]
        if self._mount:
            lines.append(_line("mount", by_name["mount"].ready_s, _shorten(self._mount)))
        free = shutil.disk_usage(self._cluster.root).free / GIB
        data = _shorten(self._cluster.root)
        where = (
            f" --data {shlex.quote(data)}" if self._cluster.root != DEFAULT_DATA.absolute() else ""
        )
        lines.append(
            f"  Ready in {seconds:.1f} s.   Data {data} ({free:.0f} GiB free, "
            f"{free / shape.replicas:.0f} GiB of it usable with {shape.replicas} copies)"
        )
        lines.append(self._try(where))
        down = f"fs3 down{where}"
        lines.append(
            f"  Stop: Ctrl-C or `{down}` (data kept; fs3 up continues; `{down} --erase` forgets)"
        )
        return "\n".join(lines)

    def _try(self, where: str) -> str:
        if self._mount:
            first = f"echo hello > {shlex.quote(_shorten(self._mount))}/a"
        else:
            first = f"echo hello > a; fs3 put a /{where}"
        kill = f"storage-{min(2, self._shape.nodes)}"
        tries = [first, f"fs3 status{where}", f"fs3 kill {kill}{where}"]
        tries += [f"fs3 selftest{where}"] if self._mount else []
        return "  Try:  " + "   |   ".join(tries)


def _line(name: str, seconds: float, text: str) -> str:
    return f"  {name:<8} ready {seconds:4.1f} s    {text}"


def _addresses(process: Process) -> str:
    return ", ".join((process.ready or {}).get("addresses", []))


def _shorten(path: pathlib.Path) -> str:
    """Relative to the working directory when it lies below it."""
    try:
        return f"./{path.relative_to(pathlib.Path.cwd())}"
    except ValueError:
        return str(path)
