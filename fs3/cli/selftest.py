"""`fs3 selftest`: proves that the running cluster works, with storage nodes killed under the
load."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType

import click

from fs3.cli.cluster import query_status
from fs3.cli.cluster_dir import ClusterDir, data_option, find_running
from fs3.cli.proofs import PROOFS, Bench, ProofFailed, require

RECOVERY_TIMEOUT_S = 120.0
KILL_EVERY_S = 4.0


@click.command()
@data_option
@click.option("--full", is_flag=True, help="At the size of the test suite (several minutes).")
@click.option("--no-kill", is_flag=True, help="Leave the storage nodes alone.")
@click.option(
    "--repository",
    type=click.Path(exists=True, path_type=pathlib.Path),
    help="A git checkout to clone.",
)
def selftest(
    data: pathlib.Path | None, full: bool, no_kill: bool, repository: pathlib.Path | None
) -> None:
    """Prove that the running cluster works: real programs on the mount while storage nodes are
    killed.

    Everything it makes is removed at the end; then no chunk of it may be left on any node.
    """
    cluster = find_running(data)
    try:
        lines = run_selftest(
            cluster, full=full, kill=not no_kill, repository=repository, say=click.echo
        )
    except ProofFailed as error:
        raise click.ClickException(f"NOT PROVED: {error}") from None
    click.echo(f"\nproved: {len(lines)} of {len(lines)}")


def run_selftest(
    cluster: ClusterDir,
    *,
    full: bool,
    kill: bool,
    repository: pathlib.Path | None,
    say: Callable[[str], None],
) -> list[str]:
    """All proofs on a mounted local cluster. Returns what was proved; raises ProofFailed at the
    first failure."""
    state = cluster.state()
    if not state.get("mount"):
        raise ProofFailed("the cluster runs without a mount; start it without --no-mount")
    proved: list[str] = []

    def report(name: str, begin_s: float, sentence: str) -> None:
        proved.append(sentence)
        say(f"  ok  {name:<9} {time.monotonic() - begin_s:6.1f} s  {sentence}")

    before = live_chunks(cluster)
    work = pathlib.Path(tempfile.mkdtemp(prefix="selftest-", dir=state["mount"]))
    with (
        tempfile.TemporaryDirectory(prefix="fs3-selftest-") as scratch,
        ColdMounts(cluster, work) as cold,
    ):
        bench = Bench(work, pathlib.Path(scratch), cold.fresh, repository, full)
        killer = Killer(cluster, kill and cluster.load_shape().replicas > 1)
        with killer, Writer(work / "writer") as writer:
            for name, prove in PROOFS:
                begin_s = time.monotonic()
                killer.begin(name)
                sentence = prove(bench)
                deaths = killer.by_proof.get(name, 0)
                report(
                    name,
                    begin_s,
                    sentence + (f" ({deaths} node deaths meanwhile)" if deaths else ""),
                )
        require(
            not killer.active or killer.deaths > 0,
            "no node died during the proofs: nothing was proved",
        )
        begin_s = time.monotonic()
        report("writer", begin_s, writer.verify(cold.fresh() / "writer", killer.deaths))
        begin_s = time.monotonic()
        report("replicas", begin_s, replicas_equal(cluster))
    begin_s = time.monotonic()
    shutil.rmtree(work)
    report("gc", begin_s, nothing_leaked(cluster, before))
    return proved


class ColdMounts:
    """Fresh mounts of the file system, each at an own temporary directory, unmounted at the end."""

    def __init__(self, cluster: ClusterDir, work: pathlib.Path) -> None:
        self._cluster = cluster
        self._inside = work.name
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "ColdMounts":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not close(): a mount that is busy because of `error` would take its place.
        self._stack.__exit__(kind, error, trace)

    def fresh(self) -> pathlib.Path:
        """Unmounts the last one, mounts anew; returns the work directory as that mount shows it."""
        self._stack.close()
        point = pathlib.Path(tempfile.mkdtemp(prefix="fs3-cold-"))
        self._stack.callback(os.rmdir, point)
        command = [sys.executable, "-m", "fs3.cli"]
        # Not a pipe: the mount in the background would hold its other end.
        with tempfile.TemporaryFile() as log:
            done = subprocess.run(
                [*command, "mount", str(point), "--data", str(self._cluster.root)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                timeout=60,
                check=False,
            )
            log.seek(0)
            text = log.read().decode(errors="replace")[-500:]
        require(done.returncode == 0, f"cannot mount at {point}: {text}")
        self._stack.callback(_unmount, point)
        return point / self._inside


def _unmount(point: pathlib.Path) -> None:
    command = [sys.executable, "-m", "fs3.cli", "umount", str(point)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    require(done.returncode == 0, f"cannot unmount {point}: {done.stderr.decode()[-500:]}")


class Killer:
    """Kills one storage node after the other with SIGKILL: at the start of each proof, then every
    KILL_EVERY_S, the next one only when all chains are whole again."""

    def __init__(self, cluster: ClusterDir, active: bool) -> None:
        self._cluster = cluster
        self.active = active
        self._stopping = False
        self._wake = threading.Event()
        self._proof = ""
        self.by_proof: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)

    @property
    def deaths(self) -> int:
        return sum(self.by_proof.values())

    def __enter__(self) -> "Killer":
        if self.active:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake.set()
        if self.active:
            self._thread.join()

    def begin(self, proof: str) -> None:
        """Deaths from now on happen during this proof."""
        self._proof = proof
        self._wake.set()

    def _run(self) -> None:
        number = 0
        nodes = self._cluster.load_shape().nodes
        while not self._stopping:
            self._wake.wait(KILL_EVERY_S)
            self._wake.clear()
            while not self._stopping and not healthy(self._cluster):
                time.sleep(0.2)
            if not self._stopping and self._proof:
                number = number % nodes + 1
                self._kill(f"storage-{number}")

    def _kill(self, name: str) -> None:
        pid = int(self._cluster.known_state()["processes"][name]["pid"])
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
                self.by_proof[self._proof] = self.by_proof.get(self._proof, 0) + 1


@dataclasses.dataclass
class Writer:
    """Appends numbered records with fsync all the time; remembers the longest time one took."""

    path: pathlib.Path
    acknowledged: int = 0
    longest_s: float = 0.0
    error: OSError | None = None

    def __enter__(self) -> "Writer":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self.path.open("wb", buffering=0) as file:
                while not self._stop.wait(0.02):
                    begin_s = time.monotonic()
                    file.write(b"%015d\n" % self.acknowledged)
                    os.fsync(file.fileno())
                    self.longest_s = max(self.longest_s, time.monotonic() - begin_s)
                    self.acknowledged += 1
        except OSError as error:
            self.error = error

    def verify(self, cold: pathlib.Path, deaths: int) -> str:
        if self.error is not None:
            raise ProofFailed(f"the application saw an error: {self.error}")
        lines = cold.read_bytes().splitlines()
        require(
            lines == [b"%015d" % number for number in range(self.acknowledged)],
            f"{len(lines)} records are left of {self.acknowledged} that were acknowledged",
        )
        return (
            f"all {self.acknowledged:,} records acknowledged by fsync are there after "
            f"{deaths} node deaths; "
            f"the longest write took {self.longest_s:.2f} s"
        )


def healthy(cluster: ClusterDir) -> bool:
    with contextlib.suppress(click.ClickException, KeyError):
        return query_status(cluster.known_state()["mgmtd"]).healthy
    return False


def wait_for(
    condition: Callable[[], bool], what: str, timeout_s: float = RECOVERY_TIMEOUT_S
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ProofFailed(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.2)


def replicas_equal(cluster: ClusterDir) -> str:
    """Waits for full redundancy, then compares every chunk on all its targets, bytes included."""
    wait_for(lambda: healthy(cluster), "full redundancy")
    from fs3.cli.check import replica_report

    report = replica_report(cluster, deep=True)
    require(
        not report.differences, "replicas differ: " + "; ".join(map(str, report.differences[:5]))
    )
    return f"{report.chunks:,} chunks are equal on all their replicas, bytes compared"


def live_chunks(cluster: ClusterDir) -> int:
    from fs3.cli.check import replica_report

    wait_for(lambda: healthy(cluster), "a healthy cluster")
    return replica_report(cluster, deep=False).chunks


def nothing_leaked(cluster: ClusterDir, before: int) -> str:
    """After everything is deleted, the gc leaves as many chunks as there were before the test."""
    wait_for(lambda: live_chunks(cluster) <= before, "the removal of all chunks by gc")
    return "everything was deleted again and no chunk is left behind"
