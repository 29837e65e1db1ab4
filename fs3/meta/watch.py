"""WATCH: how clients hear of recalls, and how answers wait until all have.

    WATCH comes        session opened, prolonged or refused; what is recalled goes back at once,
                       else the call is kept (HOLD_S at most)
    a change commits   leases.change() -> kept WATCH calls of the holders are answered, and the
                       answer of the change waits for its barrier
    barriers open      by a WATCH that acknowledges, by the end of a session -> answers go out

A request that is repeated while its first answer waits gets its recorded reply behind the same
barrier. The sessions are rows of the KV (WATC), so that the next service knows for whom to wait;
one per mount, written when it is opened. A store that several services share has none.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fs3._proto import meta_pb2
from fs3.errors import Status
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta.call import CLIENT_ID_BYTES, Answer, Call, failure
from fs3.meta.faults import bad_request
from fs3.meta.leases import HOLD_S, SESSION_S, Barrier, Changes, LeaseTable, Recall
from fs3.meta.ports import Jobs

if TYPE_CHECKING:
    from fs3.meta.store import MetaStore

__all__ = ["Watches", "former_clients"]

log = logging.getLogger(__name__)

SESSION_MS = int(SESSION_S * 1000)
Request = tuple[bytes, int]  # client, request id


class Watches:
    """REQUIRES, for everything but deliveries: the lock of the store."""

    def __init__(
        self,
        store: "MetaStore",
        leases: LeaseTable,
        timers: Jobs,
        *,
        now_ns: Callable[[], int],
        new_number: Callable[[], int],
    ) -> None:
        self._store = store
        self._leases = leases
        self._timers = timers
        self._now_ns = now_ns
        self._new_number = new_number
        self._kept: dict[bytes, Call] = {}  # WATCH calls, by client
        self._barriers: dict[Any, Barrier] = {}  # by the token of the call
        self._requests: dict[Request, Barrier] = {}
        self._behind: dict[Barrier, tuple[list[Any], list[Request]]] = {}
        self._waiting: dict[Any, Answer] = {}

    # -- WATCH ---------------------------------------------------------------------------------

    def take(self, call: Call) -> list[Answer]:
        """The answers that are ready now."""
        request, client = call.request, call.context.client
        if not client:
            return [failure(call.token, bad_request("watch", "header.client_id: it is needed"))]
        if self._store.kv.shared:
            return [_answer(call, meta_pb2.WatchReply(unsupported=True))]
        if request.close:
            self._end(client)
            return [_answer(call, meta_pb2.WatchReply()), *self.open_barriers()]
        if not request.session:
            return [*self._open(call, client), *self.open_barriers()]
        now_ns = self._now_ns()
        if not request.wait:
            self._leases.acknowledge(client, request.session, request.acked, now_ns)
            return [_answer(call, meta_pb2.WatchReply()), *self.open_barriers()]
        answers = self._let_go(client)
        received, acked = request.received, request.acked
        if not self._leases.watch(client, request.session, received, acked, now_ns):
            answers.append(_answer(call, meta_pb2.WatchReply()))
        else:
            self._kept[client] = call
            if self._leases.has_recalls(client):
                answers += self._let_go(client)
            else:
                self._timers.later(HOLD_S, partial(self._held_long_enough, client, call))
        return answers + self.open_barriers()

    def _open(self, call: Call, client: bytes) -> list[Answer]:
        formerly = call.request.formerly
        if formerly and len(formerly) != CLIENT_ID_BYTES:
            detail = f"formerly: {len(formerly)} bytes, {CLIENT_ID_BYTES} are needed"
            return [failure(call.token, bad_request("watch", detail))]
        self._store.transact([lambda txn: txn.set(keys.watcher(client), b"")])
        number = self._leases.open(
            client,
            self._new_number(),
            call.request.header.request_id,
            self._now_ns(),
            formerly=formerly,
        )
        answers = [_answer(call, meta_pb2.WatchReply(session=number, session_ms=SESSION_MS))]
        if formerly and not self._leases.has_session(formerly):
            answers += self._let_go(formerly)
            self._store.transact([partial(_forget, formerly)])
        return answers

    def _end(self, client: bytes) -> None:
        if self._leases.close(client):
            self._store.transact([lambda txn: txn.clear(keys.watcher(client))])

    def _held_long_enough(self, client: bytes, call: Call) -> None:
        with self._store.lock:
            answers = self._let_go(client) if self._kept.get(client) is call else []
        if answers:
            self._store.deliver(answers)

    def _let_go(self, client: bytes) -> list[Answer]:
        """The kept call of the client, answered with what there is."""
        call = self._kept.pop(client, None)
        if call is None:
            return []
        if not self._leases.knows(client, call.request.session):
            return [_answer(call, meta_pb2.WatchReply())]
        recalls, sequence = self._leases.take_recalls(client)
        prolonged = self._leases.prolonged(client)
        reply = meta_pb2.WatchReply(
            session=call.request.session,
            sequence=sequence,
            recalls=map(_message, recalls),
            session_ms=SESSION_MS if prolonged else 0,
        )
        return [_answer(call, reply)]

    # -- changes -------------------------------------------------------------------------------

    def changed(self, call: Call | None, changes: Changes) -> list[Answer]:
        """After the commit. WATCH calls that have to go out; the answer of `call` waits (see
        hold_back). Without a call nobody waits: what the service does by itself."""
        client = b""
        if call is not None:
            client = call.context.client
            changes = changes._replace(unasked=_unasked(call.request, changes))
        barrier = self._leases.change(client, changes, self._now_ns())
        if barrier is None:
            return []
        if call is not None:
            self._wait(call, barrier)
        answers = []
        for holder in self._leases.take_owing():
            if self._leases.has_recalls(holder):
                answers += self._let_go(holder)
        return answers

    def repeated(self, call: Call) -> None:
        """The call gets a recorded reply: behind the barrier of the first time."""
        client = call.context.client
        barrier = self._requests.get((client, call.request_id))
        if barrier is None:
            barrier = self._leases.wait_for_former(client, self._now_ns())
            self._leases.take_owing()
        if barrier.waits_for:
            self._wait(call, barrier)

    def _wait(self, call: Call, barrier: Barrier) -> None:
        request = (call.context.client, call.request_id)
        self._barriers[call.token] = barrier
        self._requests[request] = barrier
        tokens, requests = self._behind.setdefault(barrier, ([], []))
        tokens.append(call.token)
        requests.append(request)

    def hold_back(self, answers: list[Answer]) -> list[Answer]:
        """Those that may go out. The others come out of open_barriers() later."""
        if not self._barriers:
            return answers
        ready = []
        for answer in answers:
            if answer.token in self._barriers:
                self._waiting[answer.token] = answer
            else:
                ready.append(answer)
        return ready

    def open_barriers(self) -> list[Answer]:
        """Answers that waited for nothing else."""
        answers = []
        for barrier in self._leases.take_open_barriers():
            tokens, requests = self._behind.pop(barrier, ((), ()))
            for token in tokens:
                del self._barriers[token]
                answer = self._waiting.pop(token, None)
                if answer is not None:
                    answers.append(answer)
            for request in requests:
                self._requests.pop(request, None)
        return answers

    def tick(self) -> list[Answer]:
        answers = []
        for client in self._leases.expire(self._now_ns()):
            log.info("client %s is silent: what it cached is over", client.hex())
            answers += self._let_go(client)
            self._store.transact([partial(_forget, client)])
        return answers + self.open_barriers()

    def waiting(self) -> int:
        return len(self._waiting)


def former_clients(txn: Transaction) -> list[bytes]:
    begin, end = keys.WATCHER, keys.prefix_end(keys.WATCHER)
    return [key[len(keys.WATCHER) :] for key, _ in txn.get_range(begin, end, snapshot=True)]


def _unasked(request: Any, changes: Changes) -> set[int]:
    """Removing may move into the trash, for instance."""
    fields = ("parent", "old_parent", "new_parent")
    asked = {getattr(request, field, 0) for field in fields}
    return {parent for parent, _ in changes.names} - asked


def _forget(client: bytes, txn: Transaction) -> None:
    txn.clear(keys.watcher(client))


def _answer(call: Call, reply: meta_pb2.WatchReply) -> Answer:
    return Answer(call.token, Status.OK, "", "", reply.SerializeToString())


def _message(recall: Recall) -> meta_pb2.Recall:
    return meta_pb2.Recall(**recall._asdict())
