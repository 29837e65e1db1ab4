"""3FS's module of this name: rings of shared memory (fs3/usrbio/README.md)."""

import fcntl
import os

from fs3._usrbio import deregister_fd, extract_mount_point, hardlink, ioring, iovec, register_fd
from fs3._usrbio import punch_hole as _punch_hole

__all__ = [
    "deregister_fd",
    "extract_mount_point",
    "force_fsync",
    "hardlink",
    "ioring",
    "iovec",
    "punch_hole",
    "register_fd",
]

_FSYNC = 0x8004680B


def force_fsync(fd: int) -> int:
    """Settles the length of the file, through any open descriptor."""
    return fcntl.ioctl(fd, _FSYNC, 0)


def punch_hole(
    filename_or_fd: "str | os.PathLike[str] | int", start: int, end: int, flags: int = 0
) -> None:
    """Takes the bytes [start, end) out of the file. Raises OSError."""
    if isinstance(filename_or_fd, int):
        _punch_hole(filename_or_fd, start, end, flags)
        return
    fd = os.open(filename_or_fd, os.O_RDWR)
    try:
        _punch_hole(fd, start, end, flags)
    finally:
        os.close(fd)
