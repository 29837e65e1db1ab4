"""What the metadata service committed, in order, replayed on a dictionary tree (model_fs.py).

The key-value store commits one operation after the other, so its log is the order: every outcome in
it must be the model's (I17 to I20), a repeated request is applied once and answered alike (I20),
and what a client was told must be an outcome that its request had between call and return: with the
log in one order this is strict serializability (I24).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fs3._proto import meta_pb2 as pb
from fs3.errors import Fs3Error, Status
from fs3.meta.call import Call
from fs3.meta.ops import VERBS
from tests.sim.ledger import Violation
from tests.unit.model_fs import ModelFs, Node

if TYPE_CHECKING:
    from tests.sim.loop import Loop

__all__ = ["Oracle"]

Key = tuple[bytes, int]  # client, request id
Grows = Callable[[int, int, int], bool]
"""May a write that ended after that instant have made the file this long?"""
SESSIONS = (pb.OPEN, pb.CREATE, pb.SYNC)
VOLATILE = ("lease", "capability")


@dataclass(slots=True)
class Outcome:
    at_ns: int
    code: int
    reply: bytes  # without leases and capability


class Oracle:
    def __init__(self, loop: Loop) -> None:
        self.executed = 0
        self.replayed = 0
        self.may_fail = False  # an error is planted: a request that left nothing may end with EIO
        self._loop = loop
        self._model = ModelFs(0)
        self.nodes: dict[int, Node] = {1: self._model.root}
        self.root = self._model.root
        self.cuts: dict[int, tuple[int, bytes]] = {}  # inode -> its last truncate: when, whose
        self.grows: Grows = lambda inode, size, since_ns: True
        self._grown = 0  # the length that a settlement has just brought
        self._applied: dict[Key, Outcome] = {}
        self._refused: set[tuple[Key, int]] = set()
        self._outcomes: dict[Key, list[Outcome]] = {}

    # ---- the log

    def committed(self, operations: Sequence[Any], results: Sequence[Any]) -> None:
        for operation, result in zip(operations, results, strict=True):
            if isinstance(operation, partial) and operation.args:
                call = operation.args[0]
                if isinstance(call, Call) and call.verb.has_header:
                    self._one(call, result)

    def _one(self, call: Call, result: Any) -> None:
        key = call.context.client, call.request_id
        if isinstance(result, Fs3Error):
            outcome = Outcome(self._loop.now_ns, result.code, b"")
        elif isinstance(result, BaseException):
            return  # it waits, and runs again
        else:
            body = result if isinstance(result, bytes) else result.SerializeToString()
            outcome = Outcome(self._loop.now_ns, 0, _stable(call.method, body))
        self._outcomes.setdefault(key, []).append(outcome)
        known = self._applied.get(key) if call.mutates else None
        if known is not None:
            self.replayed += 1
            if outcome.code == Status.CAPABILITY_DENIED and call.method in SESSIONS:
                return  # the session has ended, so no capability is minted for this late copy
            if outcome.code != 0 or outcome.reply != known.reply:
                raise Violation(
                    "I20",
                    f"{_shown(call)} was applied before, and is answered otherwise now: "
                    f"{outcome.code}",
                )
            return
        if call.mutates and (key, outcome.code) in self._refused:
            self.replayed += 1
            return  # a copy is refused as the first was, whatever the tree says by now
        self.executed += 1
        self._compare(call, outcome)
        if call.mutates and outcome.code == 0:
            self._applied[key] = outcome
        elif call.mutates:
            self._refused.add((key, outcome.code))

    def _compare(self, call: Call, outcome: Outcome) -> None:
        apply = MODEL.get(call.method)
        if apply is None:
            return
        reply = VERBS[call.method].reply.FromString(outcome.reply) if outcome.code == 0 else None
        try:
            apply(self, call.request, reply)
            expected = 0
            self._note_length(call, outcome)
        except Skip:
            return
        except OSError as error:
            expected = error.errno or errno.EIO
        if expected != outcome.code:
            raise Violation(
                "I20",
                f"{_shown(call)} ended with {outcome.code}, a POSIX tree says {expected}",
            )

    def _note_length(self, call: Call, outcome: Outcome) -> None:
        """I22: a length from before a truncate counts no more. The client that truncated is
        believed: it has forgotten what it wrote beyond."""
        if outcome.code != 0:
            return
        client, request = call.context.client, call.request
        truncates = call.method == pb.SETATTR and request.HasField("size")
        if truncates or (call.method == pb.OPEN and request.flags & os.O_TRUNC):
            self.cuts[request.inode] = self._loop.now_ns, client
        elif call.method in (pb.CLOSE, pb.SYNC) and self._grown:
            grown, self._grown = self._grown, 0
            cut_ns, by = self.cuts.get(request.inode, (0, client))
            if by != client and not self.grows(request.inode, grown, cut_ns):
                raise Violation(
                    "I22",
                    f"inode {request.inode} grows to {grown} again by what was written before "
                    f"{by!r} cut it at {cut_ns / 1e9:.3f} s",
                )

    # ---- what clients were told

    def answered(
        self,
        client: bytes,
        ids: list[int],
        method: int,
        began_ns: int,
        ended_ns: int,
        code: int | None,
        payload: Any,
    ) -> None:
        keys = [(client, number) for number in dict.fromkeys(ids)]
        applied = [key for key in keys if key in self._applied]
        name = VERBS[method].name
        if len(applied) > 1:
            raise Violation("I20", f"one {name} of {client!r} was applied {len(applied)} times")
        if code is None:
            return
        if applied and code != 0:
            raise Violation("I20", f"{name} of {client!r} was applied, and answered with {code}")
        if code == errno.EIO and self.may_fail:
            return
        stable = _stable(method, payload) if code == 0 else b""
        if any(
            began_ns <= outcome.at_ns <= ended_ns
            and (outcome.code, outcome.reply) == (code, stable)
            for key in keys
            for outcome in self._outcomes.get(key, ())
        ):
            return
        if VERBS[method].has_header and method not in (pb.KEEPALIVE,):
            raise Violation(
                "I24", f"{name} of {client!r} was answered with {code}, which it never came to"
            )

    # ---- the model's side of each verb

    def _node(self, inode: int) -> Node:
        node = self.nodes.get(inode)
        if node is None or (node.removed and node.kind != "dir"):
            raise Skip  # whether gc has taken it is not the model's business
        return node

    def _directory(self, inode: int) -> Node:
        node = self.nodes[inode]
        if node.removed:
            raise Skip
        return node

    def _adopt(self, reply: Any, inode: int, node: Node) -> None:
        if reply is None:
            return
        if inode in self.nodes:
            raise Violation("I20", f"inode id {inode} was used again")
        self.nodes[inode] = node

    def create(self, request: Any, reply: Any) -> None:
        directory = self._directory(request.parent)
        existing = directory.children.get(request.name)
        if existing is not None and request.open and not request.exclusive:
            if existing.kind == "dir":
                raise IsADirectoryError(errno.EISDIR, "create")
            if reply is not None and self.nodes.get(reply.attr.inode) is not existing:
                raise Violation(
                    "I17", f"create of {request.name!r} opened inode {reply.attr.inode}"
                )
            return
        node = self._model.create(directory, request.name)
        self._adopt(reply, reply.attr.inode if reply else 0, node)

    def mkdir(self, request: Any, reply: Any) -> None:
        node = self._model.mkdir(self._directory(request.parent), request.name)
        self._adopt(reply, reply.entry.attr.inode if reply else 0, node)

    def unlink(self, request: Any, reply: Any) -> None:
        node = self._model.unlink(self._directory(request.parent), request.name)
        if reply is not None and reply.last != node.removed:
            raise Violation("I17", f"unlink says last={reply.last}, the model {node.removed}")

    def rmdir(self, request: Any, reply: Any) -> None:
        self._model.rmdir(self._directory(request.parent), request.name)

    def link(self, request: Any, reply: Any) -> None:
        self._model.link(self._node(request.inode), self._directory(request.parent), request.name)

    def rename(self, request: Any, reply: Any) -> None:
        self._model.rename(
            self._directory(request.old_parent),
            request.old_name,
            self._directory(request.new_parent),
            request.new_name,
            request.flags,
        )

    def lookup(self, request: Any, reply: Any) -> None:
        node = self._model.lookup(self._directory(request.parent), request.name)
        attr = reply.entry.attr if reply is not None else None
        if attr is not None and self.nodes.get(attr.inode) is not node:
            raise Violation("I17", f"lookup of {request.name!r} gave inode {attr.inode}")
        if attr is not None and attr.nlink != node.nlink:
            raise Violation("I17", f"inode {attr.inode} has {attr.nlink} links, not {node.nlink}")

    def readdir(self, request: Any, reply: Any) -> None:
        node = self._directory(request.inode)
        if reply is not None and sorted(e.name for e in reply.entries) != sorted(node.children):
            raise Violation(
                "I19", f"directory {request.inode}: {reply.entries} and not {node.children}"
            )

    def setattr(self, request: Any, reply: Any) -> None:
        self._model.truncate(self._node(request.inode), request.size)

    def open(self, request: Any, reply: Any) -> None:
        node = self._node(request.inode)
        if node.kind == "file" and request.flags & os.O_TRUNC:
            self._model.truncate(node, 0)

    def settle(self, request: Any, reply: Any) -> None:
        """I22: what was written is within the length; a truncate may have cut it meanwhile."""
        node = self._node(request.inode)
        if reply is None or not request.wrote:
            return
        size = reply.attr.size
        if not node.size <= size <= max(node.size, request.written_end):
            raise Violation(
                "I22",
                f"inode {request.inode} settles at {size}, from {node.size} with "
                f"{request.written_end} written",
            )
        self._grown = size if size > node.size else 0
        node.size = size


class Skip(Exception):
    """The model has no opinion."""


MODEL: dict[int, Callable[[Oracle, Any, Any], None]] = {
    pb.CREATE: Oracle.create,
    pb.MKDIR: Oracle.mkdir,
    pb.UNLINK: Oracle.unlink,
    pb.RMDIR: Oracle.rmdir,
    pb.LINK: Oracle.link,
    pb.RENAME: Oracle.rename,
    pb.LOOKUP: Oracle.lookup,
    pb.READDIR: Oracle.readdir,
    pb.SETATTR: Oracle.setattr,
    pb.OPEN: Oracle.open,
    pb.CLOSE: Oracle.settle,
    pb.SYNC: Oracle.settle,
}


def _stable(method: int, body: bytes) -> bytes:
    """Without what is given out afresh each time."""
    reply: Any = VERBS[method].reply.FromString(body)
    entries = [getattr(reply, "entry", None), *getattr(reply, "entries", ())]
    for holder in (reply, *entries):
        if holder is None:
            continue
        for name in VOLATILE:
            if name in holder.DESCRIPTOR.fields_by_name:
                holder.ClearField(name)
    stable: bytes = reply.SerializeToString(deterministic=True)
    return stable


def _shown(call: Call) -> str:
    text = str(call.request).replace("\n", " ")
    return f"{call.verb.name} {call.request_id} of {call.context.client!r} ({text[-120:]})"
