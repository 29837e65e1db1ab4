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
    """Taken once when a client is made; a later setuid needs a new client."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022

    @classmethod
    def of_process(cls) -> Self:
        groups = tuple(os.getgroups()[: limits.GROUPS_MAX])
        return cls(os.geteuid(), os.getegid(), groups, _umask())

    def caller(self) -> bytes:
        """A serialized fs3.meta.Caller."""
        caller = meta_pb2.Caller(uid=self.uid, gid=self.gid, groups=self.groups, pid=os.getpid())
        serialized: bytes = caller.SerializeToString()
        return serialized


def _umask() -> int:
    """Without changing it even for a moment: other threads may be making files."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
