"""Compares the replicas of every chain of a running cluster, and chunks with inodes.

Invariant I8: after quiesce, the serving replicas of a chain are equal: ids, versions, lengths,
checksums and (deep) bytes. Invariant I23: chunks on storage are those implied by the live inodes.

The lists of the replicas are merged page by page, so memory does not grow with the cluster, except
for the live inodes when they are given. On a cluster under load a list is not a snapshot: a chain
with differences is compared again, up to ROUNDS times, before they count.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from fs3._proto import common_pb2
from fs3.errors import Fs3Error
from fs3.layout import chain_of, tables_of
from fs3.runtime.clock import Clock
from fs3.storage.admin import ChunkRecord, StorageAdmin
from fs3.types import NodeId, TargetId

__all__ = ["Difference", "LiveFile", "Report", "check"]

ROUNDS = 3
ROUND_PAUSE_S = 0.3
DIFFERENCES_MAX = 1000  # further ones are counted, not kept


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One regular file of the name space whose bytes are in chunks."""

    inode: int
    layout: common_pb2.Layout
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`kind`: absent, version, length, checksum, bytes, pending, unserved, unreachable, damaged;
    leaked, beyond, misplaced, missing when live files were given."""

    kind: str
    chain: int
    detail: str
    chunk: tuple[int, int] | None = None  # inode, index
    targets: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()  # targets against a majority of at least two that agree

    def __str__(self) -> str:
        what = f"chunk {self.chunk[0]}.{self.chunk[1]} " if self.chunk else ""
        where = f" (targets {', '.join(map(str, self.targets))})" if self.targets else ""
        return f"chain {self.chain}: {what}{self.kind}: {self.detail}{where}"


@dataclass(slots=True)
class Report:
    """What was compared and what was found."""

    chains: int = 0
    replicas: int = 0
    chunks: int = 0  # of all replicas together
    bytes: int = 0  # that the lists name; deep: that were read
    deep: bool = False
    files: int = 0
    holes: int = 0  # chunks that live files may have and storage has not: holes, or lost
    differences: list[Difference] = field(default_factory=list)
    more_differences: int = 0

    @property
    def ok(self) -> bool:
        return not self.differences

    def add(self, difference: Difference) -> None:
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)
        else:
            self.more_differences += 1

    def __str__(self) -> str:
        depth = "read" if self.deep else "listed"
        head = (
            f"{self.chains} chains, {self.replicas} serving replicas, {self.chunks} chunks, "
            f"{self.bytes} bytes {depth}: "
        )
        if self.ok:
            return head + "all replicas are equal"
        count = len(self.differences) + self.more_differences
        shown = "\n  ".join(map(str, self.differences[:20]))
        return f"{head}{count} differences\n  {shown}"


@dataclass(slots=True)
class _Chain:
    """What one round found out about one chain."""

    replicas: int = 0
    chunks: int = 0
    bytes: int = 0
    differences: list[Difference] = field(default_factory=list)
    held: set[tuple[int, int]] = field(default_factory=set)  # filled only for the join


def check(
    routing: common_pb2.RoutingInfo,
    admin: StorageAdmin,
    *,
    clock: Clock,
    deep: bool = False,
    live: Iterable[LiveFile] | None = None,
    dense: bool = False,
) -> Report:
    """Compares all serving replicas. `deep` reads every byte of every replica.

    `live`: all files of the name space, taken while nothing is created or removed; chunks that
    belong to none of them are leaked. `dense`: the files have no holes, so an absent chunk is
    missing.
    """
    report = Report(deep=deep)
    join = None if live is None else _Join(routing, live, dense)
    for chain in routing.chains:
        outcome = _settled(chain, admin, clock, deep, join)
        report.chains += 1
        report.replicas += outcome.replicas
        report.chunks += outcome.chunks
        report.bytes += outcome.bytes
        for difference in outcome.differences:
            report.add(difference)
    if join is not None:
        join.finish(report)
    return report


def _settled(
    chain: common_pb2.Chain, admin: StorageAdmin, clock: Clock, deep: bool, join: "_Join | None"
) -> _Chain:
    for round_number in range(ROUNDS):
        if round_number:
            clock.sleep(ROUND_PAUSE_S)
        outcome = _compare(chain, admin, deep, join)
        if not outcome.differences:
            break
    if join is not None:
        join.held(chain.id, outcome)
    return outcome


def _compare(
    chain: common_pb2.Chain, admin: StorageAdmin, deep: bool, join: "_Join | None"
) -> _Chain:
    outcome = _Chain()
    serving = [t for t in chain.targets if t.state == common_pb2.SERVING]
    outcome.replicas = len(serving)
    if not serving:
        outcome.differences.append(Difference("unserved", chain.id, "no replica serves"))
        return outcome
    try:
        for key, copies in _merged(serving, admin):
            outcome.chunks += len(copies)
            outcome.bytes += sum(copy.length for copy in copies.values())
            if join is not None:
                outcome.held.add(key)
            found = _difference(chain.id, key, serving, copies)
            if found is None and deep:
                found = _byte_difference(chain.id, key, serving, copies, admin)
            if found is not None:
                outcome.differences.append(found)
    except Fs3Error as error:
        outcome.differences.append(Difference("unreachable", chain.id, str(error)))
    return outcome


Copies = Mapping[int, ChunkRecord]


def _merged(
    serving: list[common_pb2.ChainTarget], admin: StorageAdmin
) -> Iterator[tuple[tuple[int, int], Copies]]:
    """Each chunk id that any replica holds, with the replicas' records by target."""

    def of(target: common_pb2.ChainTarget) -> Iterator[tuple[tuple[int, int], int, ChunkRecord]]:
        for record in admin.chunks(NodeId(target.node_id), TargetId(target.target_id)):
            yield record.key, target.target_id, record

    merged = heapq.merge(*map(of, serving))
    for key, group in groupby(merged, key=itemgetter(0)):
        yield key, {target: record for _, target, record in group}


def _difference(
    chain: int, key: tuple[int, int], serving: list[common_pb2.ChainTarget], copies: Copies
) -> Difference | None:
    targets = tuple(t.target_id for t in serving)
    wrong = _minority(targets, copies)
    absent = tuple(t for t in targets if t not in copies)
    if absent:
        return Difference("absent", chain, f"held by {sorted(copies)} only", key, absent, wrong)
    for name in ("version", "chain_version", "length", "checksum"):
        values = {target: getattr(copies[target], name) for target in targets}
        if len(set(values.values())) > 1:
            kind = "version" if name == "chain_version" else name
            return Difference(kind, chain, f"{name} by target: {values}", key, targets, wrong)
    pending = tuple(t for t in targets if copies[t].pending_version)
    if pending:
        return Difference("pending", chain, "an update has not ended", key, pending)
    return None


def _minority(targets: tuple[int, ...], copies: Copies) -> tuple[int, ...]:
    """The replicas that disagree with all others, if those agree and are at least two. Two against
    one says who is wrong; one against one does not."""
    votes: dict[tuple[int, ...] | None, list[int]] = {}
    for target in targets:
        copy = copies.get(target)
        fields = ("version", "chain_version", "length", "checksum")
        said = tuple(getattr(copy, name) for name in fields) if copy is not None else None
        votes.setdefault(said, []).append(target)
    ranked = sorted(votes.values(), key=len, reverse=True)
    if len(ranked) < 2 or len(ranked[0]) < 2 or len(ranked[1]) == len(ranked[0]):
        return ()
    return tuple(target for group in ranked[1:] for target in group)


def _byte_difference(
    chain: int,
    key: tuple[int, int],
    serving: list[common_pb2.ChainTarget],
    copies: Copies,
    admin: StorageAdmin,
) -> Difference | None:
    first: bytes | None = None
    for target in serving:
        place = NodeId(target.node_id), TargetId(target.target_id)
        try:
            data = admin.read(*place, copies[target.target_id])
        except Fs3Error as error:
            return Difference("damaged", chain, str(error), key, (target.target_id,))
        if first is None:
            first = data
        elif data != first:
            at = next(
                i for i, pair in enumerate(zip(first, data, strict=True)) if len(set(pair)) > 1
            )
            pair = serving[0].target_id, target.target_id
            return Difference("bytes", chain, f"differ from byte {at} on", key, pair)
    return None


class _Join:
    """Chunks held by the chains against chunks that the live files may have."""

    def __init__(
        self, routing: common_pb2.RoutingInfo, live: Iterable[LiveFile], dense: bool
    ) -> None:
        self._tables = tables_of(routing)
        self._files = {file.inode: file for file in live}
        self._dense = dense
        self._found: dict[int, int] = {}  # inode -> chunks in their place
        self._differences: list[Difference] = []

    def held(self, chain: int, outcome: _Chain) -> None:
        for inode, index in sorted(outcome.held):
            file = self._files.get(inode)
            if file is None:
                self._note("leaked", chain, "no live file has this inode", inode, index)
                continue
            if index * file.layout.chunk_size >= file.size_bytes:
                self._note("beyond", chain, f"the file ends at {file.size_bytes}", inode, index)
            elif chain_of(file.layout, index, self._tables) != chain:
                self._note("misplaced", chain, "belongs to another chain", inode, index)
            else:
                self._found[inode] = self._found.get(inode, 0) + 1

    def finish(self, report: Report) -> None:
        for difference in self._differences:
            report.add(difference)
        for file in self._files.values():
            report.files += 1
            expected = -(-file.size_bytes // file.layout.chunk_size)
            absent = expected - self._found.get(file.inode, 0)
            report.holes += absent
            if absent and self._dense:
                detail = f"{absent} of {expected} chunks of inode {file.inode} are nowhere"
                report.add(Difference("missing", 0, detail))

    def _note(self, kind: str, chain: int, detail: str, inode: int, index: int) -> None:
        self._differences.append(Difference(kind, chain, detail, (inode, index)))
