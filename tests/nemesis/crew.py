"""The workloads in a process of their own.

Never in the nemesis' own process: a child it starts inherits the descriptors that are open on the
mount, and closes them before it runs, which flushes them, which waits for the very fault that the
child was to end.
"""

import multiprocessing
import pathlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.nemesis.failure import Failure
from tests.nemesis.workloads import Manifest, Names, Registers, Workload

__all__ = ["Crew", "State"]

KINDS: tuple[type[Workload], ...] = (Manifest, Registers, Names)


@dataclass(frozen=True)
class State:
    """Of one workload, now."""

    name: str
    acknowledged: int
    in_flight: int
    errors: list[str]


class Crew:
    """Make it before anything that starts threads: it forks. Calls raise what workloads raise."""

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, mounts, seed), daemon=True)
        self._process.start()

    def begin(self) -> None:
        self._call("begin")

    def end(self, timeout_s: float) -> None:
        """Returns when no operation is under way. Raises Failure when one went wrong."""
        self._call("end", timeout_s)

    def verify(self, mount: pathlib.Path) -> list[str]:
        """What each workload compared, through a fresh mount."""
        compared: list[str] = self._call("verify", mount)
        return compared

    def states(self) -> list[State]:
        states: list[State] = self._call("states")
        return states

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _call(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result


class _Workloads:
    """The other end."""

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        self._workloads = [kind(mounts, seed) for kind in KINDS]

    def begin(self) -> None:
        for workload in self._workloads:
            workload.begin()

    def end(self, timeout_s: float) -> None:
        for workload in self._workloads:
            workload.end(timeout_s)

    def verify(self, mount: pathlib.Path) -> list[str]:
        return [workload.verify(mount) for workload in self._workloads]

    def states(self) -> list[State]:
        return [
            State(type(w).__name__, w.acknowledged, w.in_flight, list(w.errors))
            for w in self._workloads
        ]


def _serve(pipe: Connection, mounts: list[pathlib.Path], seed: int) -> None:
    workloads = _Workloads(mounts, seed)
    while True:
        method, arguments = pipe.recv()
        try:
            result = getattr(workloads, method)(*arguments)
        except (Failure, OSError) as error:
            result = error
        pipe.send(result)
