"""From the native RPC server to the store and back: one entry into Python for a whole batch.

RpcServer.next_batch ─> Calls ─> MetaStore.run ─> Answers ─> RpcServer.reply_batch
                                     └─ later: deliver() from a job thread ──┘
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fs3.auth.identity import Principal
from fs3.errors import Fs3Error, RetryElsewhere, Status
from fs3.meta.call import Answer, Call, failure
from fs3.meta.inspect import Inspector
from fs3.meta.ports import Jobs
from fs3.meta.store import MetaStore
from fs3.runtime.failpoint import failpoint

__all__ = ["MetaService", "Waiter"]

log = logging.getLogger(__name__)

BATCH_MAX = 256  # one transaction log record; a request waits at most for these before it
WAIT_S = 0.2  # how long stop() may have to wait for the loop

Request = tuple[int, int, Principal, bytes, bytes]  # handle, method, principal, capability, body


class BatchServer(Protocol):
    """fs3._native.RpcServer."""

    def next_batch(self, max: int, timeout_s: float) -> list[Request]: ...

    def reply_batch(self, replies: list[Any]) -> None: ...


class Waiter:
    """The token of a call whose caller blocks (gRPC)."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._answer: Answer | None = None

    def set(self, answer: Answer) -> None:
        self._answer = answer
        self._answered.set()

    def wait(self, timeout_s: float) -> Answer | None:
        """None after the time-out: the outcome is unknown, a retry with the same id tells it."""
        self._answered.wait(timeout_s)
        return self._answer


class MetaService:
    """One thread runs the loop; submit() may be called by others beside it."""

    def __init__(
        self,
        server: BatchServer,
        store: MetaStore,
        *,
        on_failure: Callable[[str], None],
        inspector: Inspector | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        """`on_failure(reason)`: the store failed and the process should end. `inspector` answers
        the calls of `fs3 check`, on a thread of `jobs`."""
        self._inspector = inspector
        self._jobs = jobs
        self._server = server
        self._store = store
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="fs3-meta", daemon=True)
        store.deliver = self.deliver

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def submit(self, calls: Sequence[Call]) -> None:
        """Answers come through the tokens: a native handle or a Waiter."""
        if self._inspector is not None:
            calls = [call for call in calls if not self._inspect(call)]
        try:
            answers = self._store.run(calls)
        except Fs3Error as error:
            answers = self._store_failed(calls, error)
        except Exception as error:
            # What was applied is unknown: a retry with the same request id finds out, on a
            # service that has read its store afresh.
            answers = self._end(calls, error)
        self.deliver(answers)
        for call in calls:
            failpoint("replied", call.name)

    def _store_failed(self, calls: Sequence[Call], error: Fs3Error) -> list[Answer]:
        """A shared store answers again soon, and each caller repeats with the same request id."""
        if not self._store.kv.shared:
            return self._end(calls, error)
        log.warning("%d requests have to come again: %s", len(calls), error)
        return [failure(call.token, error) for call in calls]

    def _end(self, calls: Sequence[Call], error: Exception) -> list[Answer]:
        log.error("the store failed; this process ends", exc_info=error)
        self._on_failure(f"store: {error}")
        refusal = RetryElsewhere(Status.SHUTTING_DOWN, "meta", "the store failed")
        return [failure(call.token, refusal) for call in calls]

    def _inspect(self, call: Call) -> bool:
        """True when the call is one of the inspector's, which answers it later."""
        inspector, jobs = self._inspector, self._jobs
        if inspector is None or jobs is None or call.method not in inspector.METHODS:
            return False
        jobs.spawn(lambda: self.deliver([inspector.answer(call)]))
        return True

    def deliver(self, answers: list[Answer]) -> None:
        native = []
        for answer in answers:
            if isinstance(answer.token, Waiter):
                answer.token.set(answer)
            else:
                native.append(answer)
        if native:
            self._server.reply_batch(native)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            batch = self._server.next_batch(BATCH_MAX, WAIT_S)
            if batch:
                self.submit(
                    [
                        Call(handle, method, body, principal, capability)
                        for handle, method, principal, capability, body in batch
                    ]
                )
