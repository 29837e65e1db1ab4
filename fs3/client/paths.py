"""Paths of the public API: str, bytes or PathLike; absolute, or relative to the root."""

import contextlib
import errno
import os
from collections.abc import Iterator

from fs3.errors import Fs3Error

__all__ = ["Path", "decode", "encode", "naming", "split"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def encode(path: Path) -> bytes:
    """As the metadata service takes it. Raises FileNotFoundError for the empty path, ValueError for
    a NUL inside."""
    raw = os.fsencode(path)
    if not raw:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return raw if raw.startswith(b"/") else b"/" + raw


def decode(name: bytes) -> str:
    return os.fsdecode(name)


def split(path: Path) -> tuple[bytes, bytes]:
    """(directory, name) of an entry that is to be made, moved or removed.

    >>> split("a/b/c/")
    (b'/a/b', b'c')
    """
    raw = encode(path).rstrip(b"/")
    directory, _, name = raw.rpartition(b"/")
    if not name:
        raise OSError(errno.EBUSY, "the root directory cannot be made, moved or removed", path)
    if name in (b".", b".."):
        raise OSError(errno.EINVAL, "the last component must be a name", path)
    return directory or b"/", name


@contextlib.contextmanager
def naming(path: Path, other: Path | None = None) -> Iterator[None]:
    """Turns an Fs3Error into the OSError that os would raise: FileNotFoundError, PermissionError,
    ..., with the path (or both). The Fs3Error, with the wire status, is its cause."""
    try:
        yield
    except Fs3Error as error:
        number = error.errno or errno.EIO
        text = os.strerror(number)
        if error.detail:
            text += f" [{error.where}: {error.detail}]"
        if other is not None:
            raise OSError(number, text, path, None, other) from error
        raise OSError(number, text, path) from error
