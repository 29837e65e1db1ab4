"""The small language of the tables: how paths, numbers, flags and data are written in a row.

path      a plain name; "" is the empty string; {bad} an address that is none; {x*255} the letter
          255 times; {f@4096} the path of f made 4,096 bytes long by leading ./
number    decimal, or with K, M, G, T (powers of 1024); max is the largest off_t
flags     names of constants joined by |, or a number; 0 is none
data      text; x*5000 a byte many times; \\0 a zero byte; parts are joined by +; "" is nothing
"""

import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterable

from tests.posix.libc import BAD_POINTER

__all__ = ["USERS", "data", "flags", "mode", "number", "path", "shown", "user"]

USERS = {"root": 0, "alice": 12001, "bob": 12002, "team": 12003, "staff": 12004, "nobody": 12999}

_CONSTANTS = {
    **{name: value for name, value in vars(os).items() if re.match(r"[A-Z]+_|[RWXF]_OK", name)},
    **{name: value for name, value in vars(fcntl).items() if name[:2] in ("F_", "LO")},
    **{name: value for name, value in vars(mmap).items() if name[:4] in ("PROT", "MAP_")},
    **{name: value for name, value in vars(stat).items() if name[:2] == "S_"},
    # What Python has no name for. Linux, every architecture that fs3 runs on.
    "O_TMPFILE": os.O_TMPFILE,
    "AT_FDCWD": -100,
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_EACCESS": 0x200,
    "AT_REMOVEDIR": 0x200,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_NO_AUTOMOUNT": 0x800,
    "AT_EMPTY_PATH": 0x1000,
    "AT_STATX_FORCE_SYNC": 0x2000,
    "AT_STATX_DONT_SYNC": 0x4000,
    "RENAME_NOREPLACE": 1,
    "RENAME_EXCHANGE": 2,
    "RENAME_WHITEOUT": 4,
    "KEEP_SIZE": 1,
    "PUNCH_HOLE": 2,
    "COLLAPSE_RANGE": 8,
    "ZERO_RANGE": 16,
    "INSERT_RANGE": 32,
    "UNSHARE_RANGE": 64,
    "XATTR_CREATE": 1,
    "XATTR_REPLACE": 2,
    "RWF_HIPRI": 1,
    "RWF_DSYNC": 2,
    "RWF_SYNC": 4,
    "RWF_NOWAIT": 8,
    "RWF_APPEND": 16,
    "RESOLVE_NO_XDEV": 1,
    "RESOLVE_NO_MAGICLINKS": 2,
    "RESOLVE_NO_SYMLINKS": 4,
    "RESOLVE_BENEATH": 8,
    "RESOLVE_IN_ROOT": 16,
    "STATX_BASIC": 0x7FF,
    "STATX_BTIME": 0x800,
    "STATX_RESERVED": 0x8000_0000,
    "F_OFD_GETLK": 36,
    "F_OFD_SETLK": 37,
    "F_OFD_SETLKW": 38,
    "FS_SYNC_FL": 0x8,
    "FS_IMMUTABLE_FL": 0x10,
    "FS_APPEND_FL": 0x20,
    "FS_NODUMP_FL": 0x40,
    "FS_NOATIME_FL": 0x80,
    "SYNC_FILE_RANGE_WAIT_BEFORE": 1,
    "SYNC_FILE_RANGE_WRITE": 2,
    "MS_ASYNC": 1,
    "MS_INVALIDATE": 2,
    "MS_SYNC": 4,
}
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_RUN_LEAST = 4  # shorter runs of a byte are shown as they are


def path(token: str) -> bytes | int:
    if token == "{bad}":
        return BAD_POINTER
    if token == '""':
        return b""
    token = re.sub(r"\{(.)\*(\d+)\}", lambda found: found[1] * int(found[2]), token)
    return os.fsencode(re.sub(r"\{(.+)@(\d+)\}", _lengthened, token))


def _lengthened(found: re.Match[str]) -> str:
    name, missing = found[1], int(found[2]) - len(found[1])
    return "./" * (missing // 2 - 1) + (".//" if missing % 2 else "./") + name


def number(token: str) -> int:
    """
    >>> number("64K"), number("-1"), number("max") == 2**63 - 1
    (65536, -1, True)
    """
    if token == "max":
        return (1 << 63) - 1
    if token[-1] in _SUFFIXES:
        return int(token[:-1]) * _SUFFIXES[token[-1]]
    return int(token, 0)


def flags(token: str) -> int:
    value = 0
    for name in token.split("|"):
        value |= _CONSTANTS[name] if name in _CONSTANTS else number(name)
    return value


def mode(token: str) -> int:
    return int(token, 8)


def user(token: str) -> int:
    """A user or group by name; -1 leaves it."""
    return USERS[token] if token in USERS else int(token)


def data(token: str) -> bytes:
    """
    >>> data("ab+x*5+\\\\0*2"), data('""')
    (b'abxxxxx\\x00\\x00', b'')
    """
    if token == '""':
        return b""
    parts = []
    for part in token.split("+"):
        letter, star, count = part.rpartition("*")
        text, times = (letter, number(count)) if star else (part, 1)
        parts.append(text.encode().replace(b"\\0", b"\0") * times)
    return b"".join(parts)


def shown(value: bytes) -> str:
    """The reverse of data().

    >>> shown(b"ab" + bytes(4096) + b"x")
    'ab+\\\\0*4096+x'
    """
    if not value:
        return '""'
    return "+".join(_runs(value))


def _runs(value: bytes) -> Iterable[str]:
    plain = b""
    for run in re.finditer(rb"(.)\1*", value, re.DOTALL):
        letter, count = run[1], len(run[0])
        if count < _RUN_LEAST:
            plain += run[0]
            continue
        if plain:
            yield _escaped(plain)
            plain = b""
        yield f"{_escaped(letter)}*{count}"
    if plain:
        yield _escaped(plain)


def _escaped(value: bytes) -> str:
    return value.replace(b"\0", b"\\0").decode(errors="backslashreplace")
