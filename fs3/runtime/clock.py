"""Time as an argument. Logic takes a Clock; only RealClock reads the machine's."""

import threading
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "RealClock"]


class Clock(Protocol):
    """Thread-safe. All readings are integers in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Grows; stops during suspend. For time-outs and ages within one process."""

    def boottime_ns(self) -> int:
        """Grows, also during suspend (CLOCK_BOOTTIME): the clock that leases are counted on."""

    def wall_ns(self) -> int:
        """Since 1970; may jump. For time stamps that people read, never for decisions."""

    def sleep(self, seconds: float) -> None: ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Waits until `event` is set or the time is over; True when it is set."""


class RealClock:
    """The clocks of the machine."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)


class ManualClock:
    """Moves only by advance(); sleepers wake when their time has come.

    Invariant: all three readings share one counter, so advance(T) moves each by T.
    """

    _POLL_S = (
        0.001  # how often a waiter looks at the caller's event; real time, costs no virtual time
    )

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._changed = threading.Condition()
        self._now_ns = start_ns

    def monotonic_ns(self) -> int:
        with self._changed:
            return self._now_ns

    boottime_ns = monotonic_ns
    wall_ns = monotonic_ns

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._now_ns += int(seconds * 1e9)
            self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        with self._changed:
            until_ns = self._now_ns + int(timeout_s * 1e9)
            while not event.is_set() and self._now_ns < until_ns:
                self._changed.wait(self._POLL_S)
        return event.is_set()
