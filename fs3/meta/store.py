"""Runs operations: one operation = one transaction, many transactions = one batch.

    run(calls)   prepare -> one kv.run_batch -> replies
                   each operation: recorded reply? else verb -> record the reply, same transaction
    answers that have to wait go out later through `deliver`:
                   durable sync      after kv.sync, one for all that wait (own thread)
                   truncate          after the chunks are cut, the intent is cleared (truncation.py)
                   settle, stale     after storage told the length; the call runs again (job)

The thread that calls run() never waits for storage or for a disk flush. On a shared store several
services run the same operations: the store repeats a batch that met another one, so an operation
has no effect but on its transaction and its context, and what a service keeps in memory is a hint.
"""

import errno
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar, cast

from fs3.errors import Denied, Fs3Error, Refused, RetryElsewhere, Status
from fs3.kv import keys
from fs3.kv.api import KeyValueStore, Transaction
from fs3.meta import inode as inodes
from fs3.meta import intent, quota, session
from fs3.meta.allocator import InodeAllocator
from fs3.meta.call import Answer, Call, failure
from fs3.meta.clients import ClientTable
from fs3.meta.context import Environment, IntentPending, LengthNeeded
from fs3.meta.faults import refuse
from fs3.meta.idempotency import GENERATION_S, Idempotency, Recorded
from fs3.meta.identity import IdentityPolicy
from fs3.meta.layouts import LayoutPolicy
from fs3.meta.leadership import Leadership
from fs3.meta.leases import LeaseTable
from fs3.meta.pending import PATIENCE_S, Pending
from fs3.meta.ports import ChunkPort, Jobs, Minter, SpacePort
from fs3.meta.prune import ClientPruner
from fs3.meta.truncation import Truncations
from fs3.runtime.clock import Clock
from fs3.runtime.entropy import Entropy
from fs3.runtime.failpoint import failpoint

__all__ = ["MetaStore"]

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S_MIN, RETRY_S_MAX = 0.05, 5.0  # pauses between attempts of a job that storage refused
SESSION_BYTES = 16


class MetaStore:
    """Thread-safe: one lock, held while a batch runs, never while storage is asked."""

    def __init__(
        self,
        kv: KeyValueStore,
        *,
        clock: Clock,
        entropy: Entropy,
        chunks: ChunkPort,
        layouts: LayoutPolicy,
        space: SpacePort,
        minter: Minter,
        jobs: Jobs,
        sync_jobs: Jobs,
        identity: IdentityPolicy,
        owner: tuple[int, int] = (0, 0),
        service: bytes = intent.NOBODY,
        is_gone: Callable[[bytes], bool] = lambda owner: True,
        leadership: Leadership | None = None,
        may_change: Callable[[], bool] = lambda: True,
    ) -> None:
        """`owner`: uid and gid of the root directory, when this makes the file system. `sync_jobs`
        runs only flushes, so that they never queue behind storage. `service`: incarnation of this
        process; `is_gone`: whether nothing can come of another one any more; `leadership`: who does
        the chores; `may_change`: see pulse.py. Resumes what the KV says was begun."""
        self.kv = kv
        self._clock = clock
        self._chunks = chunks
        self._minter = minter
        self._jobs = jobs
        self._sync_jobs = sync_jobs
        self._identity = identity
        self._may_change = may_change
        self.lock = threading.RLock()
        self._pending = Pending()
        self._unsynced: list[Answer] = []
        self._idempotency = Idempotency(shared=kv.shared)
        self._generation = 0  # of idempotency rows; since when it has not moved
        self._generation_since_ns = 0
        self.deliver: Callable[[list[Answer]], None] = _nobody_listens
        bootstrap = partial(_bootstrap, clock, owner)
        _, _, (intents, clients) = self.transact([bootstrap, Idempotency.begin, _resume])
        self.env = Environment(
            allocator=InodeAllocator(kv),
            layouts=layouts,
            leases=LeaseTable(clock.monotonic_ns),
            clients=ClientTable(clock.monotonic_ns),
            space=space,
            service=service,
            new_session=partial(entropy.token, SESSION_BYTES),
        )
        for client, sessions in clients.items():
            self.env.clients.count_sessions(client, sessions)
        self._leadership = leadership or Leadership(kv, clock, holder=service.hex())
        self._pruner = ClientPruner(self, chunks, jobs)
        self._truncations = Truncations(
            self,
            chunks,
            jobs,
            self._pending,
            service=service,
            is_gone=is_gone,
            finished=self._finished,
        )
        self._look_for_limits()
        with self.lock:
            for inode in intents:
                self._truncations.look(inode)

    # -- requests ------------------------------------------------------------------------------

    def run(self, calls: Sequence[Call]) -> list[Answer]:
        """The answers that are ready; the others come through `deliver`. Raises only when the KV
        does: then the outcome of all is unknown, and the process should end."""
        answers: list[Answer] = []
        ready: list[Call] = []
        for call in calls:
            failpoint("received", call.name)
        with self.lock:
            for call in calls:
                try:
                    call.prepare(self.env, self._identity, self._clock.wall_ns())
                except Fs3Error as error:
                    answers.append(failure(call.token, error))
                except Exception as error:  # a bug must cost the request, not the service
                    answers.append(_internal(call, f"method {call.method:#x}", error))
                else:
                    ready.append(call)
            self._execute(ready, answers)
        return answers

    def transact(self, operations: Sequence[Callable[[Transaction], Any]]) -> list[Any]:
        """For the workers of the service: operations beside those of clients, same batch rules."""
        with self.lock:
            return _results(self.kv.run_batch(operations))

    def guard(self, txn: Transaction) -> None:
        """In the transactions of what one service does for all. Raises when it is not this one."""
        self._leadership.guard(txn)

    def mend(self, operation: Callable[[Transaction], T]) -> T:
        """As transact, for one operation that may take an inode id."""
        with self.lock:
            self.env.allocator.ensure(1)
            (result,) = _results(self.kv.run_batch([operation]))
        return cast(T, result)

    def wall_ns(self) -> int:
        return self._clock.wall_ns()

    def tick(self) -> None:
        """Housekeeping; about once a second."""
        now_ns = self._clock.monotonic_ns()
        with self.lock:
            self.env.leases.turn()
            late = self._pending.expire(now_ns - int(PATIENCE_S * 1e9))
            silent = self.env.clients.silent()
            if self._leadership.leads:
                self._pruner.look(silent)
            else:
                for client in silent:
                    self.env.clients.forget(client)
        if late:
            self.deliver(late)
        self._turn_generation(now_ns)
        self._look_for_limits()
        if self._leadership.leads:
            self._pruner.find_clients()
            self._look_for_truncates()

    def _look_for_limits(self) -> None:
        """Those that another service has set; one's own are known at once."""
        (accounts,) = self.transact([lambda txn: {account for account, _ in quota.limits(txn)}])
        with self.lock:
            self.env.limited.clear()
            self.env.limited.update(accounts)

    def _turn_generation(self, now_ns: int) -> None:
        """Every service that has seen the same generation for long enough tries; one of them
        does."""
        if now_ns - self._generation_since_ns < GENERATION_S * 1e9 and self._generation:
            return
        turn = self._idempotency.turn if self._generation else self._idempotency.look
        (present,) = self.transact([lambda txn: turn(txn, self._generation)])
        self._idempotency.turned(present)
        self._generation, self._generation_since_ns = present, now_ns

    def _look_for_truncates(self) -> None:
        """Those of services that died, which nobody else may ever ask for."""
        (inodes_cut,) = self.transact([_intents])
        with self.lock:
            for inode in inodes_cut:
                self._truncations.look(inode)

    def _execute(self, calls: list[Call], answers: list[Answer]) -> None:
        """REQUIRES: the lock, prepared calls."""
        if not calls:
            return
        calls, copies = _apart(calls)
        self.env.allocator.ensure(sum(call.verb.creates for call in calls))
        outcomes = self.kv.run_batch([partial(self._operate, call) for call in calls])
        self._record_refusals(calls, outcomes)
        for call, outcome in zip(calls, outcomes, strict=True):
            try:
                self._dispose(call, outcome, answers)
            except Fs3Error as error:
                answers.append(failure(call.token, error))
        self._execute(copies, answers)

    def _record_refusals(self, calls: list[Call], outcomes: list[Any]) -> None:
        """Of calls that would have changed something. What cannot be recorded is not answered: the
        outcome is then why."""
        refused = [
            place
            for place, (call, outcome) in enumerate(zip(calls, outcomes, strict=True))
            if call.mutates and isinstance(outcome, Refused)
        ]
        if not refused:
            return
        # By name: what looks at the operations of a store tells these from requests.
        records = self.kv.run_batch(
            [
                partial(self._record_refusal, call=calls[place], error=outcomes[place])
                for place in refused
            ]
        )
        for place, record in zip(refused, records, strict=True):
            outcomes[place] = record

    def _record_refusal(self, txn: Transaction, *, call: Call, error: Refused) -> Any:
        """Its result is the answer: another service may have run another attempt meanwhile."""
        context = call.context
        context.reset()
        uid = context.caller.uid
        try:
            recorded = self._idempotency.find(
                txn, context.client, call.request_id, method=call.method, uid=uid
            )
        except Refused:
            return error  # the id belongs to another request, whose answer stays
        if recorded is not None:
            return _replay(txn, call, recorded)
        refusal = Recorded.refusal(call.method, uid, error)
        self._idempotency.record(txn, context.client, call.request_id, refusal)
        return error

    def _operate(self, call: Call, txn: Transaction) -> Any:
        """The transaction of one call; its result is the reply."""
        context = call.context
        context.reset()
        if not call.mutates:
            return call.verb.run(txn, call.request, context)
        if not self._may_change():
            detail = "this service has no lease of the cluster manager; another one may have"
            raise RetryElsewhere(Status.NOT_SERVING, f"meta/{call.verb.name}", detail)
        recorded = self._idempotency.find(
            txn, context.client, call.request_id, method=call.method, uid=context.caller.uid
        )
        if recorded is not None:
            return _replay(txn, call, recorded)
        reply = call.verb.run(txn, call.request, context)
        failpoint("staged", call.verb.name)
        body = reply.SerializeToString()
        self._idempotency.record(
            txn,
            context.client,
            call.request_id,
            Recorded(
                call.method, context.caller.uid, context.rights, context.hold, context.session, body
            ),
        )
        failpoint("recorded", call.verb.name)
        return reply if context.rights else body

    def _dispose(self, call: Call, outcome: Any, answers: list[Answer]) -> None:
        """After the commit: answers, or files the call under what it waits for."""
        if isinstance(outcome, BaseException):
            self._dispose_failure(call, outcome, answers)
            return
        failpoint("committed", call.verb.name)
        context = call.context
        if context.sessions_change:
            self.env.clients.count_sessions(context.client, context.sessions_change)
        if context.rights:
            outcome.capability = self._minter.mint(
                rights=context.rights,
                inode=outcome.attr.inode,
                client=context.client or keys.NO_SESSION,
                session=context.session,
            )
            failpoint("minted", call.verb.name)
        body = outcome if isinstance(outcome, bytes) else outcome.SerializeToString()
        answer = Answer(call.token, Status.OK, "", "", body)
        if context.hold:
            call.parked_ns = call.parked_ns or self._clock.monotonic_ns()
            self._pending.hold(context.hold, call, answer)
            self._truncations.look(context.hold)
        elif call.verb.may_be_durable and call.request.durable:
            self._answer_after_sync(answer)
        else:
            answers.append(answer)

    def _dispose_failure(self, call: Call, error: BaseException, answers: list[Answer]) -> None:
        if isinstance(error, IntentPending):
            call.parked_ns = call.parked_ns or self._clock.monotonic_ns()
            self._pending.block(error.inode, call)
            self._truncations.look(error.inode)
        elif isinstance(error, LengthNeeded):
            call.parked_ns = call.parked_ns or self._clock.monotonic_ns()
            self._wait_for_measure(error, call)
        elif isinstance(error, Fs3Error):
            answers.append(failure(call.token, error))
        else:
            answers.append(_internal(call, call.verb.name, error))

    def statistics(self) -> dict[str, int]:
        with self.lock:
            parts = (
                ("pending", self._pending.statistics()),
                ("clients", self.env.clients.statistics()),
                ("leases", self.env.leases.statistics()),
            )
            return {
                f"{part}_{name}": value
                for part, numbers in parts
                for name, value in asdict(numbers).items()
            }

    # -- durable answers -----------------------------------------------------------------------

    def _answer_after_sync(self, answer: Answer) -> None:
        self._unsynced.append(answer)
        if len(self._unsynced) == 1:
            self._sync_jobs.spawn(self._sync)

    def _sync(self) -> None:
        """One flush for all that wait. Those that come while it runs get the next one."""
        with self.lock:
            answers, self._unsynced = self._unsynced, []
        self.kv.sync()
        failpoint("store.flushed")
        self.deliver(answers)

    def _finished(self, inode: int) -> None:
        """No truncate is in the way of `inode` any more. REQUIRES: the lock."""
        answers = self._pending.take_held(inode)
        self._execute_parked(self._pending.take_blocked(inode), answers)
        if answers:
            self.deliver(answers)

    def _execute_parked(self, calls: list[Call], answers: list[Answer]) -> None:
        """Calls that have waited; whatever happens, each is answered. REQUIRES: the lock."""
        try:
            self._execute(calls, answers)
        except Fs3Error as error:
            answers += [failure(call.token, error) for call in calls]

    # -- lengths -------------------------------------------------------------------------------

    def _wait_for_measure(self, needed: LengthNeeded, call: Call) -> None:
        """REQUIRES: the lock."""
        if self._pending.measure(needed.inode, call):
            self._jobs.spawn(partial(self._measure, needed, RETRY_S_MIN))

    def _measure(self, needed: LengthNeeded, pause_s: float) -> None:
        """For those who wait now. Whoever comes while storage is asked gets an answer of his own:
        this one may be older than what he wrote."""
        inode = needed.inode
        with self.lock:
            waiting = self._pending.take_measured(inode)
        if not waiting:
            return
        try:
            measure = self._chunks.measure(inode, needed.layout)
            failpoint("store.measured")
        except OSError as error:
            log.info("length of inode %d is asked again later: %s", inode, error)
            with self.lock:
                self._pending.put_back_measured(inode, waiting)
            again = min(pause_s * 2, RETRY_S_MAX)
            self._jobs.later(pause_s, partial(self._measure, needed, again))
            return
        answers: list[Answer] = []
        with self.lock:
            for call in waiting:
                call.context.measured[inode] = (needed.truncate_epoch, measure)
            self._execute_parked(waiting, answers)
        if answers:
            self.deliver(answers)


def _internal(call: Call, where: str, error: BaseException) -> Answer:
    log.error("meta/%s failed", where, exc_info=error)
    detail = f"{type(error).__name__} in the service; its log has the stack"
    return failure(call.token, refuse(errno.EIO, where, detail))


def _nobody_listens(answers: list[Answer]) -> None:
    raise AssertionError("MetaStore.deliver is not set")


def _results(outcomes: Sequence[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return list(outcomes)


def _bootstrap(clock: Clock, owner: tuple[int, int], txn: Transaction) -> None:
    """A new store gets its root directory."""
    if txn.get(keys.FILE_SYSTEM) is not None:
        return
    now_ns = clock.wall_ns()
    root = inodes.root(now_ns)
    root.uid, root.gid = owner
    inodes.store(txn, root)
    txn.set(keys.FILE_SYSTEM, now_ns.to_bytes(8, "little"))


def _resume(txn: Transaction) -> tuple[list[int], Counter[bytes]]:
    """Inodes with a truncate in progress, and how many sessions each client has."""
    begin, end = keys.CLIENT_SESSION, keys.prefix_end(keys.CLIENT_SESSION)
    clients = Counter(
        keys.client_session_fields(key)[0] for key, _ in txn.get_range(begin, end, snapshot=True)
    )
    return _intents(txn), clients


def _intents(txn: Transaction) -> list[int]:
    return [wanted.inode for wanted in intent.all_intents(txn)]


def _apart(calls: list[Call]) -> tuple[list[Call], list[Call]]:
    """Copies of one request in a batch run after the first: its answer is recorded then."""
    seen: set[tuple[bytes, int]] = set()
    firsts: list[Call] = []
    copies: list[Call] = []
    for call in calls:
        key = call.context.client, call.request_id
        (copies if call.mutates and key in seen else firsts).append(call)
        if call.mutates:
            seen.add(key)
    return firsts, copies


def _replay(txn: Transaction, call: Call, recorded: Recorded) -> Any:
    """The reply of the first time, without a lease; a capability is minted again only if the
    session that it belongs to is still there."""
    if recorded.code:
        raise recorded.error()
    reply: Any = call.verb.reply.FromString(recorded.reply)
    for holder in (reply, getattr(reply, "entry", None)):
        if holder is not None and "lease" in holder.DESCRIPTOR.fields_by_name:
            holder.ClearField("lease")
    context = call.context
    if recorded.rights:
        inode = reply.attr.inode
        if recorded.session and session.find(txn, inode, recorded.session) is None:
            raise Denied(
                Status.CAPABILITY_DENIED, f"meta/{call.verb.name}", "the session has ended"
            )
        context.rights, context.session = recorded.rights, recorded.session
    if recorded.hold and intent.find(txn, recorded.hold) is not None:
        context.hold = recorded.hold
    return reply
