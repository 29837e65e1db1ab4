"""Exactly once: the reply of every mutating request, recorded in the transaction of the request.
Key: IDEM.

Rows live in generations of GENERATION_S. A lookup sees the present one and the two before, so a
reply is remembered
for 120 to 180 s, four times as long as a client repeats a call (30 s). A generation that is too
old is cleared by one range clear: cleaning costs nothing per request. Generations are counted, not
read off a clock, so a jump of the wall clock forgets nothing; a restart goes on with the newest
one that has rows.

Leases and capabilities are not recorded: a replay has none of the first, and gets the second
minted afresh.
"""

import struct
from typing import NamedTuple

from fs3.errors import BadRequest, Damaged, Denied, Status
from fs3.kv import keys
from fs3.kv.api import Transaction

SCHEMA = 1
GENERATION_S = 60.0
GENERATIONS_SEEN = 3
_RECORD = struct.Struct("<BHIBQ16s")


class Recorded(NamedTuple):
    method: int
    uid: int
    rights: int  # of the capability that belongs to the reply; 0 = none
    hold: int  # inode whose truncate has to be finished before the reply; 0 = none
    session: bytes
    reply: bytes  # serialized, without lease and capability

    def encode(self) -> bytes:
        head = _RECORD.pack(
            SCHEMA, self.method, self.uid, self.rights, self.hold, self.session or keys.NO_SESSION
        )
        return head + self.reply


def decode(record: bytes) -> Recorded:
    if len(record) < _RECORD.size or record[0] != SCHEMA:
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            "meta/idempotency",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, method, uid, rights, hold, session = _RECORD.unpack_from(record)
    session = b"" if session == keys.NO_SESSION else session
    return Recorded(method, uid, rights, hold, session, record[_RECORD.size :])


class Idempotency:
    """The rows and their generations. `turn()` is called every GENERATION_S."""

    def __init__(self, generation: int = 1) -> None:
        self.generation = generation

    @classmethod
    def resume(cls, txn: Transaction) -> "Idempotency":
        begin, end = keys.IDEMPOTENCY, keys.prefix_end(keys.IDEMPOTENCY)
        newest = txn.get_range(begin, end, limit=1, reverse=True, snapshot=True)
        return cls(int.from_bytes(newest[0][0][4:8], "big") if newest else 1)

    def find(
        self, txn: Transaction, client: bytes, request_id: int, *, method: int, uid: int
    ) -> Recorded | None:
        """What was answered to this request before. The same id for another method or user is
        refused: it would hand somebody else's reply out."""
        newest = self.generation
        for generation in range(newest, max(newest - GENERATIONS_SEEN, 0), -1):
            record = txn.get(keys.idempotency(generation, client, request_id))
            if record is not None:
                found = decode(record)
                if found.method != method:
                    detail = f"request_id: {request_id} was used for method {found.method:#x}"
                    raise BadRequest(Status.BAD_REQUEST, "meta/idempotency", detail)
                if found.uid != uid:
                    detail = f"request {request_id} of this client belongs to another user"
                    raise Denied(Status.CAPABILITY_DENIED, "meta/idempotency", detail)
                return found
        return None

    def record(self, txn: Transaction, client: bytes, request_id: int, recorded: Recorded) -> None:
        txn.set(keys.idempotency(self.generation, client, request_id), recorded.encode())

    def turn(self, txn: Transaction) -> None:
        """The next generation begins; what no lookup sees any more is cleared."""
        self.generation += 1
        oldest_seen = max(self.generation - GENERATIONS_SEEN + 1, 0)
        txn.clear_range(keys.idempotency_generation(0), keys.idempotency_generation(oldest_seen))
