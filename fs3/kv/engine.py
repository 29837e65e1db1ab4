"""Which engine a daemon's store has: by its address, or the embedded one without."""

from fs3.errors import BadRequest, Status
from fs3.kv.api import KeyValueStore

__all__ = ["open_engine"]

_POSTGRES = ("postgres://", "postgresql://")


def open_engine(kv: str, directory: str, *, owner: str) -> KeyValueStore:
    """`kv`: postgres://..., or empty for RocksDB in `directory`. Engines are imported when they are
    chosen. Raises what the engine raises when it cannot be opened."""
    if not kv:
        from fs3.kv.rocksdb import RocksStore

        return RocksStore(directory, owner=owner)
    if kv.startswith(_POSTGRES):
        from fs3.kv.postgres import PostgresStore

        return PostgresStore(kv, owner=owner)
    scheme = kv.partition("://")[0]
    detail = f"kv: no engine is called {scheme!r}; give postgres://.. or leave it out for RocksDB"
    raise BadRequest(Status.BAD_REQUEST, "kv", detail)
