"""The supervisor: readiness, deaths reported, restarts after a pause, holds, orderly stop."""

import pathlib
import signal
import sys
import time

import pytest

from fs3.cli.supervisor import RESTART_PAUSE_S, Process, StartError, Supervisor

READY = """
import os, sys, time, signal
descriptor = int(sys.argv[sys.argv.index("--ready-fd") + 1])
os.write(descriptor, b'{"ready": true, "addresses": ["here"]}\\n')
signal.pause()
"""
BROKEN = "import sys; print('cannot open the store: it is a test'); sys.exit(7)"


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def deaths() -> list[tuple[str, int]]:
    return []


def make(
    tmp_path: pathlib.Path,
    script: str,
    deaths: list[tuple[str, int]],
    clock: object = time.monotonic,
) -> tuple[Supervisor, Process]:
    supervisor = Supervisor(
        tmp_path,
        lambda process, status: deaths.append((process.name, status)),
        clock,  # type: ignore[arg-type]
        (sys.executable, "-c", script),
    )
    return supervisor, Process("one", [], tmp_path / "one.log", 1)


def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not come true")


def test_ready_and_stopped(tmp_path: pathlib.Path, deaths: list[tuple[str, int]]) -> None:
    supervisor, process = make(tmp_path, READY, deaths)
    supervisor.start(process)
    supervisor.wait_ready(["one"])
    assert process.ready == {"ready": True, "addresses": ["here"]}
    supervisor.stop(print)
    assert process.popen is None
    assert deaths == []


def test_failed_start_shows_the_log(tmp_path: pathlib.Path, deaths: list[tuple[str, int]]) -> None:
    supervisor, process = make(tmp_path, BROKEN, deaths)
    supervisor.start(process)
    with pytest.raises(StartError, match=r"(?s)status 7.*cannot open the store"):
        supervisor.wait_ready(["one"])
    supervisor.stop(print)


def test_death_is_reported_and_restarted_after_the_pause(
    tmp_path: pathlib.Path, deaths: list[tuple[str, int]]
) -> None:
    clock = FakeClock()
    supervisor, process = make(tmp_path, READY, deaths, clock)
    supervisor.start(process)
    until(lambda: supervisor.tick() or process.ready)
    assert process.popen is not None
    process.popen.send_signal(signal.SIGKILL)
    until(lambda: supervisor.tick() and process.popen is None)
    assert deaths == [("one", -signal.SIGKILL)]
    assert not supervisor.tick()
    clock.now += RESTART_PAUSE_S
    assert supervisor.tick()
    assert process.popen is not None
    supervisor.stop(print)


def test_hold_keeps_it_down(tmp_path: pathlib.Path, deaths: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    supervisor, process = make(tmp_path, READY, deaths, clock)
    supervisor.start(process)
    assert process.popen is not None
    (tmp_path / "one.hold").write_text(str(time.time() + 1000))
    process.popen.kill()
    until(lambda: supervisor.tick() and process.popen is None)
    until(lambda: supervisor.tick() or process.held)
    clock.now += 100
    assert not supervisor.tick()
    (tmp_path / "one.hold").write_text("0")
    assert supervisor.tick()
    assert process.popen is not None
    assert not process.held
    supervisor.stop(print)
