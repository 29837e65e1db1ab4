"""Ports of a local cluster: free ones, in order, and never two clusters at once."""

import pathlib
import socket

import click
import pytest

from fs3.cli.ports import PORTS_TRIED, choosing_ports, free_ports


def test_taken_ports_are_left_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port + PORTS_TRIED > 65535:
            pytest.skip("too near to the last port")
        found = free_ports(2, port)
    assert port not in found
    assert port < found[0] < found[1]


def test_none_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs3.cli.ports.PORTS_TRIED", 1)
    with pytest.raises(click.ClickException, match=r"ss -ltnp"):
        free_ports(2)


def test_the_choice_is_exclusive(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with choosing_ports():
        lock = tmp_path / "fs3-clusters" / ".ports"
        import fcntl

        with lock.open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
