"""Where a mount may go, and for whom: what every front end asks before it starts."""

import errno
import logging
import os
import pathlib
import stat

from fs3.errors import error_for
from fs3.mount.mounts import TYPES, Mount, mounted_at
from fs3.mount.umount import unmount

__all__ = ["allow_other", "check_mount_point", "uring_enabled"]

log = logging.getLogger(__name__)


def check_mount_point(path: pathlib.Path) -> None:
    """Raises OSError with a sentence unless `path` is an empty directory with no mount on it.

    The remains of an fs3 mount whose process died are taken away: nobody can use them any more.
    """
    place = os.path.realpath(path)
    existing = mounted_at(place)
    if existing is not None:
        _clear_dead(place, existing)
    try:
        info = os.stat(place)
    except FileNotFoundError:
        raise error_for(errno.ENOENT, "mount", f"{path} does not exist; make it first") from None
    if not stat.S_ISDIR(info.st_mode):
        raise error_for(errno.ENOTDIR, "mount", f"{path} is not a directory")
    with os.scandir(place) as entries:
        names = [entry.name for entry, _ in zip(entries, range(3), strict=False)]
    if names:
        raise error_for(
            errno.ENOTEMPTY,
            "mount",
            f"{path} is not empty ({', '.join(names)}, ...): its content would be hidden; "
            "mount on an empty directory",
        )


def _clear_dead(place: str, existing: Mount) -> None:
    try:
        os.stat(place)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise
        if existing.type not in TYPES:
            raise error_for(
                errno.ENOTCONN,
                "mount",
                f"{place} is a dead {existing.type} mount (transport endpoint is not connected); "
                f"take it away first: fs3 umount {place}",
            ) from None
        log.warning("taking away the dead fs3 mount at %s", place)
        unmount(pathlib.Path(place), lazy=True)
        return
    raise error_for(
        errno.EBUSY,
        "mount",
        f"{place} is mounted already ({existing.type} from {existing.source}); "
        f"choose another place or: fs3 umount {place}",
    )


def uring_enabled() -> bool:
    """The administrator lets FUSE go over io_uring."""
    try:
        return pathlib.Path("/sys/module/fuse/parameters/enable_uring").read_text().strip() == "Y"
    except OSError:
        return False


def allow_other() -> bool:
    """Others may use the mount: as root always, else where /etc/fuse.conf says so."""
    if os.geteuid() == 0:
        return True
    try:
        lines = pathlib.Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
