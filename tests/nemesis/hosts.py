"""Where processes run: each host a network namespace, or all on this host's loopback.

    switch (namespace with a bridge) ── veth ── one namespace per host, 10.213.0.N

A cut between two hosts is a blackhole route in the sender's namespace, so it has a direction. With
loopback there is nothing to cut: the nemesis then draws no partitions, and says so.
"""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Protocol

__all__ = ["Hosts", "Loopback", "Namespaces", "namespaces_allowed"]

NETWORK = "10.213.0"


class Hosts(Protocol):
    """start() makes them, stop() takes them away with whatever is cut."""

    can_cut: bool

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def address(self, host: str) -> str: ...
    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """What to execute so that `command` runs on that host, under the same process id."""

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing that `sender` sends arrives at `receiver`; the other direction stays."""

    def mend(self) -> None:
        """All cuts end."""


def namespaces_allowed() -> bool:
    """Root, with `ip` and `nsenter`, where the kernel lets it."""
    if os.geteuid() != 0:
        return False
    try:
        subprocess.run(["nsenter", "--version"], capture_output=True, check=True)
        name = f"fs3-probe-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", name], capture_output=True, check=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Loopback:
    """All processes side by side on this host."""

    can_cut = False

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def address(self, host: str) -> str:
        return "127.0.0.1"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        return list(command)

    def cut(self, sender: str, receiver: str) -> None:
        raise AssertionError("loopback has nothing to cut")

    def mend(self) -> None: ...


class Namespaces:
    """`names` in the order of their addresses. Namespaces are named after this process."""

    can_cut = True

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"fs3-{os.getpid()}-"
        self._numbers = {name: number for number, name in enumerate(names, start=1)}
        self._cuts: set[tuple[str, str]] = set()

    def start(self) -> None:
        switch = self._prefix + "switch"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name, number in self._numbers.items():
            host, port = self._prefix + name, f"port{number}"
            _ip("netns", "add", host)
            peer = ("peer", "name", "eth0", "netns", host)
            _ip("-n", switch, "link", "add", port, "type", "veth", *peer)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host, "link", "set", device, "up")

    def stop(self) -> None:
        for name in (*self._numbers, "switch"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self._prefix + name)

    def address(self, host: str) -> str:
        return f"{NETWORK}.{self._numbers[host]}"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """nsenter, not `ip netns exec`: that would hide the mounts of the process."""
        place = pathlib.Path("/run/netns") / (self._prefix + host)
        return ["nsenter", f"--net={place}", *command]

    def cut(self, sender: str, receiver: str) -> None:
        if (sender, receiver) not in self._cuts:
            self._cuts.add((sender, receiver))
            self._route("add", sender, receiver)

    def mend(self) -> None:
        for sender, receiver in self._cuts:
            self._route("del", sender, receiver)
        self._cuts.clear()

    def _route(self, verb: str, sender: str, receiver: str) -> None:
        target = f"{self.address(receiver)}/32"
        _ip("-n", self._prefix + sender, "route", verb, "blackhole", target)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
