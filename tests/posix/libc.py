"""System calls by their C names, so that arguments reach the kernel as they are: bad pointers,
unknown flags, descriptors that are none."""

import ctypes
import os
import struct

__all__ = ["BAD_POINTER", "call", "statx"]

BAD_POINTER = 8  # an address that nothing is mapped at

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBERS = {"openat2": 437, "faccessat2": 439, "fchmodat2": 452}  # no wrappers; the same everywhere
# What does not return an int but a number of bytes or an address.
_LONG = {"syscall", "read", "write", "pread", "pwrite", "readv", "writev", "lseek", "mmap"}
_LONG |= {"readlink", "readlinkat", "copy_file_range", "sendfile", "getdents64"}
_LONG |= {f"{prefix}{verb}xattr" for prefix in ("", "l", "f") for verb in ("get", "list")}
_STATX_BYTES = 256


def call(name: str, *arguments: object) -> int:
    """The result; raises OSError. Arguments: int, bytes (a C string or a buffer), None, ctypes."""
    if name in _NUMBERS:
        arguments = (_NUMBERS[name], *arguments)
        name = "syscall"
    function = getattr(_libc, name)
    function.restype = ctypes.c_long if name in _LONG else ctypes.c_int
    converted = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(function(*converted))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def statx(directory: int, path: bytes | int, flags: int, mask: int) -> dict[str, int]:
    """The fields of statx(2) that tests look at."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    call("statx", directory, path, flags, mask, buffer)
    raw = buffer.raw
    known, blksize, attributes, nlink, uid, gid, mode = struct.unpack_from("<IIQIIIH", raw, 0)
    ino, size, blocks, attributes_mask = struct.unpack_from("<QQQQ", raw, 32)
    btime_s, btime_ns = struct.unpack_from("<qI", raw, 80)
    return {
        "mask": known,
        "blksize": blksize,
        "attributes": attributes,
        "attributes_mask": attributes_mask,
        "nlink": nlink,
        "uid": uid,
        "gid": gid,
        "mode": mode,
        "ino": ino,
        "size": size,
        "blocks": blocks,
        "btime_ns": btime_s * 10**9 + btime_ns,
    }
