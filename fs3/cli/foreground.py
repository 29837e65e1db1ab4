"""What a supervisor hears and says: signals that end it, lines for a person who may have left."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click

__all__ = ["READY_MARK", "Interrupted", "StopRequests", "in_background", "printed"]

READY_MARK = "\x04"  # the line by which a background supervisor tells that everything is ready
Say = Callable[[str], None]


class Interrupted(Exception):
    """A signal asked for the end before everything was ready."""


class StopRequests:
    """Counts SIGINT, SIGTERM and SIGHUP (a closed terminal). One asks for an orderly end, a second
    one for an end at once."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def asked(self) -> bool:
        return self.count > 0

    @property
    def hurry(self) -> bool:
        return self.count > 1

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopRequests"]:
        """Handlers are installed inside; a signal that is ignored (nohup) stays ignored."""

        def catch(_number: int, _frame: FrameType | None) -> None:
            self.count += 1

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, catch)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def printed(text: str) -> None:
    """To standard output, unless nobody can read it any more (the terminal was closed)."""
    with contextlib.suppress(OSError):
        click.echo(text)


def in_background(log: Callable[[], int], work: Callable[[Say, Callable[[], None]], None]) -> int:
    """Forks before anything is started. The child does work(say, on_ready) in a session of its own;
    the parent prints what it says until it is ready, and returns the exit status: 0 when it is,
    the child's otherwise.

    `log`: a descriptor for what the child writes to its standard output and error.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.setsid()
        _child(log, work, write_end)
    os.close(write_end)
    ready = False
    try:
        with os.fdopen(read_end, errors="replace") as pipe:
            for line in pipe:
                ready = ready or line.rstrip("\n") == READY_MARK
                if not ready:
                    click.echo(line, nl=False)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise click.Abort from None
    return 0 if ready else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1


def _child(
    log: Callable[[], int], work: Callable[[Say, Callable[[], None]], None], write_end: int
) -> None:
    """Never returns. An error is printed by the caller's terminal: standard error stays until the
    work is ready."""
    from fs3.cli import report

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    pipe = os.fdopen(write_end, "w")

    def say(text: str) -> None:
        if not pipe.closed:
            with contextlib.suppress(OSError):
                print(text, file=pipe, flush=True)

    def on_ready() -> None:
        say(READY_MARK)
        pipe.close()
        descriptor = log()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    status = report(lambda: work(say, on_ready))
    sys.stderr.flush()
    os._exit(status)
