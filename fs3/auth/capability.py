"""The capability token of proto/CAPABILITY.md: mint, decode, verify.

The storage service verifies natively (native/auth/capability.cc); both read the golden tokens of
proto/vectors/capability.json.
"""

import hmac
import struct
from dataclasses import dataclass
from typing import Final

from fs3 import limits
from fs3.auth.keyring import Keyring
from fs3.errors import Denied, Status
from fs3.runtime.clock import Clock

__all__ = [
    "RIGHT_READ",
    "RIGHT_SERVER",
    "RIGHT_TRUNCATE",
    "RIGHT_WRITE",
    "TOKEN_BYTES",
    "Capability",
    "Minter",
    "decode",
    "mint",
    "verify",
]

RIGHT_READ: Final = 1
RIGHT_WRITE: Final = 2
RIGHT_TRUNCATE: Final = 4
RIGHT_SERVER: Final = 128  # storage-internal and gc messages; with inode 0: any inode

TOKEN_BYTES: Final = 80
EXPIRY_SLACK_MS: Final = 30_000  # clocks of two machines differ

_VERSION: Final = 1
_SIGNED_BYTES: Final = 64
_TAG_BYTES: Final = 16
_SIGNED: Final = struct.Struct("<BBH4sQ16sQQ16s")
assert _SIGNED.size == _SIGNED_BYTES


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What a token says. `cluster` has 4 bytes, `client` and `session` have 16."""

    rights: int
    cluster: bytes
    inode: int
    client: bytes
    issued_ms: int
    expiry_ms: int
    session: bytes = bytes(16)
    key_id: int = 0  # set by mint


def mint(capability: Capability, keyring: Keyring) -> bytes:
    """80 bytes, signed with the keyring's current key."""
    key = keyring.keys[0]
    signed = _SIGNED.pack(
        _VERSION,
        capability.rights,
        key.id,
        _exactly(capability.cluster, 4),
        capability.inode,
        _exactly(capability.client, 16),
        capability.issued_ms,
        capability.expiry_ms,
        _exactly(capability.session, 16),
    )
    return signed + _tag(signed, key.secret)


def decode(token: bytes, keyring: Keyring) -> Capability:
    """Raises Denied unless length, version, key and tag hold. Says nothing about the expiry."""
    if len(token) != TOKEN_BYTES:
        raise _denied(f"length: is {len(token)}, must be {TOKEN_BYTES}")
    signed, tag = token[:_SIGNED_BYTES], token[_SIGNED_BYTES:]
    version, rights, key_id, cluster, inode, client, issued_ms, expiry_ms, session = _SIGNED.unpack(
        signed
    )
    if version != _VERSION:
        raise _denied(f"version: is {version}")
    key = keyring.find(key_id)
    if key is None:
        raise _denied(f"key id: {key_id} is neither the current nor the previous key")
    if not hmac.compare_digest(tag, _tag(signed, key.secret)):
        raise _denied("tag: does not fit the token")
    return Capability(
        rights=rights,
        cluster=cluster,
        inode=inode,
        client=client,
        issued_ms=issued_ms,
        expiry_ms=expiry_ms,
        session=session,
        key_id=key_id,
    )


def verify(token: bytes, keyring: Keyring, *, wall_ms: int) -> Capability:
    """As decode, and not expired at `wall_ms` (ms since the epoch, with 30 s of slack)."""
    capability = decode(token, keyring)
    late_ms = wall_ms - capability.expiry_ms
    if late_ms > EXPIRY_SLACK_MS:
        raise _denied(f"expiry: {late_ms // 1000} s ago; open or sync the file again")
    return capability


class Minter:
    """Tokens of one cluster, issued now."""

    def __init__(
        self,
        keyring: Keyring,
        cluster_id: bytes,
        clock: Clock,
        *,
        lifetime_s: int = limits.CAPABILITY_LIFETIME_S,
    ) -> None:
        self._keyring = keyring
        self._cluster = _exactly(cluster_id, 16)[:4]
        self._clock = clock
        self._lifetime_ms = lifetime_s * 1000

    def replace_keyring(self, keyring: Keyring) -> None:
        """After a rotation: tokens minted from now on carry the new key."""
        self._keyring = keyring

    def mint(self, *, rights: int, inode: int, client: bytes, session: bytes = b"") -> bytes:
        """80 bytes. `client` has 16 bytes; `session` 16, or none for a read-only open."""
        now_ms = self._clock.wall_ns() // 1_000_000
        capability = Capability(
            rights=rights,
            cluster=self._cluster,
            inode=inode,
            client=client,
            issued_ms=now_ms,
            expiry_ms=now_ms + self._lifetime_ms,
            session=session or bytes(16),
        )
        return mint(capability, self._keyring)


def _tag(signed: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, signed, "sha256")[:_TAG_BYTES]


def _exactly(value: bytes, length_bytes: int) -> bytes:
    if len(value) != length_bytes:
        raise ValueError(f"must have {length_bytes} bytes, has {len(value)}")
    return value


def _denied(detail: str) -> Denied:
    return Denied(Status.CAPABILITY_DENIED, "auth/capability", detail)
