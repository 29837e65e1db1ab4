"""The cluster's capability keys, in one file that only its owner may read.

The file is JSON: {"version": 1, "keys": [{"id": 2, "secret": "<64 hex digits>"}, ...]}, newest
first. The first key mints; the first two verify, so a rotation spoils no token that is in use as
long as rotations are further apart than a token lives.
"""

import errno
import json
import os
import pathlib
import stat
import struct
from dataclasses import dataclass, field
from typing import Final, Self

from fs3.errors import BadRequest, Denied, Status
from fs3.runtime.entropy import Entropy, SystemEntropy

__all__ = ["KEYS_KEPT", "SECRET_BYTES", "Key", "Keyring"]

SECRET_BYTES: Final = 32
KEYS_KEPT: Final = 2  # current and previous
_FILE_BYTES_MAX: Final = 64 * 1024
_FILE_VERSION: Final = 1


@dataclass(frozen=True)
class Key:
    """`id` is a 16-bit number, never reused soon; `secret` has 32 bytes and stays out of repr."""

    id: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.id < 1 << 16:
            raise _bad(f"id: {self.id} is no 16-bit number")
        if len(self.secret) != SECRET_BYTES:
            raise _bad(f"secret: of key {self.id} must have {SECRET_BYTES} bytes")


@dataclass(frozen=True)
class Keyring:
    """`keys` newest first, at least one, ids distinct."""

    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise _bad("keys: the keyring has none")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise _bad("keys: an id occurs twice")

    @classmethod
    def create(cls, path: pathlib.Path, entropy: Entropy | None = None) -> Self:
        """Makes a new file with one key. Raises FileExistsError when there is one: its keys may be
        in use."""
        ring = cls((_new_key(1, entropy),))
        if path.exists():
            raise FileExistsError(errno.EEXIST, "a keyring is there; rotate it instead", str(path))
        ring._store(path)
        return ring

    @classmethod
    def load(cls, path: pathlib.Path) -> Self:
        """Raises Denied when others may read the file, BadRequest when it is no keyring."""
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                detail = f"{path} may be read or written by others; run: chmod 600 {path}"
                raise Denied(errno.EACCES, "auth/keyring", detail)
            text = file.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise _bad(f"{path}: larger than {_FILE_BYTES_MAX} bytes")
        pairs = _parse(text, path)
        try:
            return cls(tuple(Key(key_id, secret) for key_id, secret in pairs))
        except BadRequest as error:
            raise _bad(f"{path}: {error.detail}") from None

    def rotate(self, path: pathlib.Path, entropy: Entropy | None = None) -> "Keyring":
        """A new current key; the old current one still verifies, the one before it no more. Writes
        `path` and returns the new ring."""
        fresh = _new_key((self.keys[0].id + 1) % (1 << 16), entropy)
        ring = Keyring((fresh, *self.keys[: KEYS_KEPT - 1]))
        ring._store(path)
        return ring

    def find(self, key_id: int) -> Key | None:
        """A key that may verify."""
        return next((key for key in self.keys[:KEYS_KEPT] if key.id == key_id), None)

    def pairs(self) -> list[tuple[int, bytes]]:
        """(id, secret), newest first: what native constructors take."""
        return [(key.id, key.secret) for key in self.keys]

    def serialize(self) -> bytes:
        """Entries of 34 bytes (proto/CAPABILITY.md): what native parsers take."""
        return b"".join(struct.pack("<H", key.id) + key.secret for key in self.keys)

    def _store(self, path: pathlib.Path) -> None:
        """Replaces the file as a whole: a crash leaves the old one or the new one."""
        document = {
            "version": _FILE_VERSION,
            "keys": [{"id": key.id, "secret": key.secret.hex()} for key in self.keys],
        }
        temporary = path.with_name(path.name + ".new")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)


def _new_key(key_id: int, entropy: Entropy | None) -> Key:
    return Key(key_id, (entropy or SystemEntropy()).token(SECRET_BYTES))


def _sync_directory(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _parse(text: bytes, path: pathlib.Path) -> list[tuple[int, bytes]]:
    # The text of the file never goes into an error: it is secret.
    try:
        document = json.loads(text)
        version = document["version"]
        entries = [(entry["id"], entry["secret"]) for entry in document["keys"]]
        pairs = [(int(key_id), bytes.fromhex(secret)) for key_id, secret in entries]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _bad(f"{path}: is no keyring of this version") from None
    if version != _FILE_VERSION:
        raise _bad(f"{path}: has version {version!r}, this program reads {_FILE_VERSION}")
    return pairs


def _bad(detail: str) -> BadRequest:
    return BadRequest(Status.BAD_REQUEST, "auth/keyring", detail)
