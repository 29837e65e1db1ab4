"""Signals of a daemon: SIGTERM and SIGINT end it cleanly, SIGUSR1 dumps stacks and statistics."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

__all__ = ["StopSignal"]

log = logging.getLogger(__name__)


class StopSignal:
    """Made in the main thread, which then only waits: so a handler runs at once.

    It waits in a read of a pipe that the interpreter writes to when a signal arrives, on whichever
    thread. A lock would not do: a signal between the last look at pending ones and the sleep, or
    one that the kernel gives to another thread, does not wake it.
    """

    def __init__(self, statistics: Callable[[], object] | None = None) -> None:
        self.failure = ""  # why the process may not go on; empty after a signal
        self._stopped = False
        self._statistics = statistics
        self._waker, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._dump)

    def wait(self) -> None:
        """Returns after SIGTERM, SIGINT or fail()."""
        while not self._stopped:
            os.read(self._waker, 4096)

    def fail(self, reason: str) -> None:
        """From inside the process, any thread: it may not go on. The first reason stays."""
        self.failure = self.failure or reason
        self._stopped = True
        with contextlib.suppress(BlockingIOError):  # full: it wakes anyhow
            os.write(self._wake, b"\0")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def _dump(self, _number: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        if self._statistics is not None:
            log.info("statistics %s", self._statistics())
