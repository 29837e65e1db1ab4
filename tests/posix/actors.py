"""People at their own processes: root, alice and bob, each twice, forked once and setuid for good.

alice and bob are ordinary users; alice is in the groups team and staff beside her own, bob in none.
The second process of each (root2, alice2, bob2) is there for locks and for what is shared.
"""

import faulthandler
import os
import pickle
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterable, Iterator

from tests.posix.text import USERS
from tests.posix.words import OK, Words

__all__ = ["ACTORS", "Actor", "Actors"]

GROUPS = {"root": [], "alice": ["team", "staff"], "bob": []}
ACTORS = ("root", "alice", "bob", "root2", "alice2", "bob2")
ANSWER_TIMEOUT_S = 120.0  # an answer that takes longer than this hangs


class Actor:
    """One process. `say` waits for the answer; `begin` and `end` are its two halves."""

    def __init__(self, name: str, user: str | None) -> None:
        """`user` None: stays who this process is."""
        self.name = name
        self._user = user
        self._mine, theirs = socket.socketpair()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._mine.close()
            self._serve(theirs)
        theirs.close()
        self._waiting = False

    def say(self, line: str) -> str:
        self.begin(line)
        return self.end()

    def begin(self, line: str) -> None:
        assert not self._waiting, f"{self.name} is still busy"
        _send(self._mine, line)
        self._waiting = True

    def busy(self, for_s: float) -> bool:
        """Whether the answer is still missing after that time."""
        return not select.select([self._mine], [], [], for_s)[0]

    def end(self) -> str:
        if self.busy(ANSWER_TIMEOUT_S):
            raise TimeoutError(f"{self.name} got no answer within {ANSWER_TIMEOUT_S} s")
        self._waiting = False
        answer = _receive(self._mine)
        if not isinstance(answer, str):
            raise AssertionError(f"{self.name}: {answer[0]}")
        return answer

    def reset(self, place: str) -> None:
        """Nothing open, umask 0, working in that directory."""
        assert self.say(f"reset {place}") == OK

    def stop(self) -> None:
        """Also when it still waits for a lock: by force."""
        if self._waiting:
            os.kill(self.pid, signal.SIGKILL)
        else:
            _send(self._mine, None)  # not the end of the socket, which later children also hold
        self._mine.close()
        os.waitpid(self.pid, 0)

    def _serve(self, theirs: socket.socket) -> None:
        """The child's life: a line, an answer."""
        status = 1
        faulthandler.disable()  # its children may end by SIGBUS, as a row wants it
        try:
            if self._user is not None:
                os.setgroups([USERS[group] for group in GROUPS[self._user]])
                os.setresgid(*[USERS[self._user]] * 3)
                os.setresuid(*[USERS[self._user]] * 3)
            words = Words()
            while (line := _receive(theirs)) is not None:
                try:
                    answer: object = _answer(words, str(line))
                except Exception:
                    answer = (f"{line}\n{traceback.format_exc()}",)
                _send(theirs, answer)
            words.reset()
            status = 0
        finally:
            os._exit(status)


def _answer(words: Words, line: str) -> str:
    word, _, rest = line.partition(" ")
    if word == "reset":
        words.reset()
        os.chdir(rest)
        return OK
    if word == "people":  # name=pid ...
        pairs = (one.split("=") for one in rest.split())
        words.people = {int(pid): name for name, pid in pairs}
        return OK
    return words.say(line)


def _send(to: socket.socket, value: object) -> None:
    packed = pickle.dumps(value)
    to.sendall(struct.pack("<I", len(packed)) + packed)


def _receive(source: socket.socket) -> object:
    """None at the end."""
    head = _exactly(source, 4)
    if head is None:
        return None
    packed = _exactly(source, struct.unpack("<I", head)[0])
    return None if packed is None else pickle.loads(packed)


def _exactly(source: socket.socket, length: int) -> bytes | None:
    got = b""
    while len(got) < length:
        part = source.recv(length - len(got))
        if not part:
            return None
        got += part
    return got


class Actors:
    """All of them; a context that ends them."""

    def __init__(self, names: Iterable[str] = ACTORS, *, change_user: bool = True) -> None:
        self._all: dict[str, Actor] = {}
        for name in names:
            self._all[name] = Actor(name, name.rstrip("2") if change_user else None)
        people = " ".join(f"{one.name}={one.pid}" for one in self._all.values())
        for one in self._all.values():
            assert one.say(f"people {people}") == OK

    def __getitem__(self, name: str) -> Actor:
        return self._all[name]

    def __iter__(self) -> Iterator[Actor]:
        return iter(self._all.values())

    def __enter__(self) -> "Actors":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all.values():
            one.stop()
