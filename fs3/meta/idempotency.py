"""Exactly once: the reply of every mutating request, recorded in the transaction of the request.
Keys: IDEM, IGEN.

A refusal is an answer, too. It is recorded in a transaction of its own, which follows the one that
was given up and comes before the answer: an earlier attempt of the same call, which its client has
given up, may still be on its way, and would find the file that has been made since.

Rows live in generations of GENERATION_S. A lookup sees the present one and the two before, so a
reply is remembered
for 120 to 180 s, four times as long as a client repeats a call (30 s). A generation that is too
old is cleared by one range clear: cleaning costs nothing per request. Generations are counted, not
read off a clock, so a jump of the wall clock forgets nothing.

The number of the present one is in the KV (IGEN). Where several services share the store each
request reads it in its own transaction: one that began under an older generation conflicts with
the turn and runs again. Two services that run the same request at the same time (the client moved
from one to the other) meet on its row: the second to commit conflicts, and finds the reply.

Leases and capabilities are not recorded: a replay has none of the first, and gets the second
minted afresh.
"""

import struct
from typing import NamedTuple

from fs3.errors import BadRequest, Damaged, Denied, Fs3Error, Refused, Status, error_for
from fs3.kv import keys
from fs3.kv.api import Transaction

SCHEMA = 1
SCHEMA_REFUSED = 2
GENERATION_S = 60.0
GENERATIONS_SEEN = 3
DETAIL_BYTES_MAX = 1024  # of a refusal: a name, and what to do about it
_RECORD = struct.Struct("<BHIBQ16s")
_CODE = struct.Struct("<I")
_BETWEEN = b"\0"  # where and detail of a refusal


class Recorded(NamedTuple):
    method: int
    uid: int
    rights: int  # of the capability that belongs to the reply; 0 = none
    hold: int  # inode whose truncate has to be finished before the reply; 0 = none
    session: bytes
    reply: bytes  # serialized, without lease and capability; of a refusal: where and detail
    code: int = 0  # of a refusal

    @classmethod
    def refusal(cls, method: int, uid: int, error: Refused) -> "Recorded":
        text = _BETWEEN.join((error.where.encode(), error.detail.encode()[:DETAIL_BYTES_MAX]))
        return cls(method, uid, 0, 0, b"", text, error.code)

    def error(self) -> Fs3Error:
        """REQUIRES: code."""
        where, _, detail = self.reply.decode(errors="replace").partition(_BETWEEN.decode())
        return error_for(self.code, where, detail)

    def encode(self) -> bytes:
        head = _RECORD.pack(
            SCHEMA_REFUSED if self.code else SCHEMA,
            self.method,
            self.uid,
            self.rights,
            self.hold,
            self.session or keys.NO_SESSION,
        )
        return head + (_CODE.pack(self.code) if self.code else b"") + self.reply


def decode(record: bytes) -> Recorded:
    refused = record[:1] == bytes([SCHEMA_REFUSED])
    size = _RECORD.size + (_CODE.size if refused else 0)
    code = _CODE.unpack_from(record, _RECORD.size)[0] if refused and len(record) >= size else 0
    if len(record) < size or record[0] not in (SCHEMA, SCHEMA_REFUSED) or refused != (code != 0):
        raise Damaged(
            Status.CHECKSUM_MISMATCH,
            "meta/idempotency",
            f"record {record[:16].hex()} does not decode; stop the service and run fsck",
        )
    _, method, uid, rights, hold, session = _RECORD.unpack_from(record)
    session = b"" if session == keys.NO_SESSION else session
    return Recorded(method, uid, rights, hold, session, record[size:], code)


class Idempotency:
    """The rows and their generations. `shared`: other services may turn them, too."""

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._known = 0  # the present generation, when nobody else turns it; 0: not read yet

    @staticmethod
    def begin(txn: Transaction) -> None:
        """A store without IGEN gets one: that of its newest row, or the first."""
        if txn.get(keys.GENERATION) is None:
            begin, end = keys.IDEMPOTENCY, keys.prefix_end(keys.IDEMPOTENCY)
            newest = txn.get_range(begin, end, limit=1, reverse=True)
            txn.set(keys.GENERATION, newest[0][0][4:8] if newest else (1).to_bytes(4, "big"))

    def present(self, txn: Transaction) -> int:
        if self._known and not self._shared:
            return self._known
        record = txn.get(keys.GENERATION)
        if record is None or len(record) != 4:
            raise Damaged(
                Status.CHECKSUM_MISMATCH,
                "meta/idempotency",
                f"the generation {record!r} does not decode; stop the service and run fsck",
            )
        self._known = int.from_bytes(record, "big")
        return self._known

    def find(
        self, txn: Transaction, client: bytes, request_id: int, *, method: int, uid: int
    ) -> Recorded | None:
        """What was answered to this request before. The same id for another method or user is
        refused: it would hand somebody else's reply out."""
        newest = self.present(txn)
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
        txn.set(keys.idempotency(self.present(txn), client, request_id), recorded.encode())

    def look(self, txn: Transaction, _seen: int) -> int:
        """The present generation, for a service that has just started."""
        return int.from_bytes(txn.get(keys.GENERATION) or b"", "big")

    def turn(self, txn: Transaction, seen: int) -> int:
        """The next generation begins, unless it has already: `seen` was the present one for
        GENERATION_S. What no lookup sees any more is cleared. Returns the present one, for
        turned() after the commit."""
        present = self.look(txn, seen)
        if present != seen:
            return present
        present += 1
        txn.set(keys.GENERATION, present.to_bytes(4, "big"))
        oldest_seen = max(present - GENERATIONS_SEEN + 1, 0)
        txn.clear_range(keys.idempotency_generation(0), keys.idempotency_generation(oldest_seen))
        return present

    def turned(self, present: int) -> None:
        self._known = present
