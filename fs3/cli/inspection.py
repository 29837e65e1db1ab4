"""The logic of `fs3 check`, without command line and cluster directory: rounds of checking and
mending.

    name space     rows of one version from the metadata service -> meta/fsck.py -> mends, again
    references     chunks that storage lists against the files of a version before and one after
    replicas       storage/checker.py; the minority is told
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fs3._proto import common_pb2
from fs3._proto import meta_pb2 as pb
from fs3.meta.fsck import Finding, NameSpace, check_rows
from fs3.storage.admin import StorageAdmin
from fs3.storage.checker import Difference, LiveFile
from fs3.types import ChainId, NodeId, TargetId

__all__ = [
    "MetaInspection",
    "Outcome",
    "References",
    "listed",
    "live_files",
    "mend_name_space",
    "sort_references",
]

ROUNDS_MAX = 8  # one mend can bring another finding to light


class Caller(Protocol):
    """A connection to the metadata service that carries a server capability."""

    def call(self, method: int, body: bytes) -> tuple[bytes, bytes]: ...


class MetaInspection:
    """CHECK and REPAIR of a running metadata service."""

    def __init__(self, connection: Caller) -> None:
        self._connection = connection

    def name_space(self) -> NameSpace:
        """All rows of one version, checked here."""
        return check_rows(self._rows())

    def _rows(self) -> Iterator[tuple[bytes, bytes]]:
        request = pb.CheckRequest()
        try:
            while True:
                body, _ = self._connection.call(pb.CHECK, request.SerializeToString())
                reply = pb.CheckReply.FromString(body)
                for row in reply.rows:
                    yield row.key, row.value
                request.snapshot = reply.snapshot
                if reply.end or not reply.rows:
                    return
                request.after = reply.rows[-1].key
        finally:
            if request.snapshot:
                request.close = True
                self._connection.call(pb.CHECK, request.SerializeToString())

    def mend(self, finding: Finding) -> tuple[bool, str]:
        mend = finding.mend
        if mend is None:
            return False, "a person has to decide"
        request = pb.RepairRequest(
            kind=mend.kind,
            inode=mend.inode,
            version=mend.version,
            key=mend.key,
            number=mend.number,
        )
        body, _ = self._connection.call(pb.REPAIR, request.SerializeToString())
        reply = pb.RepairReply.FromString(body)
        return reply.done, reply.detail


@dataclass(slots=True)
class Outcome:
    """What was wrong, what was done, what is left."""

    mended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def mend_name_space(
    inspection: MetaInspection, space: NameSpace, say: Callable[[str], None]
) -> tuple[NameSpace, Outcome]:
    """Mends what can be mended and checks again, until nothing changes. The last check. Without a
    root nothing can be mended: most of what is found then follows from that."""
    outcome = Outcome()
    rounds = 0 if any(finding.check == "root" for finding in space.findings) else ROUNDS_MAX
    for _ in range(rounds):
        progress = False
        for finding in space.findings:
            done, detail = inspection.mend(finding)
            if done:
                progress = True
                outcome.mended.append(detail)
                say(f"  mended   {finding.check}: {detail}")
        if not progress:
            break
        space = inspection.name_space()
    outcome.left = [f"{finding.check}: {finding.detail}" for finding in space.findings]
    return space, outcome


def live_files(space: NameSpace) -> Iterator[LiveFile]:
    for file in space.files:
        yield LiveFile(file.inode, file.layout.message(), file.size)


@dataclass(slots=True)
class References:
    """Chunks that no file accounts for, after the second look."""

    leaked: list[Difference] = field(default_factory=list)  # their inode is gone for ever
    unclear: list[tuple[Difference, str]] = field(default_factory=list)


def sort_references(
    differences: Iterable[Difference],
    after: NameSpace,
    still_there: Callable[[Difference], bool],
) -> References:
    """`differences`: of a listing that began after one version was read; `after`: a version read
    after that listing ended.

    Inode ids are never used again and an inode is there before its first chunk. So a chunk whose
    inode is in neither version, and that is still there, belongs to nobody - unless the name space
    itself lost something: then its bytes may be the only ones, and a person decides.
    """
    found = References()
    files = {file.inode: file for file in after.files}
    wanted = {finding.mend.inode for finding in after.findings if finding.mend is not None}
    for difference in differences:
        assert difference.chunk is not None
        inode, index = difference.chunk
        file = files.get(inode)
        if difference.kind == "leaked" and file is not None:
            continue  # made since
        if difference.kind == "leaked" and inode in after.tombstones:
            continue  # written late; gc sweeps it when the last capability for it has ended
        if difference.kind == "beyond" and file is not None:
            end = index * file.layout.chunk_size
            if inode in after.open_inodes or end < file.size or file.removing:
                continue
        if not still_there(difference):
            continue
        if difference.kind != "leaked":
            found.unclear.append((difference, "its file does not account for it"))
        elif inode >= after.ids_end:
            why = "the name space never gave out this inode: was an older copy of it put back?"
            found.unclear.append((difference, why))
        elif after.findings and (inode in wanted or after.findings_without_mend):
            found.unclear.append((difference, "the name space is damaged: mend it first"))
        else:
            found.leaked.append(difference)
    return found


def listed(
    routing: common_pb2.RoutingInfo, admin: StorageAdmin, chain_id: ChainId
) -> set[tuple[int, int]]:
    """Chunks that the head of a chain lists now; empty when nobody serves it."""
    chain = next(chain for chain in routing.chains if chain.id == chain_id)
    serving = [t for t in chain.targets if t.state == common_pb2.SERVING]
    if not serving:
        return set()
    place = NodeId(serving[0].node_id), TargetId(serving[0].target_id)
    return {record.key for record in admin.chunks(*place)}
