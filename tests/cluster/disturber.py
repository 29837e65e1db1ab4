"""Faults for a running local cluster, drawn from a seed: processes are killed or stopped for a
while, the next one only when all chains are whole again, so that the cluster always has to cope.

    python -m tests.cluster.disturber DATA [--seed N] [--faults N]
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import signal
import threading
import time
from collections.abc import Callable

from fs3.cli.cluster_dir import ClusterDir
from fs3.cli.selftest import healthy
from fs3.cli.supervisor import STABLE_S

LEASE_S = 4.0
HEAL_S_MAX = 120.0
RESTART_S = 10.0


class Disturber:
    """A thread between __enter__ and __exit__. `counts` says what it did; `error` what never
    healed."""

    def __init__(self, cluster: ClusterDir, seed: int, pause_s: float = 1.0) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disturber", daemon=True)
        self.counts: collections.Counter[str] = collections.Counter()
        self.error = ""
        self._killed_s: dict[str, float] = {}
        nodes = [f"storage-{number}" for number in range(1, cluster.load_shape().nodes + 1)]
        self._faults: list[tuple[int, Callable[[str], None], list[str]]] = [
            (5, self._kill, nodes),
            (5, self._pause, nodes),
            (2, self._kill, ["meta"]),
            (2, self._pause, ["meta"]),
            (2, self._kill, ["mgmtd"]),
            (1, self._pause, ["mgmtd"]),
        ]

    def __enter__(self) -> "Disturber":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.error, self.error

    def _run(self) -> None:
        weights = [weight for weight, *_ in self._faults]
        while not self._stop.wait(self._pause_s * self._rng.random()):
            _, act, names = self._rng.choices(self._faults, weights)[0]
            name = self._rng.choice(names)
            act(name)
            if not self._healed():
                self.error = f"not whole {HEAL_S_MAX:.0f} s after a fault of {name}"
                return

    def _pid(self, name: str) -> int:
        return int(self._cluster.state().get("processes", {}).get(name, {}).get("pid") or 0)

    def _kill(self, name: str) -> None:
        """Not what died a moment ago: its supervisor would take it for a crash loop and wait longer
        each time, until applications see the time-outs that they were promised not to see."""
        now_s = time.monotonic()
        if now_s - self._killed_s.get(name, -HEAL_S_MAX) < STABLE_S + LEASE_S + RESTART_S:
            self._pause(name)
            return
        self._killed_s[name] = now_s
        if pid := self._pid(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.counts[f"kill {name.partition('-')[0]}"] += 1

    def _pause(self, name: str) -> None:
        """Shorter and longer than a lease."""
        pid = self._pid(name)
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._stop.wait(self._rng.choice([0.1, 0.5, 0.8, 1.0, 1.5]) * LEASE_S)
            os.kill(pid, signal.SIGCONT)
            self.counts[f"stop {name.partition('-')[0]}"] += 1

    def _healed(self) -> bool:
        deadline_s = time.monotonic() + HEAL_S_MAX
        while not healthy(self._cluster):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.1)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--faults", type=int, default=1 << 60)
    parser.add_argument("data", type=pathlib.Path)
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    told = 0
    with Disturber(ClusterDir(options.data), options.seed) as disturber:
        while told < options.faults and not disturber.error:
            if (total := disturber.counts.total()) > told:
                told = total
                print(dict(disturber.counts), flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
