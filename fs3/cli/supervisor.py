"""Runs the processes of a local cluster: starts them, waits until they are ready, restarts what
dies.

Every daemon gets a pipe on `--ready-fd` and writes one JSON line into it when it can serve:
{"ready": true, "addresses": [...]}. A process that dies is reported to mgmtd (its death is proven,
so
failover need not wait for the lease) and started again after a pause that doubles while it keeps
dying;
DATA/run/NAME.hold with a time in it keeps it down until then (`fs3 kill --hold`).
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from fs3.cli.foreground import Interrupted

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
STOP_POLL_S = 0.01
RESTART_PAUSE_S = 2.0
RESTART_PAUSE_MAX_S = 10.0  # well below the 30 s that clients wait for a metadata service
STABLE_S = 30.0


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """A supervisor killed with SIGKILL leaves no daemons behind."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class StartError(Exception):
    """A process did not become ready; the text has the end of its log."""


@dataclasses.dataclass
class Process:
    """One daemon: how to start it, and what is known of the running one."""

    name: str
    arguments: list[str]  # after `python -P -m fs3.cli`
    log: pathlib.Path
    node_id: int = 0
    popen: subprocess.Popen[bytes] | None = None
    ready_pipe: int = -1
    ready: dict[str, Any] | None = None
    started_s: float = 0.0
    ready_s: float = 0.0
    restarts: int = 0
    next_start_s: float = 0.0
    held: bool = False  # down because somebody wants it so

    @property
    def pid(self) -> int:
        return self.popen.pid if self.popen else 0


class Supervisor:
    """Owns the processes of one cluster. Single-threaded: start(), then tick() until stop().

    on_exit(process, status) is called for each process that died by itself.
    """

    def __init__(
        self,
        run_directory: pathlib.Path,
        on_exit: Callable[[Process, int], None],
        clock: Callable[[], float] = time.monotonic,
        program: Sequence[str] = (sys.executable, "-P", "-m", "fs3.cli"),
    ) -> None:
        self.processes: list[Process] = []
        self._run = run_directory
        self._on_exit = on_exit
        self._clock = clock
        self._program = program

    def start(self, process: Process) -> None:
        """Spawns; returns at once. The process is in the list from now on."""
        if process not in self.processes:
            self.processes.append(process)
        read_end, write_end = os.pipe()
        command = [*self._program, *process.arguments, "--ready-fd", str(write_end)]
        process.log.parent.mkdir(parents=True, exist_ok=True)
        with process.log.open("ab") as log:
            process.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,  # Ctrl-C is the supervisor's; it ends them in order
                preexec_fn=_die_with_parent,
            )
        os.close(write_end)
        if process.ready_pipe >= 0:
            os.close(process.ready_pipe)
        os.set_blocking(read_end, False)
        process.ready_pipe = read_end
        process.ready = None
        process.started_s = self._clock()

    def wait_ready(
        self,
        names: list[str],
        timeout_s: float = READY_TIMEOUT_S,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Returns when all named processes are ready. Raises StartError when one died or time is
        up, Interrupted when that is asked for."""
        deadline = self._clock() + timeout_s
        waiting = [process for process in self.processes if process.name in names]
        while waiting := [process for process in waiting if not self._poll_ready(process)]:
            for process in waiting:
                if process.popen is not None and process.popen.poll() is not None:
                    raise StartError(self._death(process))
            if interrupted():
                raise Interrupted
            if self._clock() > deadline:
                raise StartError(
                    f"{waiting[0].name} is not ready after {timeout_s:.0f} s; end of "
                    f"{waiting[0].log}:\n"
                    f"{tail(waiting[0].log)}"
                )
            select.select([process.ready_pipe for process in waiting], [], [], 0.05)

    def _poll_ready(self, process: Process) -> bool:
        if process.ready is not None:
            return True
        try:
            text = os.read(process.ready_pipe, 65536)
        except BlockingIOError:
            return False
        if not text:
            return False
        process.ready = json.loads(text)
        process.ready_s = self._clock() - process.started_s
        return True

    def _death(self, process: Process) -> str:
        assert process.popen is not None
        return (
            f"{process.name} ended while starting ({ending(process.popen.returncode)}); "
            f"end of {process.log}:\n{tail(process.log)}"
        )

    def tick(self) -> bool:
        """Looks for deaths and does due restarts. True when something changed."""
        now = self._clock()
        changed = False
        for process in self.processes:
            if process.popen is not None:
                status = process.popen.poll()
                if status is None:
                    changed |= process.ready is None and self._poll_ready(process)
                    continue
                self._note_death(process, status, now)
                changed = True
                continue
            held = self._is_held(process)
            changed |= held != process.held
            process.held = held
            if held:
                process.next_start_s = now  # whoever holds it decides; then it starts at once
            elif now >= process.next_start_s:
                self.start(process)
                changed = True
        return changed

    def _note_death(self, process: Process, status: int, now: float) -> None:
        stable = now - process.started_s > STABLE_S
        process.restarts = 1 if stable else process.restarts + 1
        pause = min(RESTART_PAUSE_S * 2 ** (process.restarts - 1), RESTART_PAUSE_MAX_S)
        process.next_start_s = now + pause
        self._on_exit(process, status)
        process.popen = None

    def _is_held(self, process: Process) -> bool:
        hold = self._run / f"{process.name}.hold"
        try:
            until_s = float(hold.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if time.time() < until_s:
            return True
        hold.unlink(missing_ok=True)
        return False

    def runs(self, name: str) -> bool:
        return any(
            process.name == name and process.popen is not None and process.popen.poll() is None
            for process in self.processes
        )

    def stop(self, say: Callable[[str], None], hurry: Callable[[], bool] = lambda: False) -> None:
        """Ends all processes, last started first; SIGKILL after STOP_TIMEOUT_S, or as soon as
        hurry() is true."""
        for process in reversed(self.processes):
            if process.popen is not None and process.popen.poll() is None:
                self._end(process, process.popen, say, hurry)
            process.popen = None
        for process in self.processes:
            if process.ready_pipe >= 0:
                with contextlib.suppress(OSError):
                    os.close(process.ready_pipe)
                process.ready_pipe = -1

    def _end(
        self,
        process: Process,
        popen: "subprocess.Popen[bytes]",
        say: Callable[[str], None],
        hurry: Callable[[], bool],
    ) -> None:
        popen.send_signal(signal.SIGTERM)
        deadline = self._clock() + STOP_TIMEOUT_S
        while popen.poll() is None:
            late = self._clock() > deadline
            if late or hurry():
                why = f"did not stop in {STOP_TIMEOUT_S:.0f} s" if late else "was still stopping"
                say(f"{process.name} {why}, killed it")
                popen.kill()
                popen.wait()
            time.sleep(STOP_POLL_S)


def ending(status: int) -> str:
    """A process's exit status in words.

    >>> ending(-9), ending(1)
    ('SIGKILL', 'exit status 1')
    """
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def tail(path: pathlib.Path, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    try:
        with path.open("rb") as file:
            return _last_lines(file, lines)
    except FileNotFoundError:
        return "    (no log)"


def _last_lines(file: Any, lines: int) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 16384))
    text: str = file.read().decode(errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def memory_bytes(pid: int) -> int:
    """Proportional set size of a process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return _pss(file)
    except OSError:
        return 0


def _pss(file: TextIO) -> int:
    for line in file:
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
