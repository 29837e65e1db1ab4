"""Every exception of fs3, cut by what the caller does about it.

    OSError
    └── Fs3Error                 errno, code (fs3.StatusCode), where, detail
        ├── Refused              give up: the request is wrong or not allowed (ENOENT, EACCES, ..)
        │   ├── BadRequest       a field is out of range; detail names it
        │   └── Denied           capability or role does not allow it
        ├── RetryElsewhere       refresh routing or take another server; same request id
        ├── RetryLater           same server, same request id, after a pause
        │   └── Conflict         the transaction met another one (KV)
        ├── OutcomeUnknown       deadline or connection lost: retry with the same request id
        └── Damaged              bytes do not fit their checksum, a record does not decode

Codes below 4096 are errno values; the rest are the conditions of proto/common.proto.
"""

import errno as _errno
import os

__all__ = [
    "BadRequest",
    "Conflict",
    "Damaged",
    "Denied",
    "Fs3Error",
    "OutcomeUnknown",
    "Refused",
    "RetryElsewhere",
    "RetryLater",
    "Status",
    "error_for",
]


class Status:
    """The codes of fs3.StatusCode (proto/common.proto); a test compares them."""

    OK = 0
    CHAIN_VERSION_MISMATCH = 4096
    NOT_SERVING = 4097
    NOT_HEAD = 4098
    LEASE_EXPIRED = 4099
    UNKNOWN_TARGET = 4100
    BUSY = 4112
    TIMED_OUT = 4113
    CONNECTION_LOST = 4114
    SHUTTING_DOWN = 4115
    MISSING_BASE = 4128
    STALE_UPDATE = 4129
    BAD_REQUEST = 4144
    UNKNOWN_METHOD = 4145
    CAPABILITY_DENIED = 4146
    DUPLICATE_OLD = 4147
    CHECKSUM_MISMATCH = 4148
    WRONG_CLUSTER = 4149
    DAMAGED = 4150


class Fs3Error(OSError):
    """Base of all. `code` is the wire status, `where` the place, `detail` what, why and what
    next."""

    def __init__(self, code: int, where: str = "", detail: str = "") -> None:
        number = code if 0 < code < 4096 else _PROTOCOL_ERRNO.get(code, _errno.EIO)
        super().__init__(number, f"{where}: {detail}" if detail else (where or os.strerror(number)))
        self.code = code
        self.where = where
        self.detail = detail


class Refused(Fs3Error): ...


class BadRequest(Refused): ...


class Denied(Refused): ...


class RetryElsewhere(Fs3Error): ...


class RetryLater(Fs3Error): ...


class Conflict(RetryLater): ...


class OutcomeUnknown(Fs3Error): ...


class Damaged(Fs3Error): ...


_PROTOCOL_ERRNO = {
    Status.CHAIN_VERSION_MISMATCH: _errno.EAGAIN,
    Status.NOT_SERVING: _errno.EAGAIN,
    Status.NOT_HEAD: _errno.EAGAIN,
    Status.LEASE_EXPIRED: _errno.EAGAIN,
    Status.UNKNOWN_TARGET: _errno.EAGAIN,
    Status.BUSY: _errno.EAGAIN,
    Status.TIMED_OUT: _errno.ETIMEDOUT,
    Status.CONNECTION_LOST: _errno.ECONNRESET,
    Status.SHUTTING_DOWN: _errno.ESHUTDOWN,
    Status.MISSING_BASE: _errno.EIO,
    Status.STALE_UPDATE: _errno.EIO,
    Status.BAD_REQUEST: _errno.EINVAL,
    Status.UNKNOWN_METHOD: _errno.ENOSYS,
    Status.CAPABILITY_DENIED: _errno.EACCES,
    Status.DUPLICATE_OLD: _errno.EIO,
    Status.CHECKSUM_MISMATCH: _errno.EIO,
    Status.WRONG_CLUSTER: _errno.EACCES,
    Status.DAMAGED: _errno.EIO,
}

_PROTOCOL_CLASS: dict[int, type[Fs3Error]] = {
    Status.CHAIN_VERSION_MISMATCH: RetryElsewhere,
    Status.NOT_SERVING: RetryElsewhere,
    Status.NOT_HEAD: RetryElsewhere,
    Status.LEASE_EXPIRED: RetryElsewhere,
    Status.UNKNOWN_TARGET: RetryElsewhere,
    Status.BUSY: RetryLater,
    Status.TIMED_OUT: OutcomeUnknown,
    Status.CONNECTION_LOST: OutcomeUnknown,
    Status.SHUTTING_DOWN: RetryElsewhere,
    Status.MISSING_BASE: Damaged,
    Status.STALE_UPDATE: Damaged,
    Status.BAD_REQUEST: BadRequest,
    Status.UNKNOWN_METHOD: BadRequest,
    Status.CAPABILITY_DENIED: Denied,
    Status.DUPLICATE_OLD: Refused,
    Status.CHECKSUM_MISMATCH: Damaged,
    Status.WRONG_CLUSTER: Denied,
    Status.DAMAGED: Damaged,
}


def error_for(code: int, where: str = "", detail: str = "") -> Fs3Error:
    """The exception for a wire status.

    >>> error_for(2, "meta/lookup", "no entry b'x' in inode 1").errno
    2
    """
    return _PROTOCOL_CLASS.get(code, Refused)(code, where, detail)
