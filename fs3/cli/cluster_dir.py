"""The directory of a local cluster: what `fs3 up` writes and every local command reads.

    DATA/cluster.json       identity and shape: written once, but for the lease
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
import shlex
import stat
from collections.abc import Iterator
from typing import Any

import click

DEFAULT_DATA = pathlib.Path("fs3-data")
DEFAULT_MOUNT = pathlib.Path("fs3-mount")
END_OF_USE = "is in use; what was written is kept, the next call on an open file fails:"


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

    def log(self) -> int:
        """A descriptor of the supervisor's own log."""
        self.logs.mkdir(exist_ok=True)
        return os.open(self.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

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
                f"{named(self)}"
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
        running, and for a moment while it starts."""
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

    def known_state(self) -> dict[str, Any]:
        """As state(), and never empty. Raises ClickException while the supervisor is starting."""
        state = self.state()
        if not state:
            raise click.ClickException(
                f"the cluster in {self.root} is starting or stopping (supervisor pid "
                f"{self.supervisor() or '?'}); try again in a moment"
            )
        return state

    def supervisor(self) -> int:
        """Process id of whoever holds the lock, from the moment it does; 0 when not running."""
        if not self.running():
            return 0
        try:
            return int((self.run / "lock").read_text())
        except (FileNotFoundError, ValueError):
            return 0

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
            # What a supervisor that was killed, or a machine that lost power, left behind.
            (self.run / "state.json").unlink(missing_ok=True)
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield lock.fileno()

    def _already_running(self) -> str:
        state = self.state()
        where = f"mounted at {state['mount']}" if state.get("mount") else "without a mount"
        about = f"mgmtd {state['mgmtd']}, {where}" if state else "starting or stopping"
        return (
            f"a cluster is already running on {self.root} (supervisor {self.supervisor() or '?'}, "
            f"{about}); look at it with `fs3 ps {named(self)}`, stop it with "
            f"`fs3 down {named(self)}`"
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
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        path = pathlib.Path(base) / "fs3-clusters"
    else:
        path = pathlib.Path(f"/tmp/fs3-clusters-{os.getuid()}")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = path.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
        raise click.ClickException(
            f"{path} belongs to somebody else (uid {info.st_uid}), so what it says of running "
            "clusters is not trusted; name your cluster with --data, and remove that directory"
        )
    return path


def register(cluster: ClusterDir) -> pathlib.Path:
    link = registry() / hashlib.sha256(os.fsencode(cluster.root)).hexdigest()[:16]
    link.unlink(missing_ok=True)
    link.symlink_to(cluster.root)
    return link


def running_clusters() -> list[ClusterDir]:
    """Clusters of this user that run now; stale links are removed."""
    found = []
    for link in sorted(path for path in registry().iterdir() if path.is_symlink()):
        cluster = ClusterDir(pathlib.Path(os.readlink(link)))
        if cluster.running():
            found.append(cluster)
        else:
            link.unlink(missing_ok=True)
    return found


def named(cluster: ClusterDir) -> str:
    """The option by which a command finds this cluster, as one types it into a shell."""
    return f"--data {shlex.quote(str(cluster.root))}"


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
    names = "\n".join(f"  {named(cluster)}" for cluster in clusters)
    raise click.ClickException(f"several clusters are running; say which one:\n{names}")


def find_running(data: pathlib.Path | None) -> ClusterDir:
    """As find(), and it must be running."""
    cluster = find(data)
    if not cluster.running():
        raise click.ClickException(
            f"the cluster in {cluster.root} is not running; start it with: fs3 up {named(cluster)}"
        )
    return cluster


data_option = click.option(
    "--data",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Directory of the cluster. Default: $FS3_DATA, ./fs3-data, or the one that runs.",
)
