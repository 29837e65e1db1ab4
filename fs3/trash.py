"""What the service and its clients agree on about the trash: names in it and times. How it works:
fs3/meta/trash.py."""

import calendar
import re
import time
from typing import NamedTuple

from fs3 import limits

__all__ = ["KEEPS", "REMOVED_FROM", "ROOT_NAME", "Bucket", "duration_s"]

KEEPS = b"user.fs3.trash"  # attribute of a directory: how long what is removed from it is kept
REMOVED_FROM = b"system.fs3.removed_from"  # attribute of what is in the trash: b"PARENT NAME"
ROOT_NAME = b".trash"
DAY_S = 24 * 3600
_UNITS = {b"m": 60, b"h": 3600, b"d": DAY_S}
_DURATION = re.compile(rb"(\d{1,6})([mhd])")
HOUR_BYTES = len("20261205T18")
_HOUR, _MINUTE = "%Y%m%dT%H", "%Y%m%dT%H%M"
_BUCKET = re.compile(rb"\d{8}T(\d{2}|\d{4})")


class Bucket(NamedTuple):
    """A directory of what goes at the same time. It goes when that hour, or minute, begins."""

    name: bytes
    expires_s: int  # since the epoch, UTC

    @classmethod
    def of(cls, now_s: int, keep_s: int) -> "Bucket":
        """The first that is kept long enough.

        >>> Bucket.of(1_796_493_600 + 1, 7200)  # 2026-12-05 18:00:01
        Bucket(name=b'20261205T2001', expires_s=1796500860)
        """
        step_s, form = (3600, _HOUR) if keep_s >= DAY_S else (60, _MINUTE)
        expires_s = -(-(now_s + keep_s) // step_s) * step_s
        return cls(time.strftime(form, time.gmtime(expires_s)).encode(), expires_s)

    @classmethod
    def parse(cls, name: bytes) -> "Bucket | None":
        """
        >>> Bucket.parse(b"20261205T2001").expires_s, Bucket.parse(b"20269905T20")
        (1796500860, None)
        """
        if not _BUCKET.fullmatch(name):
            return None
        try:
            moment = time.strptime(name.decode(), _HOUR if len(name) == HOUR_BYTES else _MINUTE)
        except ValueError:
            return None
        return cls(name, calendar.timegm(moment))


def duration_s(value: bytes) -> int:
    """What KEEPS may be: "0", or minutes, hours or days up to ten years. Raises
    ValueError.

    >>> duration_s(b"7d"), duration_s(b"90m"), duration_s(b"0")
    (604800, 5400, 0)
    """
    if value == b"0":
        return 0
    match = _DURATION.fullmatch(value)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= limits.TRASH_KEPT_S_MAX:
        raise ValueError(f"{value!r} is no time to keep things: 0, or 30m, 12h, 7d, up to 3650d")
    return seconds
