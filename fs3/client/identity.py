"""Who asks: the user of this process, as the metadata service is told."""

import os
import pathlib
from dataclasses import dataclass
from typing import Self

from fs3 import limits
from fs3._proto import meta_pb2

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """Taken once when a client is made; a later setuid needs a new client, or `acting_as`."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    pid: int | None = None  # for messages to people; None: this process

    @classmethod
    def of_process(cls) -> Self:
        groups = tuple(os.getgroups()[: limits.GROUPS_MAX])
        return cls(os.geteuid(), os.getegid(), groups, _umask())

    @classmethod
    def of_peer(cls, uid: int, gid: int, pid: int) -> Self:
        """A process that this one works for, as a mount does: uid and gid as the kernel told them,
        the supplementary groups from /proc. No umask: the kernel has applied it."""
        # Root needs no groups, and pid 0, the kernel itself, has none.
        groups = () if uid == 0 or pid == 0 else _groups(pid)
        return cls(uid, gid, groups, umask=0, pid=pid)

    def caller(self) -> bytes:
        """A serialized fs3.meta.Caller."""
        pid = os.getpid() if self.pid is None else self.pid
        caller = meta_pb2.Caller(uid=self.uid, gid=self.gid, groups=self.groups, pid=pid)
        serialized: bytes = caller.SerializeToString()
        return serialized


def _umask() -> int:
    """Without changing it even for a moment: other threads may be making files."""
    fields = _status_line("self", "Umask:")
    return int(fields[0], 8) if fields else 0o022


def _groups(pid: int) -> tuple[int, ...]:
    """None for a process that is gone: its groups cannot matter any more."""
    try:
        fields = _status_line(str(pid), "Groups:")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(map(int, fields[: limits.GROUPS_MAX]))


def _status_line(process: str, label: str) -> list[str]:
    """The fields behind a label in /proc/PID/status, where the command's name may be any bytes."""
    text = pathlib.Path("/proc", process, "status").read_text(errors="surrogateescape")
    for line in text.splitlines():
        if line.startswith(label):
            return line.split()[1:]
    return []
