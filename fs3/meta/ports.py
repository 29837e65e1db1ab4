"""What the metadata service needs of the rest of the cluster, as protocols. daemon.py plugs the
real ones in."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fs3.meta.inode import Layout


class Measure(NamedTuple):
    """What storage holds of a file."""

    length: int  # one past the last byte; 0 when it holds none
    stored: int  # bytes, copies not counted


class ChunkPort(Protocol):
    """Whole-chunk work on storage. Every call blocks, and raises Fs3Error when it did not happen in
    full; all can be repeated. Called from job threads only, never from the thread that answers."""

    def truncate_chunks(self, inode: int, layout: Layout, old_size: int, new_size: int) -> None:
        """Afterwards storage holds no byte of the file at or beyond `new_size`, given that it held
        none at or beyond `old_size`."""

    def remove_chunks(self, inode: int, layout: Layout, size: int) -> None:
        """As truncate to 0, given that storage holds nothing at or beyond `size`."""

    def measure(self, inode: int, layout: Layout) -> Measure: ...


class Space(NamedTuple):
    """Of all serving targets together, before replication."""

    capacity_bytes: int
    free_bytes: int


SpacePort = Callable[[], Space]


class Minter(Protocol):
    """Capabilities (proto/CAPABILITY.md)."""

    def mint(self, *, rights: int, inode: int, client: bytes, session: bytes) -> bytes:
        """80 bytes. `session` is empty for a read-only open."""


class Jobs(Protocol):
    """Where blocking work goes. jobs.ThreadJobs in the daemon, jobs.ManualJobs in tests."""

    def spawn(self, job: Callable[[], None]) -> None:
        """Soon, on another thread."""

    def later(self, delay_s: float, job: Callable[[], None]) -> None: ...
