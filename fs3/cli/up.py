"""`fs3 up`: from nothing to a mounted, replicated cluster of real processes on this machine."""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click

from fs3.cli.cluster_dir import (
    DEFAULT_DATA,
    DEFAULT_MOUNT,
    ClusterDir,
    Shape,
    register,
    write_durably,
)
from fs3.cli.supervisor import Process, StartError, Supervisor
from fs3.limits import GIB, LEASE_S_DEFAULT, LEASE_S_MAX, LEASE_S_MIN, MIB

FIRST_PORT = 7001
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
    "--lease-s", type=click.FloatRange(LEASE_S_MIN, LEASE_S_MAX), help="T in seconds (4)."
)
@click.option("--no-mount", is_flag=True, help="No mount: Python client and commands only.")
@click.option(
    "--capacity-mib",
    type=click.IntRange(64, 1 << 40),
    help="Space each storage node may use. Default: what the disk has.",
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
    )
    if options.replicas > options.nodes:
        raise click.UsageError(
            f"--replicas {options.replicas} needs as many nodes, there are {options.nodes}: "
            "copies of a chunk never share a node"
        )
    if detach:
        _in_background(cluster, options)
    else:
        _run(cluster, options, click.echo)


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


def _in_background(cluster: ClusterDir, options: Options) -> None:
    """Forks before anything is started; the parent prints what the child says until it is ready."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.setsid()
        _background_child(cluster, options, write_end)
    os.close(write_end)
    failed = False
    with os.fdopen(read_end) as pipe:
        for line in pipe:
            failed = failed or line.startswith("error: ")
            click.echo(line, nl=False, err=failed)
    if failed:
        sys.exit(1)


def _background_child(cluster: ClusterDir, options: Options, write_end: int) -> None:
    status = 0
    with os.fdopen(write_end, "w") as pipe:

        def say(text: str = "") -> None:
            if not pipe.closed:
                pipe.write(text + "\n")
                pipe.flush()

        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        try:
            _run(cluster, options, say, on_ready=pipe.close)
        except (click.ClickException, OSError) as error:
            text = error.format_message() if isinstance(error, click.ClickException) else str(error)
            say(f"error: {text}")
            status = 1
    os._exit(status)


def _run(
    cluster: ClusterDir,
    options: Options,
    say: Callable[[str], None],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    begin_s = time.monotonic()
    mount = _usable_mount(options.mount, say)
    with cluster.locked(), _interruptible() as stop:
        shape = _load_or_create(cluster, options)
        local = LocalCluster(cluster, shape, options, mount)
        link = register(cluster)
        try:
            local.start(say)
            say(local.banner(time.monotonic() - begin_s))
            on_ready()
            while not stop:
                local.tick()
                time.sleep(TICK_S)
        except StartError as error:
            raise click.ClickException(str(error)) from None
        finally:
            local.stop()
            link.unlink(missing_ok=True)


def _load_or_create(cluster: ClusterDir, options: Options) -> Shape:
    if cluster.exists():
        shape = cluster.load_shape()
        return dataclasses.replace(shape, lease_s=options.lease_s)
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
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        say(
            "  no usable /dev/fuse on this machine (module `fuse`, or a container "
            "without the device): "
            "running without a mount.\n"
            "  The commands (fs3 put, fs3 ls, ...) and the Python client (fs3.Client) "
            "work all the same."
        )
        return None
    from fs3.mount.native import check_mount_point

    mount.mkdir(parents=True, exist_ok=True) if not os.path.lexists(mount) else None
    check_mount_point(mount)
    return mount


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that gets an entry at SIGINT or SIGTERM."""
    caught: list[int] = []

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LocalCluster:
    """The processes of one machine's cluster, in the order they start."""

    def __init__(
        self, cluster: ClusterDir, shape: Shape, options: Options, mount: pathlib.Path | None
    ) -> None:
        self._cluster = cluster
        self._shape = shape
        self._options = options
        self._mount = mount
        self._supervisor = Supervisor(cluster.run, self._on_exit)
        self._mgmtd = f"127.0.0.1:{_free_port(FIRST_PORT)}"

    def start(self, say: Callable[[str], None]) -> None:
        """All at once: each daemon waits by itself for the one it needs."""
        servers = [self._mgmtd_process(), self._meta_process()]
        servers += [self._storage_process(number) for number in range(1, self._shape.nodes + 1)]
        for process in servers:
            self._supervisor.start(process)
        mounts = [self._mount_process()] if self._mount else []
        for process in mounts:
            self._supervisor.start(process)
        self._supervisor.wait_ready([process.name for process in servers + mounts])
        self._write_state()

    def _common(self, name: str, node_id: int) -> list[str]:
        return ["--name", name, "--node-id", str(node_id), "--cluster-id", self._shape.cluster_id]

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
        arguments += ["--listen", "tcp://127.0.0.1:0", "--mgmtd", self._mgmtd]
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
        return self._process("mount", 0, arguments)

    def tick(self) -> None:
        if self._supervisor.tick():
            self._write_state()

    def stop(self) -> None:
        self._supervisor.stop(lambda text: click.echo(f"fs3: {text}", err=True))
        (self._cluster.run / "state.json").unlink(missing_ok=True)

    def _on_exit(self, process: Process, status: int) -> None:
        """A storage node's death is proven: tell mgmtd, so nobody waits for the lease to run
        out."""
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
        where = f" --data {data}" if self._cluster.root != DEFAULT_DATA.absolute() else ""
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
            first = f"echo hello > {_shorten(self._mount)}/a"
        else:
            first = f"fs3 put README.md /{where}"
        kill = f"storage-{min(2, self._shape.nodes)}"
        tries = [first, f"fs3 status{where}", f"fs3 kill {kill}{where}", f"fs3 selftest{where}"]
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


def _free_port(first: int) -> int:
    """The first free port of this host from `first` on; any free one after 100 tries."""
    for port in [*range(first, first + 100), 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise click.ClickException("no free TCP port on 127.0.0.1; see `ss -ltn`")
