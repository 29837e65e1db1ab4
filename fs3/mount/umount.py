"""Unmounting, and who stands in the way."""

import errno
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from fs3 import _native
from fs3.errors import error_for
from fs3.mount.mounts import mounted_at

__all__ = ["Holder", "holders", "unmount", "users"]

HOLDERS_SHOWN = 8


class Holder(NamedTuple):
    pid: int
    command: str
    how: str  # "working directory", "open file /mnt/a", ...


def unmount(mount_point: pathlib.Path, *, lazy: bool = False) -> None:
    """Raises OSError: EINVAL nothing is mounted there, EBUSY with the processes that use it.

    `lazy`: out of the name space at once; gone when the last user is. Returns when the mount is
    out of the name space: everything that was closed before is in the cluster.
    """
    place = _real(mount_point)
    existing = mounted_at(place)
    if existing is None:
        raise error_for(errno.EINVAL, "umount", f"nothing is mounted at {mount_point}")
    try:
        _native.fuse_unmount(place, lazy or _dead(place))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise error_for(errno.EBUSY, "umount", _busy(mount_point, list(holders(place)))) from None


def _real(mount_point: pathlib.Path) -> str:
    """The path without links, not touching the mount point itself: it may be dead."""
    absolute = pathlib.Path(os.path.abspath(mount_point))
    return os.path.join(os.path.realpath(absolute.parent), absolute.name)


def _dead(place: str) -> bool:
    try:
        os.stat(place)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def holders(place: str, proc: pathlib.Path = pathlib.Path("/proc")) -> Iterator[Holder]:
    """Processes with a working directory, root, program, open file or mapping below `place`; those
    of other users only as far as this process may look."""
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            how = _use(entry, place)
            if how:
                yield Holder(int(entry.name), _command(entry), how)


def _use(process: pathlib.Path, place: str) -> str:
    for link, how in (("cwd", "working directory"), ("root", "root directory"), ("exe", "program")):
        if _below(_read_link(process / link), place):
            return how
    try:
        descriptors = sorted((process / "fd").iterdir())
        maps = (process / "maps").read_text(errors="surrogateescape")
    except OSError:
        return ""
    for descriptor in descriptors:
        target = _read_link(descriptor)
        if _below(target, place):
            return f"open file {target}"
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _below(fields[5], place):
            return f"mapped file {fields[5]}"
    return ""


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _read_link(path: pathlib.Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(process: pathlib.Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"


def users(mount_point: pathlib.Path) -> str:
    """Who uses a mount, for people; empty when nobody does (or nobody that this user may see)."""
    return _listed(list(holders(_real(mount_point))))


def _listed(found: list[Holder]) -> str:
    shown = [f"{one.command} (pid {one.pid}, {one.how})" for one in found[:HOLDERS_SHOWN]]
    more = f" and {len(found) - HOLDERS_SHOWN} more" if len(found) > HOLDERS_SHOWN else ""
    return ", ".join(shown) + more


def _busy(mount_point: pathlib.Path, found: list[Holder]) -> str:
    """
    >>> _busy(pathlib.Path("/mnt"), [Holder(7, "bash", "working directory")])
    '/mnt is busy: bash (pid 7, working directory); end them, or: fs3 umount --lazy /mnt'
    """
    who = _listed(found) or "processes that this user may not see (try as root)"
    return f"{mount_point} is busy: {who}; end them, or: fs3 umount --lazy {mount_point}"
