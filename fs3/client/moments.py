"""Times of files, as utime takes them."""

from typing import Literal

__all__ = ["Moment", "Moments", "moments_of"]

Moment = int | Literal["now"] | None  # ns since the epoch; the service's clock; as it is
Moments = tuple[Moment, Moment]  # atime, mtime


def moments_of(times: tuple[float, float] | None, ns: Moments | None) -> Moments:
    """From the two ways to say it; neither: both now.

    >>> moments_of((1.5, 2), None)
    (1500000000, 2000000000)
    """
    if times is not None and ns is not None:
        raise ValueError("utime: give either times or ns, not both")
    if times is not None:
        return int(times[0] * 1e9), int(times[1] * 1e9)
    return ns if ns is not None else ("now", "now")
