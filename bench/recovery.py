"""Recovery, measured: what a resync moves, what it costs those who work meanwhile, and how long
writes pause when a node dies.

    python -m bench.recovery [--mib 1024] [--resync-mib-s 0] [--deaths 10] [--lease-s 4]

The manager and three storage servers as real processes; clients are threads of this one. Figures
are for people: nothing here asserts a time.
"""

import argparse
import os
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Sequence

from fs3.errors import Fs3Error
from tests.cluster.processes import NODES, Processes
from tests.cluster.storage_rig import SERVING, SYNCING, ChainClient, wait_for

CHUNK = 1 << 20
BLOCK = 64 << 10
VICTIM = 3
FILL_THREADS = 4
WAIT_S = 600.0


class Foreground:
    """Threads that write and read blocks of 64 KiB at random; latencies by phase."""

    def __init__(self, cluster: Processes, chunks: int, threads: int = 2) -> None:
        self._cluster = cluster
        self._chunks = chunks
        self._phase = ""
        self._stop = threading.Event()
        self.latencies: dict[tuple[str, str], list[float]] = {}
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def phase(self, name: str) -> None:
        self._phase = name

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        client = ChainClient(self._cluster, chain_index=number % 2)
        dice = random.Random(number)
        data = os.urandom(BLOCK)
        while not self._stop.is_set():
            chunk = 900 + number, dice.randrange(self._chunks)
            offset = dice.randrange(CHUNK // BLOCK) * BLOCK
            phase = self._phase
            for kind in ("write", "read"):
                began = time.monotonic()
                if kind == "write":
                    client.write(chunk, offset, data)
                else:
                    self._read(client, number % 2, chunk, offset)
                with self._lock:
                    ended = time.monotonic()
                    self.latencies.setdefault((phase, kind), []).append(ended - began)
            time.sleep(0.002)  # paced: a full queue would measure itself

    def _read(self, client: ChainClient, chain: int, chunk: tuple[int, int], offset: int) -> None:
        while not self._stop.is_set():
            targets = self._cluster.routing.chains[chain].targets
            serving = [t.node_id for t in targets if t.state == SERVING]
            try:
                client.read(chunk, random.choice(serving), offset, BLOCK)
                return
            except Fs3Error:
                time.sleep(0.002)


def fill(cluster: Processes, inode: int, chunks: int) -> None:
    """Chunks of 1 MiB, half of them on each chain."""

    def run(part: int) -> None:
        client = ChainClient(cluster, chain_index=part % 2)
        for index in range(part, chunks, FILL_THREADS):
            client.write((inode, index), 0, os.urandom(CHUNK))

    threads = [threading.Thread(target=run, args=(part,)) for part in range(FILL_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def measure_resync(cluster: Processes, mib: int) -> None:
    foreground = Foreground(cluster, chunks=32)
    foreground.phase("warm")
    time.sleep(2)
    foreground.phase("3 serve")
    time.sleep(6)
    foreground.phase("-")
    cluster.kill_proven(VICTIM)
    cluster.wait_serving(2)
    fill(cluster, 5, mib)
    foreground.phase("2 serve")
    time.sleep(6)
    foreground.phase("-")
    cluster.start(VICTIM)
    wait_for("syncing", lambda: cluster.state(VICTIM) in (SYNCING, SERVING))
    foreground.phase("resync")
    began = time.monotonic()
    wait_for("level", lambda: set(cluster.serving()) == {3}, WAIT_S)
    took_s = time.monotonic() - began
    foreground.phase("-")
    foreground.stop()
    print(f"resync: {mib} MiB in {took_s:.2f} s = {mib / took_s:.0f} MiB/s")
    for phase in ("3 serve", "2 serve", "resync"):
        for kind in ("write", "read"):
            values = foreground.latencies.get((phase, kind), [])
            p50, p99 = (percentile(values, share) * 1000 for share in (0.5, 0.99))
            n = len(values)
            print(f"  {phase:8} {kind:5} 64 KiB: p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {n=}")


def measure_deaths(cluster: Processes, deaths: int, proven: bool) -> None:
    """From the kill until a write to each of the node's chains is acknowledged."""
    pauses = []
    for number in range(deaths):
        victim = NODES[number % len(NODES)]
        began = time.monotonic()
        if proven:
            cluster.kill_proven(victim)
        else:
            cluster.kill(victim)
        for chain in (0, 1):
            ChainClient(cluster, chain_index=chain).write((7, number), 0, b"after")
        pauses.append(time.monotonic() - began)
        cluster.start(victim)
        wait_for("level", lambda: set(cluster.serving()) == {3}, WAIT_S)
    kind = "proven" if proven else "silent"
    print(
        f"{kind} death: writes resume after median {percentile(pauses, 0.5):.2f} s, "
        f"worst {max(pauses):.2f} s (n={deaths})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="that the victim misses")
    parser.add_argument("--resync-mib-s", type=float, default=0.0)
    parser.add_argument("--deaths", type=int, default=10)
    parser.add_argument("--lease-s", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fs3-recovery-") as directory:
        storage = ("--resync-mib-s", str(options.resync_mib_s))
        cluster = Processes(pathlib.Path(directory), options.lease_s, storage)
        try:
            cluster.wait_serving(3)
            if options.mib:
                measure_resync(cluster, options.mib)
            for proven in (True, False) if options.deaths else ():
                measure_deaths(cluster, options.deaths, proven)
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
