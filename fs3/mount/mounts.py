"""What is mounted, from /proc/self/mountinfo: never by looking at a mount, which may hang."""

import pathlib
import re
from typing import NamedTuple

__all__ = ["TYPE", "TYPES", "Mount", "mounted_at", "parse_mountinfo"]

TYPE = "fuse.fs3"
TYPES = (TYPE, "fuse.hf3fs")  # the latter by -o hf3fs, for clients of 3FS that look for it
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    path: str
    type: str
    source: str
    device: str  # "major:minor"


def parse_mountinfo(text: str) -> list[Mount]:
    """Lines of proc(5) mountinfo, in the order of mounting; malformed ones are left out.

    >>> parse_mountinfo("36 35 0:52 / /a\\\\040b rw - fuse.fs3 fs3 rw")
    [Mount(path='/a b', type='fuse.fs3', source='fs3', device='0:52')]
    """
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if separator and len(fields) >= 6 and len(kinds) >= 2:
            mounts.append(Mount(_plain(fields[4]), kinds[0], _plain(kinds[1]), fields[2]))
    return mounts


def mounted_at(path: str) -> Mount | None:
    """The topmost mount at exactly this place; None when there is none. `path`: absolute, real."""
    text = pathlib.Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    found = [mount for mount in parse_mountinfo(text) if mount.path == path]
    return found[-1] if found else None


def _plain(text: str) -> str:
    """Space, tab, newline and backslash are written as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
