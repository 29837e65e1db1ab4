"""Calls that cannot be answered yet, by the inode they wait for.

    held      executed and committed; the reply waits until the truncate of the inode has finished
    blocked   not executed; runs again when the truncate that was in its way has finished
    measured  not executed; runs again when storage has told what it holds of the inode

Not thread-safe: guarded by the lock of the store. Bounded by WAITING_MAX.
"""

from collections import defaultdict
from dataclasses import dataclass

from fs3.errors import RetryLater, Status
from fs3.meta.call import Answer, Call, failure

__all__ = ["Pending", "PendingStatistics"]

WAITING_MAX = 10_000
PATIENCE_S = 30.0  # as long as a client repeats a call; then it is told to come again


@dataclass(frozen=True)
class PendingStatistics:
    held: int
    blocked: int
    measured: int


class Pending:
    def __init__(self) -> None:
        self._held: defaultdict[int, list[tuple[Call, Answer]]] = defaultdict(list)
        self._blocked: defaultdict[int, list[Call]] = defaultdict(list)
        self._measured: defaultdict[int, list[Call]] = defaultdict(list)
        self._cutting: set[int] = set()

    def begin_cut(self, inode: int) -> bool:
        """True when no job cuts the inode yet: the caller starts one."""
        if inode in self._cutting:
            return False
        self._cutting.add(inode)
        return True

    def end_cut(self, inode: int) -> None:
        self._cutting.discard(inode)

    def hold(self, inode: int, call: Call, answer: Answer) -> None:
        self._held[inode].append((call, answer))

    def block(self, inode: int, call: Call) -> None:
        self._admit()
        self._blocked[inode].append(call)

    def measure(self, inode: int, call: Call) -> bool:
        """True when this is the first that waits: somebody has to ask storage."""
        self._admit()
        first = inode not in self._measured
        self._measured[inode].append(call)
        return first

    def take_held(self, inode: int) -> list[Answer]:
        return [answer for _, answer in self._held.pop(inode, [])]

    def take_blocked(self, inode: int) -> list[Call]:
        return self._blocked.pop(inode, [])

    def put_back_measured(self, inode: int, calls: list[Call]) -> None:
        """Storage did not tell; they wait on."""
        self._measured[inode][:0] = calls

    def take_measured(self, inode: int) -> list[Call]:
        return self._measured.pop(inode, [])

    def expire(self, before_ns: int) -> list[Answer]:
        """Answers for calls that wait since before that monotonic time: BUSY. Repeating one with
        the same request id is right in every case: an executed one finds its reply recorded."""
        overdue: list[Call] = []
        for inode, pairs in list(self._held.items()):
            overdue += [call for call, _ in pairs if call.parked_ns < before_ns]
            self._held[inode] = [pair for pair in pairs if pair[0].parked_ns >= before_ns]
        for table in (self._blocked, self._measured):
            for inode, calls in list(table.items()):
                overdue += [call for call in calls if call.parked_ns < before_ns]
                table[inode] = [call for call in calls if call.parked_ns >= before_ns]
        return [failure(call.token, _busy(call)) for call in overdue]

    def statistics(self) -> PendingStatistics:
        return PendingStatistics(
            sum(map(len, self._held.values())),
            sum(map(len, self._blocked.values())),
            sum(map(len, self._measured.values())),
        )

    def _admit(self) -> None:
        waiting = self.statistics()
        if waiting.blocked + waiting.measured >= WAITING_MAX:
            raise RetryLater(
                Status.BUSY, "meta", f"{WAITING_MAX} calls wait for truncates; storage is slow"
            )


def _busy(call: Call) -> RetryLater:
    return RetryLater(
        Status.BUSY,
        f"meta/{call.verb.name}",
        "storage has not finished a truncate of this file; repeat with the same request id",
    )
