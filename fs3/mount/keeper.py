"""Keeps a mount while the process that serves it dies or is replaced.

    keeper (this) ── socket ── server: `fs3 mount --keeper-fd N`, all of the mount
      holds the descriptors of the FUSE connection and the memory of open files
      (native/fuse/handover.h); starts the next server with them

A program that uses the mount waits meanwhile: the kernel holds its requests. The keeper does
nothing else, so it has nothing to die of and is never replaced; if it is killed all the same, the
server ends as by SIGTERM.

Messages, one JSON datagram each:

    server -> keeper  {"serving": true}, with the descriptors     mounted, or taken over
    server -> keeper  {"keep": name, "target": .., ..}            registered memory or a ring, with
                                                                  its descriptors (ring_keeper.h)
    server -> keeper  {"drop": name}                              it is gone
    keeper -> server  {"let_go": true}                            settle everything and exit
    anybody -> keeper {"upgrade": [program and its arguments]}    over an abstract socket that is
    keeper -> anybody {"pid": n} or {"error": "..."}              named after the mount's device
"""

import contextlib
import ctypes
import errno
import json
import logging
import os
import pathlib
import selectors
import signal
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fs3.errors import error_for
from fs3.mount.descriptors import raise_descriptor_limit
from fs3.mount.mounts import TYPES, mounted_at
from fs3.runtime import ready
from fs3.runtime.clock import Clock

__all__ = ["Keeper", "KeptRing", "Link", "mount_server", "read_rings", "upgrade"]

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 64 << 10
DESCRIPTORS_MAX = 64  # the memory, and one per reactor
SHORT_LIFE_S = 5.0
SHORT_LIVES_MAX = 10  # a server that dies so often at once will not get better
RESTART_PAUSE_S = 0.2  # between two short lives; the first restart waits for nothing
UPGRADE_TIMEOUT_S = 60.0

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class KeptRing(NamedTuple):
    """What a program has registered with a mount (native/usrbio/server.h)."""

    name: str
    target: bytes
    uid: int
    pid: int
    number: int
    descriptors: list[int]


def write_rings(rings: Iterable[KeptRing]) -> int:
    """A descriptor of a file that read_rings() reads in another process."""
    descriptor = os.memfd_create("fs3-rings")
    lines = [[*ring._replace(target=ring.target.hex())] for ring in rings]  # type: ignore[arg-type]
    with open(descriptor, "w", closefd=False) as file:
        json.dump(lines, file)
    return descriptor


def read_rings(descriptor: int) -> list[KeptRing]:
    """Closes it."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor) as file:
        lines = json.load(file)
    rings = [KeptRing(*line)._replace(target=bytes.fromhex(line[1])) for line in lines]
    for ring in rings:
        for number in ring.descriptors:
            os.set_inheritable(number, False)
    return rings


class Keeper:
    """One mount; run() until its end, in the main thread."""

    def __init__(
        self,
        mount_point: pathlib.Path,
        program: Sequence[str],
        arguments: Sequence[str],
        clock: Clock,
    ) -> None:
        """`program`: how to call fs3; `arguments`: those of the server, but for what the keeper
        adds."""
        self._place = os.path.realpath(mount_point)
        self._program = list(program)
        self._arguments = list(arguments)
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._descriptors: list[int] = []
        self._rings: dict[str, KeptRing] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None  # to the server
        self._serving = False
        self._stopping = False
        self._started_s = 0.0
        self._short_lives = 0
        self._control: socket.socket | None = None
        self._upgrader: socket.socket | None = None  # who waits for the end of an upgrade
        self._program_before: list[str] | None = None
        self._ready_fd = -1

    def run(self, ready_fd: int | None) -> int:
        """The exit status for the process."""
        raise_descriptor_limit()  # the server inherits it
        self._ready_fd = -1 if ready_fd is None else ready_fd
        waker, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        self._selector.register(waker, selectors.EVENT_READ, lambda: os.read(waker, 4096))
        self._start_server()
        while True:
            for key, _ in self._selector.select():
                key.data()
            status = self._look_at_server()
            if status is not None:
                self._answer_upgrade({"error": "the mount has ended"})
                return status

    # -- the server --------------------------------------------------------------------------------

    def _start_server(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [*self._program, *self._arguments, "--keeper-fd", str(theirs.fileno())]
        passed = [theirs.fileno(), *self._descriptors]
        if self._descriptors:
            command += ["--inherited", ",".join(map(str, self._descriptors))]
        rings = -1
        if self._rings:
            rings = write_rings(self._rings.values())
            command += ["--rings", str(rings)]
            passed += [rings, *(fd for ring in self._rings.values() for fd in ring.descriptors)]
        self._server = subprocess.Popen(command, pass_fds=passed, preexec_fn=_end_with_parent)
        theirs.close()
        if rings >= 0:
            os.close(rings)
        self._socket = ours
        self._serving = False
        self._started_s = self._clock.monotonic_ns() / 1e9
        self._selector.register(ours, selectors.EVENT_READ, self._on_message)

    def _on_message(self) -> None:
        assert self._socket is not None
        received = receive(self._socket)
        if received is None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
            return
        message, descriptors = received
        if message.get("serving"):
            self._note_serving(descriptors)
        elif "keep" in message:
            self._keep_ring(message, descriptors)
        elif "drop" in message:
            self._drop_ring(message["drop"])

    def _keep_ring(self, message: dict[str, Any], descriptors: list[int]) -> None:
        name = str(message["keep"])
        self._drop_ring(name)
        target = bytes.fromhex(message["target"])
        owner = int(message["uid"]), int(message["pid"])
        self._rings[name] = KeptRing(name, target, *owner, int(message["number"]), descriptors)

    def _drop_ring(self, name: str) -> None:
        ring = self._rings.pop(name, None)
        for descriptor in ring.descriptors if ring else ():
            os.close(descriptor)

    def _note_serving(self, descriptors: list[int]) -> None:
        """Those of a server that took over are the same ones, duplicated."""
        old, self._descriptors = self._descriptors, descriptors
        for descriptor in old:
            os.close(descriptor)
        self._serving = True
        self._program_before = None
        assert self._server is not None
        self._answer_upgrade({"pid": self._server.pid})
        if self._control is None:
            self._listen()
        if self._ready_fd >= 0:
            ready.notify(self._ready_fd, addresses=[])
            self._ready_fd = -1

    def _look_at_server(self) -> int | None:
        """The exit status of this process, when it is over."""
        assert self._server is not None
        status = self._server.poll()
        if status is None:
            return None
        while self._socket is not None:  # what it said before it died counts
            self._on_message()
        replaced = self._upgrader is not None
        if self._stopping or not self._descriptors or (status == 0 and not replaced):
            return status if status >= 0 else 1
        if status != 0 or not self._serving:
            self._note_death(status)
        if self._short_lives >= SHORT_LIVES_MAX:
            log.error("the mount at %s ends: its process dies as soon as it starts", self._place)
            return 1
        if self._short_lives > 1:
            self._clock.sleep(RESTART_PAUSE_S)
        self._start_server()
        return None

    def _note_death(self, status: int) -> None:
        log.warning(
            "the process that serves %s ended with status %d; the next one takes over",
            self._place,
            status,
        )
        lived_s = self._clock.monotonic_ns() / 1e9 - self._started_s
        self._short_lives = self._short_lives + 1 if lived_s < SHORT_LIFE_S else 0
        if self._program_before is not None:
            self._program, self._program_before = self._program_before, None
            self._answer_upgrade(
                {"error": f"the new program ended with status {status}; the old one serves again"}
            )

    def _on_signal(self, number: int, _frame: Any) -> None:
        if number == signal.SIGCHLD or self._server is None:
            return  # the loop looks at it
        if number != signal.SIGUSR1:
            self._stopping = True
            number = signal.SIGTERM
        if self._server.poll() is None:
            self._server.send_signal(number)

    # -- upgrades ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        mount = mounted_at(self._place)
        if mount is None:
            return  # somebody was fast: it is unmounted already
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.bind(control_name(mount.device))
        self._control.listen(4)
        self._selector.register(self._control, selectors.EVENT_READ, self._on_caller)

    def _on_caller(self) -> None:
        assert self._control is not None
        caller, _ = self._control.accept()
        caller.settimeout(1.0)  # whoever connects has something to say
        try:
            received = receive(caller) if _peer_uid(caller) in (0, os.geteuid()) else None
        except TimeoutError:
            received = None
        program = received[0].get("upgrade") if received else None
        if not program or self._upgrader is not None or not self._serving or self._stopping:
            busy = "refused, or the mount is being taken over already: try again"
            _tell(caller, {"error": busy})
            caller.close()
            return
        self._upgrader = caller
        self._program_before, self._program = self._program, [str(part) for part in program]
        assert self._socket is not None
        _tell(self._socket, {"let_go": True})

    def _answer_upgrade(self, message: dict[str, Any]) -> None:
        if self._upgrader is not None:
            _tell(self._upgrader, message)
            self._upgrader.close()
            self._upgrader = None


class Link:
    """The server's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def fileno(self) -> int:
        return self._socket.fileno()

    def announce(self, descriptors: Sequence[int]) -> None:
        """This process serves; the keeper holds these from now on."""
        message = json.dumps({"serving": True}).encode()
        socket.send_fds(self._socket, [message], list(descriptors))

    def wait(self) -> bool:
        """True when the mount has to be let go; False when the keeper is gone."""
        while (received := receive(self._socket)) is not None:
            if received[0].get("let_go"):
                return True
        return False


def upgrade(mount_point: pathlib.Path, program: Sequence[str]) -> int:
    """Has the mount served by a process of `program` from now on; its pid. Raises OSError."""
    place = os.path.realpath(mount_point)
    mount = mounted_at(place)
    if mount is None or mount.type not in TYPES:
        raise error_for(errno.EINVAL, "mount", f"{mount_point} is no fs3 mount")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(UPGRADE_TIMEOUT_S)
        try:
            caller.connect(control_name(mount.device))
        except ConnectionRefusedError:
            raise error_for(
                errno.ENOTSUP,
                "mount",
                f"the mount at {mount_point} cannot be taken over: it was made with --no-survive, "
                "over io_uring, or through fusepy; unmount it and mount again",
            ) from None
        _tell(caller, {"upgrade": list(program)})
        received = receive(caller)
    answer = received[0] if received else {"error": "the keeper went away"}
    if "pid" not in answer:
        raise error_for(errno.EBUSY, "mount", f"{mount_point}: {answer.get('error', answer)}")
    return int(answer["pid"])


def mount_server(keeper: int) -> int:
    """The process that serves the mount of a keeper; 0 when there is none, or `keeper` is none."""
    for task in pathlib.Path(f"/proc/{keeper}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                if b"--keeper-fd" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    return 0


def control_name(device: str) -> str:
    """In the abstract name space: it goes with its process. `device`: "major:minor"."""
    return f"\0fs3-mount-{device}"


def receive(peer: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One message and the descriptors that came with it; None at the end."""
    data, descriptors, _, _ = socket.recv_fds(peer, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
    if not data:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    message = json.loads(data)
    return (message if isinstance(message, dict) else {}), descriptors


def _tell(peer: socket.socket, message: dict[str, Any]) -> None:
    try:
        peer.send(json.dumps(message).encode())
    except OSError as error:
        log.warning("nobody hears %s: %s", message, error)


def _peer_uid(peer: socket.socket) -> int:
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", raw)[1]
    return uid


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
