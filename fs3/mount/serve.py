"""The life of a mount process, whatever front end serves it: start, tell that it is ready, wait for
a signal or an unmount, stop."""

import threading
from typing import Any, Protocol

from fs3.runtime import ready
from fs3.runtime.signals import StopSignal

__all__ = ["FrontEnd", "serve"]

END_JOIN_S = 5.0


class FrontEnd(Protocol):
    """One mount: it answers from start() on."""

    def start(self) -> None:
        """Raises OSError when it cannot be mounted; nothing is left behind then."""

    def wait_ended(self) -> None:
        """Until the kernel has let go: somebody unmounted."""

    def stop(self) -> None:
        """Unmounts if need be; what was written is in the cluster when it returns."""

    def statistics(self) -> dict[str, Any]:
        """For SIGUSR1."""


def serve(front_end: FrontEnd, ready_fd: int | None) -> None:
    """Until SIGTERM, SIGINT or an unmount; call in the main thread. `ready_fd` gets one JSON line
    once the mount answers."""
    stop = StopSignal(front_end.statistics)
    front_end.start()
    end = threading.Thread(
        target=_tell_end, args=(front_end, stop), name="fs3-mount-end", daemon=True
    )
    try:
        end.start()
        ready.notify(-1 if ready_fd is None else ready_fd, addresses=[])
        stop.wait()
    finally:
        front_end.stop()
        end.join(END_JOIN_S)


def _tell_end(front_end: FrontEnd, stop: StopSignal) -> None:
    front_end.wait_ended()
    stop.fail("")
