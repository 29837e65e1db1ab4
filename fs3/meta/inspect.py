"""CHECK and REPAIR: what `fs3 check` asks of a running service. Only for holders of a server
capability.

CHECK gives out the whole store as of one version, page by page, while requests go on; the checking
itself is the tool's work and costs this process nothing. The store keeps the old values of what
changes meanwhile, so a snapshot is kept only as long as somebody reads it, and few at a time. One
that became too old is refused with BUSY: begin again.

REPAIR carries out one mend (repair.py) in one transaction.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from fs3._proto import meta_pb2 as pb
from fs3.auth.capability import RIGHT_SERVER, verify
from fs3.auth.keyring import Keyring
from fs3.errors import BadRequest, Damaged, Denied, Fs3Error, RetryLater, Status
from fs3.kv.api import KEY_END, Transaction
from fs3.meta.call import Answer, Call, failure
from fs3.meta.repair import Mend, NotMended, repair
from fs3.meta.store import MetaStore
from fs3.runtime.clock import Clock
from fs3.runtime.entropy import Entropy

__all__ = ["Inspector"]

log = logging.getLogger(__name__)

SNAPSHOTS_MAX = 2
IDLE_S = 30.0
PAGE_ROWS = 512
PAGE_BYTES = 1 << 20
ID_BYTES = 16


@dataclass(slots=True)
class _Snapshot:
    txn: Transaction
    used_ns: int
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _World:
    """repair.World."""

    now_ns: int
    new_inode: Callable[[], int]


class Inspector:
    """Thread-safe. answer() may wait for the store; it is called on a job thread."""

    METHODS = frozenset((pb.CHECK, pb.REPAIR))

    def __init__(
        self,
        store: MetaStore,
        keyring: Keyring,
        cluster_id: bytes,
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._cluster = cluster_id[:4]
        self._clock = clock
        self._entropy = entropy
        self._lock = threading.Lock()
        self._snapshots: dict[bytes, _Snapshot] = {}

    def answer(self, call: Call) -> Answer:
        try:
            self._authorise(call)
            if call.method == pb.CHECK:
                reply: Any = self._check(_decode(pb.CheckRequest, call.body))
            else:
                reply = self._repair(_decode(pb.RepairRequest, call.body))
        except Fs3Error as error:
            return failure(call.token, error)
        return Answer(call.token, Status.OK, "", "", reply.SerializeToString())

    def close(self) -> None:
        with self._lock:
            for snapshot in self._snapshots.values():
                snapshot.txn.cancel()
            self._snapshots.clear()

    def expire(self) -> None:
        """Forgets snapshots that nobody reads any more; about once a second."""
        before_ns = self._clock.monotonic_ns() - int(IDLE_S * 1e9)
        with self._lock:
            for name, snapshot in list(self._snapshots.items()):
                if snapshot.used_ns < before_ns:
                    self._snapshots.pop(name).txn.cancel()

    def _authorise(self, call: Call) -> None:
        token = verify(call.capability, self._keyring, wall_ms=self._clock.wall_ns() // 1_000_000)
        if not token.rights & RIGHT_SERVER or token.cluster != self._cluster:
            raise Denied(
                Status.CAPABILITY_DENIED, "meta/check", "rights: a server capability is needed"
            )
        if token.client != call.principal.instance_id:
            raise Denied(Status.CAPABILITY_DENIED, "meta/check", "client: the token is another's")

    def _check(self, request: pb.CheckRequest) -> pb.CheckReply:
        if request.close:
            with self._lock:
                closed = self._snapshots.pop(request.snapshot, None)
            if closed is not None:
                closed.txn.cancel()
            return pb.CheckReply(end=True)
        name, snapshot = self._open(request.snapshot)
        reply = pb.CheckReply(snapshot=name)
        begin = request.after + b"\0" if request.after else b""
        with snapshot.lock:
            pairs = snapshot.txn.get_range(begin, KEY_END, limit=PAGE_ROWS, snapshot=True)
        size = 0
        for key, value in pairs:
            size += len(key) + len(value)
            if reply.rows and size > PAGE_BYTES:
                return reply
            reply.rows.add(key=key, value=value)
        reply.end = len(pairs) < PAGE_ROWS
        return reply

    def _open(self, name: bytes) -> tuple[bytes, _Snapshot]:
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            if name:
                known = self._snapshots.get(name)
                if known is None:
                    detail = "snapshot: is gone; begin the check again"
                    raise BadRequest(Status.BAD_REQUEST, "meta/check", detail)
                known.used_ns = now_ns
                return name, known
            if len(self._snapshots) >= SNAPSHOTS_MAX:
                detail = f"{SNAPSHOTS_MAX} checks are running; try again when one has ended"
                raise RetryLater(Status.BUSY, "meta/check", detail)
            name = self._entropy.token(ID_BYTES)
            self._snapshots[name] = _Snapshot(self._store.kv.begin(), now_ns)
            return name, self._snapshots[name]

    def _repair(self, request: pb.RepairRequest) -> pb.RepairReply:
        mend = Mend(request.kind, request.inode, request.version, request.key, request.number)
        try:
            detail = self._store.mend(partial(self._apply, mend))
        except (NotMended, Damaged) as error:
            return pb.RepairReply(done=False, detail=str(error))
        log.warning("mended: %s", detail)
        return pb.RepairReply(done=True, detail=detail)

    def _apply(self, mend: Mend, txn: Transaction) -> str:
        env = self._store.env
        return repair(txn, mend, _World(self._store.wall_ns(), env.allocator.take))


def _decode(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise BadRequest(Status.BAD_REQUEST, "meta/check", f"body: {error}") from None
