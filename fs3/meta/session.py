"""Write sessions: who has a file open for writing. Keys: SESS and its index SCLI (fs3/kv/keys.py).

A session is born by an open for write in the transaction of the open, and ends by close, or by the
pruning of a client that was silent for too long. Readers have none. `truncate_epoch` is the
inode's when the session was opened or last settled: as long as they are equal, what the client
says about its writes can be believed; when the inode's is newer, a truncate came between, and
nobody but storage knows whether the bytes were written before or after it.
"""

import struct
from dataclasses import dataclass

from fs3 import limits
from fs3.errors import Damaged, Status
from fs3.kv import keys
from fs3.kv.api import Transaction

SCHEMA = 1
_RECORD = struct.Struct("<BB16sqIII")


@dataclass(slots=True)
class Session:
    inode: int
    id: bytes  # 16 bytes
    client: bytes  # 16 bytes
    rights: int  # of the capability (proto/CAPABILITY.md)
    opened_ns: int
    truncate_epoch: int
    uid: int  # who opened: closes come under the name of the client process
    gid: int

    def encode(self) -> bytes:
        return _RECORD.pack(
            SCHEMA,
            self.rights,
            self.client,
            self.opened_ns,
            self.truncate_epoch,
            self.uid,
            self.gid,
        )


def decode(inode: int, session_id: bytes, record: bytes) -> Session:
    if len(record) != _RECORD.size or record[0] != SCHEMA or len(session_id) != 16:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            f"meta/session {session_id.hex()} of inode {inode}",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, rights, client, opened_ns, epoch, uid, gid = _RECORD.unpack(record)
    return Session(inode, session_id, client, rights, opened_ns, epoch, uid, gid)


def find(txn: Transaction, inode: int, session_id: bytes) -> Session | None:
    if len(session_id) != 16:
        return None
    record = txn.get(keys.session(inode, session_id))
    return decode(inode, session_id, record) if record is not None else None


def store(txn: Transaction, session: Session) -> None:
    txn.set(keys.session(session.inode, session.id), session.encode())


def create(txn: Transaction, session: Session) -> None:
    store(txn, session)
    txn.set(keys.client_session(session.client, session.inode, session.id), b"")


def remove(txn: Transaction, session: Session) -> None:
    txn.clear(keys.session(session.inode, session.id))
    txn.clear(keys.client_session(session.client, session.inode, session.id))


def is_open_for_write(txn: Transaction, inode: int) -> bool:
    return bool(txn.get_range(*keys.sessions(inode), limit=1))


def count(txn: Transaction, client: bytes) -> int:
    """How many sessions the client has, as far as it matters."""
    begin, end = keys.client_sessions(client)
    return len(txn.get_range(begin, end, limit=limits.SESSIONS_PER_CLIENT_MAX, snapshot=True))


def is_held_by(txn: Transaction, inode: int, client: bytes) -> bool:
    rows = txn.get_range(*keys.sessions(inode))
    return any(decode(*keys.session_fields(key), record).client == client for key, record in rows)


def of_client(txn: Transaction, client: bytes, limit: int) -> list[tuple[int, bytes]]:
    """(inode, session id) of up to `limit` sessions."""
    pairs = txn.get_range(*keys.client_sessions(client), limit=limit)
    return [keys.client_session_fields(key)[1:] for key, _ in pairs]
