"""Every process of a cluster dies at once, in the middle of writes: what fsync has promised is
there afterwards, on a fresh mount and on every replica."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.cluster.conftest import ROOT, LocalFs3

WRITERS = 3
CRASHES = 2
RECORDED_MIN = 15  # before each crash


def start_writer(
    directory: pathlib.Path, manifest: pathlib.Path, seed: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.crash_writer", directory, manifest, str(seed)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # its end is an error by design
    )


def read_manifest(path: pathlib.Path) -> tuple[dict[str, str], str | None]:
    """SHA-256 by name of what was acknowledged, and the name whose write was in flight."""
    done: dict[str, str] = {}
    flying = None
    for line in path.read_text().splitlines() if path.exists() else ():
        word, name, *rest = line.split()
        flying = name if word == "begin" else None
        if word == "done":
            done[name] = rest[0]
    return done, flying


def crash(fs3: LocalFs3) -> None:
    """All at once: nobody sees another one die and reacts. The supervisor too, so that nothing is
    started again."""
    state = fs3.cluster.state()
    pids = [int(state["supervisor"]), *(int(p["pid"]) for p in state["processes"].values())]
    assert all(pids), f"a process is not running: {state}"
    pids += children(int(state["processes"]["mount"]["pid"]))  # its keeper is what runs there
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    fs3.wait_for(lambda: not any(map(alive, pids)), "all processes dead")
    subprocess.run(["umount", "-l", str(fs3.mount)], check=True, timeout=60)


def children(pid: int) -> list[int]:
    return [
        int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.timeout(600)
def test_what_fsync_promised_survives_the_death_of_all(
    fs3: LocalFs3, tmp_path: pathlib.Path
) -> None:
    fs3.up()
    fs3.wait_healthy()
    (fs3.mount / "work").mkdir()
    manifests: list[pathlib.Path] = []
    for number in range(CRASHES):
        fresh = [tmp_path / f"manifest-{number}-{writer}" for writer in range(WRITERS)]
        manifests += fresh
        writers = [
            start_writer(fs3.mount / "work", manifest, 10 * number + writer)
            for writer, manifest in enumerate(fresh)
        ]
        try:
            fs3.wait_for(lambda files=fresh, running=writers: busy(files, running), "writes")
            crash(fs3)
        finally:
            for process in writers:
                process.kill()
                process.wait()
        assert any(read_manifest(manifest)[1] for manifest in fresh), "no write was in flight"
        fs3.up()
        fs3.wait_healthy()
        verify(fs3.mount / "work", manifests)
        fs3.local("check", "--deep")


def busy(manifests: Sequence[pathlib.Path], writers: Sequence[subprocess.Popen[bytes]]) -> bool:
    assert all(writer.poll() is None for writer in writers), "a writer ended before the crash"
    return all(
        manifest.exists() and manifest.read_text().count("done") >= RECORDED_MIN
        for manifest in manifests
    )


def verify(directory: pathlib.Path, manifests: Sequence[pathlib.Path]) -> None:
    for manifest in manifests:
        done, flying = read_manifest(manifest)
        for name, wanted in done.items():
            if name == flying:
                assert (directory / name).exists()
                continue
            found = hashlib.sha256((directory / name).read_bytes()).hexdigest()
            assert found == wanted, (
                f"{name}: {(directory / name).stat().st_size} bytes, other content"
            )
