"""What a transaction changes that clients may have cached: taken from the keys that it writes, so
that no operation can forget to say so."""

from functools import partial

from fs3.kv import keys
from fs3.kv.api import CommitVersion, Transaction
from fs3.meta import inode as inodes
from fs3.meta.leases import Changes

__all__ = ["Recording"]

_KEY_INODE = len(keys.inode(0))


class Recording:
    """A Transaction (kv/api.py) that remembers which inodes and names were written."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self._records: dict[int, bytes | None] = {}
        self._names: set[tuple[int, bytes]] = set()
        self.get = txn.get
        self.get_range = txn.get_range
        self.add_read_conflict_range = txn.add_read_conflict_range
        self.add_write_conflict_range = txn.add_write_conflict_range

    @property
    def writer(self) -> int:
        return self._txn.writer

    def changes(self) -> Changes:
        versions = {
            number: partial(_data_version, number, record)
            for number, record in self._records.items()
        }
        return Changes(versions, self._names)

    def set(self, key: bytes, value: bytes) -> None:
        self._note(key, value)
        self._txn.set(key, value)

    def clear(self, key: bytes) -> None:
        self._note(key, None)
        self._txn.clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for prefix in (keys.INODE, keys.DENTRY):
            if begin < keys.prefix_end(prefix) and prefix < end:
                for key, _ in self._txn.get_range(begin, end):
                    self._note(key, None)
        self._txn.clear_range(begin, end)

    def commit(self) -> CommitVersion:
        return self._txn.commit()

    def cancel(self) -> None:
        self._txn.cancel()

    def _note(self, key: bytes, value: bytes | None) -> None:
        prefix = key[:4]
        if prefix == keys.INODE and len(key) == _KEY_INODE:
            self._records[keys.inode_of(key)] = value
        elif prefix == keys.DENTRY:
            parent, _, name = keys.dentry_fields(key)
            self._names.add((parent, name))


def _data_version(number: int, record: bytes | None) -> int:
    return inodes.decode(number, record).data_version if record is not None else 0
