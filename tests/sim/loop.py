"""Virtual time: one queue of events, one seed, no thread, no clock of the machine.

Events of the same instant run in a shuffled order; time jumps to the next one. A queue that runs
empty while somebody still waits is an error: nothing would ever happen. Everything that happens is
noted; the hash over all notes is the fingerprint of a run, equal for equal seeds.
"""

import hashlib
import heapq
from collections.abc import Callable
from random import Random

__all__ = ["MS", "Loop", "Process", "S", "Stalled"]

MS = 1_000_000
S = 1_000_000_000

Callback = Callable[[], None]


class Stalled(Exception):
    """The queue is empty and what was waited for has not happened."""


class Loop:
    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.now_ns = 0
        self.random = Random(seed)
        self.steps = 0
        self._queue: list[tuple[int, float, int, Callback]] = []
        self._count = 0
        self._hash = hashlib.blake2b(digest_size=8)
        self._trace = trace

    def after(self, delay_ns: int, callback: Callback) -> None:
        """Runs it `delay_ns` from now, shuffled among the events of that instant."""
        self._count += 1
        due_ns = self.now_ns + max(0, delay_ns)
        heapq.heappush(self._queue, (due_ns, self.random.random(), self._count, callback))

    def run(self, until_ns: int, stop: Callable[[], bool] | None = None) -> bool:
        """Runs to `until_ns`, or until `stop()` holds (looked at after each event); whether it
        did."""
        queue = self._queue
        while queue and queue[0][0] <= until_ns:
            self.now_ns, _, _, callback = heapq.heappop(queue)
            self.steps += 1
            callback()
            if stop is not None and stop():
                return True
        if not queue:
            raise Stalled(f"nothing will ever happen after {self.now_ns / S:.3f} s")
        self.now_ns = max(self.now_ns, until_ns)  # an event may have run the loop itself further
        return stop is None

    def note(self, *what: object) -> None:
        """Part of the fingerprint; a line of the trace."""
        line = f"{self.now_ns / S:10.6f} " + " ".join(map(str, what))
        self._hash.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    @property
    def fingerprint(self) -> str:
        return self._hash.hexdigest()


class Process:
    """Something that can be killed, paused and started again.

    `epoch` counts lives; what was scheduled in an earlier one never runs. While paused (SIGSTOP)
    everything waits, and runs in any order afterwards: sockets, disks and timers know no order.
    """

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = False
        self.epoch = 0
        self._paused = 0
        self._backlog: list[Callback] = []

    @property
    def paused(self) -> bool:
        return self._paused > 0

    def deliver(self, callback: Callback) -> None:
        """Runs in whichever life the process has now, if any."""
        if not self.alive:
            return
        if self._paused:
            self._backlog.append(callback)
        else:
            callback()

    def bound(self, callback: Callback) -> Callback:
        """The same, but only in the present life."""
        epoch = self.epoch

        def run() -> None:
            if self.epoch == epoch:
                self.deliver(guarded)

        def guarded() -> None:
            if self.epoch == epoch and self.alive:
                callback()

        return run

    def after(self, delay_ns: int, callback: Callback) -> None:
        self.loop.after(delay_ns, self.bound(callback))

    def pause(self, duration_ns: int) -> None:
        if not self.alive:
            return
        self._paused += 1
        epoch = self.epoch
        self.loop.note("pause", self.name, f"{duration_ns / S:.3f}")
        self.loop.after(duration_ns, lambda: self._resume(epoch))

    def _resume(self, epoch: int) -> None:
        if self.epoch != epoch or not self._paused:
            return
        self._paused -= 1
        if self._paused:
            return
        backlog, self._backlog = self._backlog, []
        self.loop.random.shuffle(backlog)
        self.loop.note("resume", self.name, len(backlog))
        for callback in backlog:
            self.deliver(callback)  # one of them may end this life

    def begin_life(self) -> None:
        self.alive = True
        self.epoch += 1
        self._paused = 0
        self._backlog = []

    def end_life(self) -> None:
        self.alive = False
        self.epoch += 1
        self._paused = 0
        self._backlog = []
