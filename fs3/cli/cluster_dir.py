"""The directory of a local cluster: what `fs3 up` writes and every local command reads.

    DATA/cluster.json       identity and shape, written once: cluster id, nodes, replicas, lease
    DATA/keyring            keys of the capability tokens, 0600
    DATA/mgmtd DATA/meta    key-value stores, one per process
    DATA/storage-N          chunk engines
    DATA/logs/NAME.log      what the processes say
    DATA/run/               only while it runs: lock (held by the supervisor), state.json, NAME.hold

The supervisor holds an flock on run/lock, so "is it running" is a question to the kernel, not to a
pid file. A registry of running clusters in the user's runtime directory lets commands find it.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import click

DEFAULT_DATA = pathlib.Path("fs3-data")
DEFAULT_MOUNT = pathlib.Path("fs3-mount")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a cluster is, for ever. Sizes are counts; lease_s is T in seconds."""

    cluster_id: str  # 32 hex digits
    nodes: int
    replicas: int
    chains: int
    lease_s: float
    format: int = 1


class ClusterDir:
    """Paths and files of one local cluster."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root.absolute()

    @property
    def shape_file(self) -> pathlib.Path:
        return self.root / "cluster.json"

    @property
    def run(self) -> pathlib.Path:
        return self.root / "run"

    @property
    def logs(self) -> pathlib.Path:
        return self.root / "logs"

    @property
    def keyring(self) -> pathlib.Path:
        return self.root / "keyring"

    def exists(self) -> bool:
        return self.shape_file.exists()

    def load_shape(self) -> Shape:
        """Raises ClickException when the file is missing, damaged or of a newer format."""
        try:
            fields = json.loads(self.shape_file.read_text())
            shape = Shape(**fields)
        except FileNotFoundError:
            raise click.ClickException(
                f"{self.root} holds no cluster (no cluster.json); make one with: fs3 up "
                f"--data {self.root}"
            ) from None
        except (ValueError, TypeError) as error:
            raise click.ClickException(
                f"{self.shape_file} is damaged ({error}); restore it from a copy: it "
                "names the cluster id"
            ) from None
        if shape.format != 1:
            raise click.ClickException(
                f"{self.shape_file} has format {shape.format}, this fs3 reads format 1; "
                "use a newer fs3"
            )
        return shape

    def save_shape(self, shape: Shape) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_durably(self.shape_file, json.dumps(dataclasses.asdict(shape), indent=2) + "\n")

    def state(self) -> dict[str, Any]:
        """What the running supervisor wrote: processes, addresses, mount. Empty when not
        running."""
        if not self.running():
            return {}
        try:
            state = json.loads((self.run / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def running(self) -> bool:
        try:
            with (self.run / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the cluster for a supervisor; yields the lock's descriptor. Raises when another
        holds it."""
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise click.ClickException(self._already_running()) from None
            yield lock.fileno()

    def _already_running(self) -> str:
        state = self.state()
        where = f"mounted at {state['mount']}" if state.get("mount") else "without a mount"
        return (
            f"a cluster is already running on {self.root} (supervisor "
            f"{state.get('supervisor', '?')}, "
            f"mgmtd {state.get('mgmtd', '?')}, {where}); look at it with `fs3 ps`, stop "
            "it with `fs3 down`"
        )


def write_durably(path: pathlib.Path, text: str) -> None:
    """Replaces the file atomically; it survives power loss when this returns."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def registry() -> pathlib.Path:
    """Directory with one link per running cluster of this user."""
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/fs3-{os.getuid()}"
    path = pathlib.Path(base) / "fs3-clusters"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def register(cluster: ClusterDir) -> pathlib.Path:
    link = registry() / hashlib.sha256(os.fsencode(cluster.root)).hexdigest()[:16]
    link.unlink(missing_ok=True)
    link.symlink_to(cluster.root)
    return link


def running_clusters() -> list[ClusterDir]:
    """Clusters of this user that run now; stale links are removed."""
    found = []
    for link in sorted(registry().iterdir()):
        cluster = ClusterDir(pathlib.Path(os.readlink(link)))
        if cluster.running():
            found.append(cluster)
        else:
            link.unlink(missing_ok=True)
    return found


def find(data: pathlib.Path | None) -> ClusterDir:
    """The cluster a local command means: --data, else $FS3_DATA, else ./fs3-data, else the only
    one running."""
    if data is None and os.environ.get("FS3_DATA"):
        data = pathlib.Path(os.environ["FS3_DATA"])
    if data is not None:
        cluster = ClusterDir(data)
        cluster.load_shape()
        return cluster
    here = ClusterDir(DEFAULT_DATA)
    if here.exists():
        return here
    clusters = running_clusters()
    if len(clusters) == 1:
        return clusters[0]
    if not clusters:
        raise click.ClickException("no cluster is running; start one with: fs3 up")
    names = "\n".join(f"  --data {cluster.root}" for cluster in clusters)
    raise click.ClickException(f"several clusters are running; say which one:\n{names}")


def find_running(data: pathlib.Path | None) -> ClusterDir:
    """As find(), and it must be running."""
    cluster = find(data)
    if not cluster.running():
        raise click.ClickException(
            f"the cluster in {cluster.root} is not running; start it with: fs3 up --data "
            f"{cluster.root}"
        )
    return cluster


data_option = click.option(
    "--data",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Directory of the cluster. Default: $FS3_DATA, ./fs3-data, or the one that runs.",
)
