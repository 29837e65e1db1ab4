"""Where work that waits for storage or for the disk runs: never on the thread that answers
requests."""

import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable

from fs3.runtime.clock import Clock

__all__ = ["ManualJobs", "ThreadJobs"]

log = logging.getLogger(__name__)

Job = Callable[[], None]


class ThreadJobs:
    """Jobs (meta.ports) on `threads` daemon threads and one timer."""

    def __init__(self, clock: Clock, *, threads: int, name: str) -> None:
        self._clock = clock
        self._ready: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._timed: list[tuple[int, int, Job]] = []  # heap: due_ns, number, job
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        targets: list[Job] = [self._work] * threads + [self._keep_time]
        self._threads = [
            threading.Thread(target=target, name=f"fs3-{name}-{i}", daemon=True)
            for i, target in enumerate(targets)
        ]
        for thread in self._threads:
            thread.start()

    def spawn(self, job: Job) -> None:
        self._ready.put(job)

    def later(self, delay_s: float, job: Job) -> None:
        due_ns = self._clock.monotonic_ns() + int(delay_s * 1e9)
        with self._changed:
            heapq.heappush(self._timed, (due_ns, next(self._numbers), job))
            self._changed.notify()

    def stop(self) -> None:
        """Jobs that have begun end; what waits is dropped: all of it can be resumed from the KV."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _work(self) -> None:
        while True:
            job = self._ready.get()
            if job is None or self._stopped:
                return
            try:
                job()
            except Exception:
                log.exception("a job failed")

    def _keep_time(self) -> None:
        with self._changed:
            while not self._stopped:
                now_ns = self._clock.monotonic_ns()
                while self._timed and self._timed[0][0] <= now_ns:
                    self._ready.put(heapq.heappop(self._timed)[2])
                wait_s = (self._timed[0][0] - now_ns) / 1e9 if self._timed else None
                self._changed.wait(wait_s)


class ManualJobs:
    """Jobs that run when the owner says so, on his thread: tests and the simulator."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []

    def spawn(self, job: Job) -> None:
        self.waiting.append(job)

    def later(self, delay_s: float, job: Job) -> None:
        self.waiting.append(job)

    def run(self, limit: int = 1000) -> int:
        """Until nothing waits, at most `limit` jobs; how many ran."""
        for count in range(limit):
            if not self.waiting:
                return count
            self.waiting.pop(0)()
        return limit
