"""3FS's module of this name."""

import os

__all__ = ["get_mount_point"]


def get_mount_point(p: "str | os.PathLike[str]") -> str:
    """The first two components of the real path, as 3FS mounts are named: /hf3fs-x/name.

    >>> get_mount_point("/hf3fs-test/data/a/b")
    '/hf3fs-test/data'
    """
    return "/" + "/".join(os.path.realpath(p).split("/")[1:3])
