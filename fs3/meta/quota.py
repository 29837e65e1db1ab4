"""Quotas: what files and bytes count for, how much there is, how much there may be. Keys: QUSE,
QUOT (fs3/kv/keys.py).

Two kinds of account. A *user* account counts the inodes that a uid owns. A *tree* account counts
those below a directory for which somebody asked (ops/set_quota.py); it has the number of that
directory, and each inode says in `quota` whose it is, as XFS says by project ids: a new inode
inherits it, and no name crosses the border of a tree (rename and link say EXDEV, so mv copies).

Counted is an inode from the transaction that makes it to the one that deletes it, after its chunks:
what waits in the gc queue still takes space. Bytes are those that storage holds of a file as far
as the service knows: the settled length, holes not counted.

Every change of an inode changes its accounts in the same transaction (inode.store), by differences.
An account is the sum of rows, one per process that writes the store (Transaction.writer): on a
distributed store two services that create files for one user do not meet in one row.

Limits are enforced when something is created, given away (chown), or allocated (fallocate). A
truncate that makes a file longer makes a hole, which counts nothing. A settlement is never refused:
the bytes are on their chains and were acknowledged. So an account may go beyond its limit by

- what its clients wrote since they last settled: a client whose file is under a limit settles
  whenever it has written GROWTH_UNSETTLED_MAX to it (native/client/writer.cc), and once the service
  said that the account is full it refuses to make the file longer, or to write to one with holes
  (it does not know what is below the bytes);
- what other services admit during one transaction of this one.
"""

import errno
import struct
from collections.abc import Iterator, Set
from typing import NamedTuple

from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta.faults import refuse

USER, TREE = 1, 2  # meta.QuotaKind
SCHEMA = 1
_USAGE = struct.Struct("<Bqq")
_LIMIT = struct.Struct("<BBQQ")
UNLIMITED = 0


class Account(NamedTuple):
    kind: int
    id: int  # a uid, or the inode of a directory


# Accounts that have a limit, as a service remembers them: most have none, and asking the store for
# each would cost a round trip there. At most a second old, and that long another service's new
# limit does not bind.
Limited = Set[Account]


class Usage(NamedTuple):
    bytes: int = 0
    inodes: int = 0

    def __add__(self, other: tuple[object, ...]) -> "Usage":
        assert isinstance(other, Usage)
        return Usage(self.bytes + other.bytes, self.inodes + other.inodes)

    def minus(self, other: "Usage") -> "Usage":
        return Usage(self.bytes - other.bytes, self.inodes - other.inodes)


class Limit(NamedTuple):
    """0: no limit of that."""

    bytes: int = UNLIMITED
    inodes: int = UNLIMITED
    counting: bool = False  # a tree whose content does not all count for it yet; not enforced


class Charge(NamedTuple):
    """What one inode counts, and for whom."""

    uid: int
    tree: int  # 0: none
    bytes: int

    def accounts(self) -> list[Account]:
        mine = [Account(USER, self.uid)]
        return [*mine, Account(TREE, self.tree)] if self.tree else mine


def encode_usage(used: Usage) -> bytes:
    return _USAGE.pack(SCHEMA, *used)


def encode_limit(limit: Limit) -> bytes:
    return _LIMIT.pack(SCHEMA, limit.counting, limit.bytes, limit.inodes)


def decode_usage(key: bytes, record: bytes) -> Usage:
    if len(record) != _USAGE.size or record[0] != SCHEMA:
        raise _damaged(key, record)
    return Usage(*_USAGE.unpack(record)[1:])


def decode_limit(key: bytes, record: bytes) -> Limit:
    if len(record) != _LIMIT.size or record[0] != SCHEMA or record[1] > 1:
        raise _damaged(key, record)
    _, counting, most_bytes, most_inodes = _LIMIT.unpack(record)
    return Limit(most_bytes, most_inodes, bool(counting))


def _damaged(key: bytes, record: bytes) -> Damaged:
    return Damaged(
        Status.CHECKSUM_MISMATCH,
        f"meta/quota {key.hex()}",
        f"record {record[:24].hex()} does not decode; run fs3 check --repair",
    )


# -- accounts --------------------------------------------------------------------------------------


def move(txn: Transaction, before: Charge | None, after: Charge | None) -> None:
    """An inode counts as `after` instead of `before`; None: it is not there."""
    if before == after:
        return
    changes: dict[Account, Usage] = {}
    for charge, sign in ((before, -1), (after, 1)):
        if charge is not None:
            for account in charge.accounts():
                change = Usage(sign * charge.bytes, sign)
                changes[account] = changes.get(account, Usage()) + change
    for account, change in changes.items():
        if change != Usage():
            add(txn, account, change)


def add(txn: Transaction, account: Account, change: Usage) -> None:
    """To the part of this process."""
    key = keys.usage(*account, txn.writer)
    record = txn.get(key)
    usage = change if record is None else decode_usage(key, record) + change
    if usage == Usage():
        txn.clear(key)
    else:
        txn.set(key, encode_usage(usage))


def usage(txn: Transaction, account: Account) -> Usage:
    """As of this transaction; what other processes add meanwhile is no conflict."""
    total = Usage()
    for key, record in txn.get_range(*keys.usages(*account), snapshot=True):
        total += decode_usage(key, record)
    return total


# -- limits ----------------------------------------------------------------------------------------


def find_limit(txn: Transaction, account: Account) -> Limit | None:
    key = keys.quota(*account)
    record = txn.get(key, snapshot=True)
    return decode_limit(key, record) if record is not None else None


def store_limit(txn: Transaction, account: Account, limit: Limit | None) -> None:
    key = keys.quota(*account)
    if limit is None:
        txn.clear(key)
    else:
        txn.set(key, encode_limit(limit))


def limits(txn: Transaction) -> Iterator[tuple[Account, Limit]]:
    """All of them: as many as somebody has set."""
    begin, end = keys.QUOTA, keys.prefix_end(keys.QUOTA)
    for key, record in txn.get_range(begin, end, snapshot=True):
        yield Account(*keys.account_of(key)), decode_limit(key, record)


def require_room(
    txn: Transaction, limited: Limited, charge: Charge, more: Usage, where: str
) -> None:
    """For what is about to count `more` than it does. Refuses with EDQUOT."""
    for account in charge.accounts():
        limit = find_limit(txn, account) if account in limited else None
        if limit is None or limit.counting:
            continue
        used = usage(txn, account)
        whose = f"uid {account.id}" if account.kind == USER else f"the tree of inode {account.id}"
        for what, now, plus, most in zip(("bytes", "inodes"), used, more, limit, strict=False):
            if most and plus > 0 and now + plus > most:
                detail = f"{whose} has {now} {what} of {most}, {plus} more do not fit"
                raise refuse(errno.EDQUOT, where, f"{detail}; see: fs3 quota list")


FREE, LIMITED, FULL = 0, 1, 2  # meta.QuotaState


def state(txn: Transaction, limited: Limited, charge: Charge) -> int:
    """Whether a limit of bytes applies to a file, and is reached."""
    found = FREE
    for account in charge.accounts():
        limit = find_limit(txn, account) if account in limited else None
        if limit is None or limit.counting or not limit.bytes:
            continue
        if usage(txn, account).bytes >= limit.bytes:
            return FULL
        found = LIMITED
    return found
