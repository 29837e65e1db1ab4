"""Ports of a local cluster: free ones, in order, and never the same for two clusters."""

import socket

import click
import pytest

from fs3.cli.ports import PORTS_TRIED, reserved_ports


def test_taken_ports_are_left_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port + PORTS_TRIED > 65535:
            pytest.skip("too near to the last port")
        with reserved_ports(2, port) as found:
            assert port not in found
            assert port < found[0] < found[1]


def test_reserved_ports_are_left_out_while_nobody_listens_there_and_are_free_again() -> None:
    with reserved_ports(2) as first:
        with reserved_ports(2) as second:
            assert not set(first) & set(second)
        with reserved_ports(2, first[0]) as third:
            assert not set(first) & set(third)
    with reserved_ports(1, first[0]) as again:
        assert again[0] >= first[0]


def test_none_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs3.cli.ports.PORTS_TRIED", 1)
    with pytest.raises(click.ClickException, match=r"ss -ltnp"), reserved_ports(2):
        pass
