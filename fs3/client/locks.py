"""Locks of an open file: what Client and AsyncClient share. The owner is the open file, as for
F_OFD_SETLK and flock(2), whatever thread asks."""

import errno
import fcntl
import itertools
import os

from fs3._proto import meta_pb2
from fs3.client.calls import Operation
from fs3.client.modes import Mode
from fs3.client.operations import Opened, Operations
from fs3.client.paths import Path, naming
from fs3.errors import Fs3Error, Status

__all__ = ["FileLock"]

Request = meta_pb2.LockRequest
Reply = meta_pb2.LockReply
END_MAX = (1 << 63) - 1
_numbers = itertools.count(1)  # of owners and waits; with the id of the client they are unique


class FileLock:
    """The locks of one open file. Methods are operations."""

    def __init__(self, operations: Operations, opened: Opened, path: Path, mode: Mode) -> None:
        self._operations = operations
        self._path = path
        self._access = mode.flags & os.O_ACCMODE
        self._inode = opened.inode
        self._owner = next(_numbers)
        self._used: set[int] = set()  # kinds
        self._waiting: meta_pb2.LockRequest | None = None

    def set(self, type: int, start: int, length: int, *, wait: bool) -> Operation[None]:
        """`length` 0: to the end of the file, however long it gets. BlockingIOError when somebody
        holds it and `wait` is False; EDEADLK; ENOLCK."""
        if start < 0 or length < 0 or start + length > END_MAX:
            raise OSError(errno.EINVAL, f"lock: start {start}, length {length}")
        forbidden: dict[int, int] = {Request.READ: os.O_WRONLY, Request.WRITE: os.O_RDONLY}
        if self._access == forbidden.get(type):
            raise OSError(errno.EBADF, "lock: the file is not open for it", os.fsdecode(self._path))
        end = start + length - 1 if length else END_MAX
        yield from self._take(Request.POSIX, type, start, end, wait=wait)

    def flock(self, operation: int) -> Operation[None]:
        types = {
            fcntl.LOCK_SH: Request.READ,
            fcntl.LOCK_EX: Request.WRITE,
            fcntl.LOCK_UN: Request.UNLOCK,
        }
        type = types.get(operation & ~fcntl.LOCK_NB)
        if type is None:
            raise OSError(errno.EINVAL, f"flock: operation {operation:#x}")
        wait = not operation & fcntl.LOCK_NB
        yield from self._take(Request.FLOCK, type, 0, END_MAX, wait=wait)

    def cancel(self) -> Operation[None]:
        """After a wait that was broken off: it must not get the lock later. If it has got it just
        now, it is let go."""
        waited = self._waiting
        if waited is None:
            return
        self._waiting = None
        waited.action, waited.wait = Request.CANCEL, False
        if (yield from self._send(waited)) == Reply.GRANTED:
            waited.action, waited.type = Request.SET, Request.UNLOCK
            yield from self._send(waited)

    def release(self) -> Operation[None]:
        """All of it, when the file is closed."""
        while self._used:
            kind = self._used.pop()
            yield from self._send(self._request(Request.RELEASE, kind))

    def close(self, opened: Opened) -> Operation[None]:
        """Closes the file, locks first. The handle is dead afterwards, whatever the outcome: locks
        that could not be let go end with this client."""
        try:
            yield from self.release()
        finally:
            yield from self._operations.close(opened, self._path)

    def _take(self, kind: int, type: int, start: int, end: int, *, wait: bool) -> Operation[None]:
        wait = wait and type != Request.UNLOCK
        self._used.add(kind)
        request = self._request(Request.SET, kind, type=type, start=start, end=end, wait=wait)
        if wait:
            request.ticket = next(_numbers)
            self._waiting = request
        with naming(self._path):
            state: int = Reply.WAITING
            while state == Reply.WAITING:
                state = yield from self._send(request)
        self._waiting = None
        if state != Reply.GRANTED:
            detail = "somebody else holds a lock on it"
            raise BlockingIOError(errno.EAGAIN, detail, os.fsdecode(self._path))

    def _request(self, action: int, kind: int, **fields: int) -> meta_pb2.LockRequest:
        fields.setdefault("end", END_MAX)
        return meta_pb2.LockRequest(
            inode=self._inode,
            action=action,  # type: ignore[arg-type]
            kind=kind,  # type: ignore[arg-type]
            owner=self._owner,
            pid=os.getpid(),
            **fields,  # type: ignore[arg-type]
        )

    def _send(self, request: meta_pb2.LockRequest) -> Operation[int]:
        """The state. A wait goes on while no service answers; it has no end of its own."""
        try:
            return int((yield from self._operations.lock(request)).state)
        except Fs3Error as error:
            if request.wait and error.code == Status.TIMED_OUT:
                return int(Reply.WAITING)
            raise
