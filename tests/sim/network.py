"""The network: messages that are late, lost, doubled, out of order, or stopped by a partition.

A call is one request and one reply. The caller always gets an end: the reply, CONNECTION_LOST, or
TIMED_OUT; in the last two cases the request may still arrive, also much later.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fs3.errors import Status
from tests.sim.loop import MS, Loop, Process, S

__all__ = ["Network", "NetworkFaults", "Reply"]

Reply = Callable[[int, object], None]
"""(status code, payload)"""


@dataclass(frozen=True, slots=True)
class NetworkFaults:
    loss: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0  # share of messages that take up to slow_ns
    slow_ns: int = 200 * MS
    late: float = 0.0  # share of messages that take up to late_ns
    late_ns: int = 40 * S
    reset: float = 0.0  # share of calls whose connection breaks at once


class Endpoint(Process):
    """A process that answers calls."""

    def handle(self, request: object, reply: Reply) -> None:
        raise NotImplementedError


class Network:
    def __init__(self, loop: Loop, faults: NetworkFaults) -> None:
        self.loop = loop
        self.faults = faults
        self.landed: Counter[str] = Counter()
        self._cut: Counter[tuple[str, str]] = Counter()
        self._clogged_until_ns: dict[str, int] = {}  # process -> nothing gets out of or into it

    def heal(self) -> None:
        self.faults = NetworkFaults()
        self._cut.clear()
        self._clogged_until_ns.clear()

    def clog(self, name: str, duration_ns: int) -> None:
        """Messages from and to it are held back, not lost."""
        until_ns = self.loop.now_ns + duration_ns
        self._clogged_until_ns[name] = max(self._clogged_until_ns.get(name, 0), until_ns)

    def cut(self, source: str, target: str) -> None:
        """One direction; nests."""
        self._cut[source, target] += 1

    def mend(self, source: str, target: str) -> None:
        if self._cut[source, target] > 0:
            self._cut[source, target] -= 1

    def sees(self, source: Process, target: Process) -> bool:
        """A small question and its answer would get through now. Takes no time and no chance, so
        that servers that ask leave the rest of a seed as it was."""
        pair = (source.name, target.name)
        clogged = any(self._clogged_until_ns.get(name, 0) > self.loop.now_ns for name in pair)
        cut = self._cut[pair] > 0 or self._cut[pair[::-1]] > 0
        return target.alive and not target.paused and not clogged and not cut

    def call(
        self,
        source: Process,
        target: Endpoint,
        request: object,
        done: Reply,
        timeout_ns: int = 2 * S,
        held_ns: int = 0,
    ) -> None:
        """`held_ns`: how long the request lies somewhere before it goes on its way."""
        result: list[tuple[int, object]] = []
        wake = source.bound(lambda: done(*result[0]))  # only in the life that calls

        def end(code: int, payload: object) -> None:
            if not result:
                result.append((code, payload))
                wake()

        def answer(code: int, payload: object) -> None:
            self.send(target.name, source.name, lambda: end(code, payload))

        def arrive() -> None:
            if target.alive:
                target.deliver(lambda: target.handle(request, answer))
            else:
                self.send(target.name, source.name, lambda: end(Status.CONNECTION_LOST, "refused"))

        finish = source.bound(lambda: end(Status.TIMED_OUT, "no answer in time"))
        self.loop.after(timeout_ns, finish)
        if held_ns:
            self.loop.after(held_ns, lambda: self.send(source.name, target.name, arrive))
        else:
            self.send(source.name, target.name, arrive)
        if self.faults.reset and self.loop.random.random() < self.faults.reset:
            self.landed["reset"] += 1
            lost = source.bound(lambda: end(Status.CONNECTION_LOST, "reset"))
            self.loop.after(self.loop.random.randrange(5 * MS), lost)

    def send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        random, faults = self.loop.random, self.faults
        if self._cut[source, target] > 0:
            self.landed["partition"] += 1
            return
        if faults.loss and random.random() < faults.loss:
            self.landed["loss"] += 1
            return
        copies = 1
        if faults.duplicate and random.random() < faults.duplicate:
            self.landed["duplicate"] += 1
            copies = 2
        held_ns = self._held_ns(source, target) if self._clogged_until_ns else 0
        for _ in range(copies):
            self.loop.after(held_ns + self._delay_ns(), arrive)

    def _held_ns(self, source: str, target: str) -> int:
        clogged = self._clogged_until_ns
        until_ns = max(clogged.get(source, 0), clogged.get(target, 0))
        if until_ns <= self.loop.now_ns:
            return 0
        self.landed["clog"] += 1
        return until_ns - self.loop.now_ns

    def _delay_ns(self) -> int:
        random, faults = self.loop.random, self.faults
        delay_ns = random.randrange(50_000, 2 * MS)
        if faults.slow and random.random() < faults.slow:
            self.landed["slow"] += 1
            delay_ns = random.randrange(faults.slow_ns)
        if faults.late and random.random() < faults.late:
            self.landed["late"] += 1
            delay_ns = random.randrange(faults.late_ns)
        return delay_ns
