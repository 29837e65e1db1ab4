"""Signals of a daemon: SIGTERM and SIGINT end it cleanly, SIGUSR1 dumps stacks and statistics."""

import faulthandler
import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["StopSignal"]

log = logging.getLogger(__name__)


class StopSignal:
    """Made in the main thread, which then only waits: so a handler runs at once."""

    def __init__(self, statistics: Callable[[], object] | None = None) -> None:
        self._event = threading.Event()
        self.failure = ""  # why the process may not go on; empty after a signal
        self._statistics = statistics
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._dump)

    def wait(self) -> None:
        """Returns after SIGTERM, SIGINT or fail()."""
        self._event.wait()

    def fail(self, reason: str) -> None:
        """From inside the process, any thread: it may not go on. The first reason stays."""
        self.failure = self.failure or reason
        self._event.set()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

    def _dump(self, _number: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        if self._statistics is not None:
            log.info("statistics %s", self._statistics())
