"""Reads a file by fastsafetensor-3fs-reader, a client of 3FS: safetensors_user BACKEND MOUNT FILE.
Prints what it read of the body as a digest."""

import ctypes
import hashlib
import sys

from fastsafetensor_3fs_reader._backend import create_reader

BUFFER_BYTES = 4 << 20
BEYOND_END = 1000


def main(backend: str, mount: str, path: str) -> None:
    reader = create_reader(backend, mount_point=mount, buffer_size=BUFFER_BYTES)
    [(_, header_length, size)] = reader.read_headers_batch([path]).values()
    digest = hashlib.sha256()
    # Without a GPU the Python backend copies nowhere: the memory of the ring shows what came.
    target = (ctypes.c_ubyte * BUFFER_BYTES)()
    copied = backend == "cpp"
    shown = ctypes.addressof(target) if copied else reader.iov_base
    for offset in range(header_length, size + BEYOND_END, BUFFER_BYTES):
        to = shown if copied else 0
        got = reader.read_chunked(path, to, offset, BUFFER_BYTES, 1 << 20)
        digest.update(ctypes.string_at(shown, got))
    print(digest.hexdigest())
    reader.close()


main(*sys.argv[1:])
