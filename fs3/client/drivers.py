"""Running operations: blocking on the calling thread, many at a time on it, or suspended in an
event loop."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fs3.client.calls import Call, Native, Operation, Queue
from fs3.errors import Fs3Error, error_for

if TYPE_CHECKING:  # loaded by those who run an event loop: it is a third of the start of `fs3 ls`
    import asyncio

__all__ = ["AsyncDriver", "Batch", "run"]

T = TypeVar("T")
QueueFactory = Callable[[], Queue]


def run(native: Native, operation: Operation[T]) -> T:
    """To its end on this thread; the native client waits without the GIL."""
    try:
        call = next(operation)
        while True:
            try:
                result = call.run(native)
            except Fs3Error as error:
                call = operation.throw(error)
            else:
                call = operation.send(result)
    except StopIteration as stop:
        result_: T = stop.value
        return result_
    finally:
        operation.close()


class Batch:
    """Several operations at once on the calling thread: while one waits, the others go on."""

    def __init__(self, native: Native, queues: QueueFactory) -> None:
        self._native = native
        self._queue = queues()
        self._waiting: dict[int, tuple[int, Operation[Any]]] = {}
        self._next_token = 0
        self._results: list[Any] = []

    def run(self, operations: Sequence[Operation[Any]], at_once: int = 64) -> list[Any]:
        """Results in the order of the operations, an OSError in the place of one that failed."""
        self._results = [None] * len(operations)
        for index, operation in enumerate(operations):
            self._advance(index, operation, None, None)
            while len(self._waiting) >= at_once:
                self._collect()
        while self._waiting:
            self._collect()
        return self._results

    def _collect(self) -> None:
        self._queue.wait(-1)
        for token, value, error in self._queue.drain():
            index, operation = self._waiting.pop(token)
            self._advance(index, operation, value, None if error is None else error_for(*error))

    def _advance(
        self, index: int, operation: Operation[Any], value: Any, error: Fs3Error | None
    ) -> None:
        try:
            call = operation.send(value) if error is None else operation.throw(error)
        except StopIteration as stop:
            self._results[index] = stop.value
            return
        except OSError as failure:
            self._results[index] = failure
            return
        self._waiting[self._next_token] = (index, operation)
        call.submit(self._native, self._queue, self._next_token)
        self._next_token += 1


class AsyncDriver:
    """Operations as coroutines of one event loop. The loop watches the completion queue's eventfd:
    no thread, and no task, per call."""

    def __init__(self, native: Native, queue: Queue, loop: "asyncio.AbstractEventLoop") -> None:
        self._native = native
        self._queue = queue
        self._loop = loop
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._next_token = 0
        loop.add_reader(queue.fileno(), self._on_ready)

    def close(self) -> None:
        """REQUIRES: on the loop's thread. Calls still open end with CancelledError."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.remove_reader(self._queue.fileno())
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()

    async def run(self, operation: Operation[T]) -> T:
        """A cancelled operation leaves its present call to end by itself; what it reads into must
        stay as it is until then, which the native client sees to."""
        try:
            call = next(operation)
            while True:
                try:
                    result = await self._submit(call)
                except Fs3Error as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(result)
        except StopIteration as stop:
            result_: T = stop.value
            return result_
        finally:
            operation.close()

    def _submit(self, call: Call) -> "asyncio.Future[Any]":
        token = self._next_token
        self._next_token += 1
        future = self._loop.create_future()
        self._futures[token] = future
        call.submit(self._native, self._queue, token)
        return future

    def _on_ready(self) -> None:
        for token, value, error in self._queue.drain():
            future = self._futures.pop(token, None)
            if future is None or future.done():
                continue  # its caller was cancelled
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error_for(*error))
