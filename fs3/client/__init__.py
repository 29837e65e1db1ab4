"""What applications import: the file system without a mount, blocking or in an event loop.

    client.py aio.py      the two faces: Client and File, AsyncClient and AsyncFile
    operations.py         the name space, written once: generators of calls
    calls.py drivers.py   what a call is; who runs an operation
    attributes.py paths.py modes.py moments.py identity.py discover.py batch.py

One `client.rename(a, b)`: Client.rename makes the generator Operations.rename; drivers.run sends it
from call to call (RESOLVE of both directories, RENAME); each call waits in the native client
(native/client/meta.cc: server, fail-over, request id) without the GIL; an Fs3Error becomes the
OSError with both paths (paths.naming).

Importing this package loads neither the extension nor the messages; using a name does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs3.client.aio import AsyncClient, AsyncFile
    from fs3.client.attributes import DirEntry
    from fs3.client.client import Client
    from fs3.client.file import File
    from fs3.client.identity import Identity

__all__ = ["AsyncClient", "AsyncFile", "Client", "DirEntry", "File", "Identity"]

_HOMES = {
    "AsyncClient": "aio",
    "AsyncFile": "aio",
    "Client": "client",
    "DirEntry": "attributes",
    "File": "file",
    "Identity": "identity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
