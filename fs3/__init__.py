"""fs3: a distributed file system for training clusters.

>>> import fs3
>>> with fs3.Client("fs3-data") as client:  # doctest: +SKIP
...     client.read_bytes("/hello")
b'world'
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs3.client import AsyncClient, AsyncFile, Client, DirEntry, File, Identity
    from fs3.ring import Ring

__all__ = ["AsyncClient", "AsyncFile", "Client", "DirEntry", "File", "Identity", "Ring"]


def __getattr__(name: str) -> Any:
    """Public names are loaded when they are first used: importing fs3 starts nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Ring":
        from fs3 import ring as module
    else:
        from fs3 import client as module  # type: ignore[no-redef]

    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
