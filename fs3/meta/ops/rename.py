"""RENAME, with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT. The order of the
checks is Linux's.

1. both directories searched, source exists             ENOENT EACCES ENOTDIR
2. NOREPLACE, EXCHANGE against the target's existence   EEXIST ENOENT
3. no directory into itself                             EINVAL (ENOTEMPTY the other way round)
4. both names are the same inode                        nothing happens
5. no name crosses the border of a quota tree           EXDEV
6. may the names be taken away and given                EACCES EPERM ENOTDIR EISDIR
7. an empty directory only is replaced                  ENOTEMPTY
"""

import errno
from dataclasses import dataclass

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, garbage, trash
from fs3.meta import inode as inodes
from fs3.meta.birth import make_child
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import CHAR_DEVICE, Inode
from fs3.meta.permission import EXECUTE, WRITE, Caller, require, require_removal
from fs3.runtime.failpoint import failpoint
from fs3.types import ROOT_INODE

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


@dataclass(slots=True)
class _Rename:
    """The two ends. When both are in one directory, old_directory is new_directory."""

    old_directory: Inode
    new_directory: Inode
    old_name: bytes
    new_name: bytes
    source: Inode
    target: Inode | None

    @property
    def crosses(self) -> bool:
        return self.old_directory is not self.new_directory


def rename(
    txn: Transaction, request: meta_pb2.RenameRequest, context: Context
) -> meta_pb2.RenameReply:
    flags = request.flags
    if flags & ~(NOREPLACE | EXCHANGE | WHITEOUT) or (flags & EXCHANGE and flags != EXCHANGE):
        raise refuse(errno.EINVAL, "rename", f"flags: {flags:#x}")
    ends = _load(txn, request, context.caller)
    if ends.target is not None and flags & NOREPLACE:
        raise refuse(errno.EEXIST, "rename", f"{ends.new_name!r} exists")
    if ends.target is None and flags & EXCHANGE:
        raise refuse(errno.ENOENT, "rename", f"no entry {ends.new_name!r} to exchange with")
    _refuse_loops(txn, ends, bool(flags & EXCHANGE))
    if ends.target is not None and ends.target.number == ends.source.number:
        return meta_pb2.RenameReply(entry=context.entry(ends.source))
    _refuse_borders(ends, bool(flags & EXCHANGE))
    if flags & EXCHANGE:
        return _exchange(txn, ends, context)
    return _move(txn, ends, context, whiteout=bool(flags & WHITEOUT))


def _load(txn: Transaction, request: meta_pb2.RenameRequest, caller: Caller) -> _Rename:
    old_directory = inodes.load_directory(txn, request.old_parent, "rename")
    new_directory = old_directory
    if request.new_parent != request.old_parent:
        new_directory = inodes.load_directory(txn, request.new_parent, "rename")
    require(old_directory, caller, EXECUTE, "rename")
    require(new_directory, caller, EXECUTE, "rename")
    dirent.check_name(request.old_name, "rename")
    dirent.check_name(request.new_name, "rename")
    source = dirent.load(txn, request.old_parent, request.old_name, "rename")
    target = dirent.find(txn, request.new_parent, request.new_name)
    return _Rename(
        old_directory,
        new_directory,
        request.old_name,
        request.new_name,
        inodes.load(txn, source.inode, "rename"),
        inodes.load(txn, target.inode, "rename") if target is not None else None,
    )


def _refuse_loops(txn: Transaction, ends: _Rename, exchange: bool) -> None:
    if not ends.crosses:
        return
    if ends.source.is_directory and _is_above(txn, ends.source, ends.new_directory):
        raise refuse(errno.EINVAL, "rename", f"{ends.old_name!r} cannot go into itself")
    target = ends.target
    if target is not None and target.is_directory and _is_above(txn, target, ends.old_directory):
        number = errno.EINVAL if exchange else errno.ENOTEMPTY
        raise refuse(number, "rename", f"{ends.new_name!r} holds {ends.old_name!r}")


def _refuse_borders(ends: _Rename, exchange: bool) -> None:
    """As XFS with project quotas: mv copies instead. The top of a tree stays where it is."""
    crossing = [(ends.source, ends.new_directory)]
    if exchange and ends.target is not None:
        crossing.append((ends.target, ends.old_directory))
    for inode, directory in crossing if ends.crosses else []:
        if inode.quota != directory.quota:
            detail = f"inode {inode.number} counts for another quota than {directory.number}"
            raise refuse(errno.EXDEV, "rename", detail)


def _is_above(txn: Transaction, ancestor: Inode, directory: Inode) -> bool:
    """True when `directory` is `ancestor` or lies below it."""
    at = directory
    for _ in range(limits.DIRECTORY_DEPTH_MAX):
        if at.number == ancestor.number:
            return True
        if at.number == ROOT_INODE or at.nlink == 0:
            return False
        at = inodes.load_directory(txn, at.parent, "rename")
    detail = f"directory {directory.number} is deeper than {limits.DIRECTORY_DEPTH_MAX} levels"
    raise refuse(errno.ELOOP, "rename", detail)


def _move(
    txn: Transaction, ends: _Rename, context: Context, *, whiteout: bool
) -> meta_pb2.RenameReply:
    caller, now_ns = context.caller, context.now_ns
    source, target = ends.source, ends.target
    require_removal(ends.old_directory, source, caller, "rename")
    if target is None:
        require(ends.new_directory, caller, WRITE | EXECUTE, "rename")
        if ends.new_directory.nlink == 0:
            raise refuse(errno.ENOENT, "rename", "the new directory was removed")
    else:
        require_removal(ends.new_directory, target, caller, "rename")
        _require_same_kind(source, target)
    _require_parent_change(ends, source, caller)
    if target is not None and target.is_directory and not dirent.is_empty(txn, target.number):
        raise refuse(errno.ENOTEMPTY, "rename", f"{ends.new_name!r} has entries")

    dirent.remove(txn, ends.old_directory.number, ends.old_name)
    dirent.store(txn, ends.new_directory.number, ends.new_name, source.number, source.type)
    failpoint("rename.entries_moved")
    if source.is_directory:
        ends.old_directory.add_subdirectories(-1)
        ends.new_directory.add_subdirectories(1)
        source.parent = ends.new_directory.number
    reply = meta_pb2.RenameReply()
    if target is not None:
        ends.new_directory.add_subdirectories(-target.is_directory)
    source.ctime_ns = now_ns
    inodes.store(txn, source)
    _store_directories(txn, ends, now_ns)
    if whiteout:
        _leave_whiteout(txn, ends, context)
    if target is not None:
        kept = trash.keep(txn, ends.new_directory, ends.new_name, target, context)
        reply.replaced_inode = target.number
        reply.replaced_last = not kept and garbage.drop_link(txn, target, now_ns)
    reply.entry.CopyFrom(context.entry(source))
    return reply


def _leave_whiteout(txn: Transaction, ends: _Rename, context: Context) -> None:
    """At the old name a character device 0:0, by which an overlay knows that the name is gone."""
    mark = make_child(txn, ends.old_directory, ends.old_name, CHAR_DEVICE, 0, context, "rename")
    inodes.store(txn, mark)


def _exchange(txn: Transaction, ends: _Rename, context: Context) -> meta_pb2.RenameReply:
    caller, now_ns = context.caller, context.now_ns
    source, target = ends.source, ends.target
    assert target is not None
    require_removal(ends.old_directory, source, caller, "rename")
    require_removal(ends.new_directory, target, caller, "rename")
    _require_parent_change(ends, source, caller)
    _require_parent_change(ends, target, caller)
    old, new = ends.old_directory, ends.new_directory
    dirent.store(txn, old.number, ends.old_name, target.number, target.type)
    dirent.store(txn, new.number, ends.new_name, source.number, source.type)
    old.add_subdirectories(target.is_directory - source.is_directory)
    new.add_subdirectories(source.is_directory - target.is_directory)
    for inode, directory in ((source, new), (target, old)):
        if inode.is_directory:
            inode.parent = directory.number
        inode.ctime_ns = now_ns
        inodes.store(txn, inode)
    _store_directories(txn, ends, now_ns)
    return meta_pb2.RenameReply(entry=context.entry(source))


def _require_same_kind(source: Inode, target: Inode) -> None:
    if source.is_directory and not target.is_directory:
        raise refuse(errno.ENOTDIR, "rename", "a directory replaces directories only")
    if target.is_directory and not source.is_directory:
        raise refuse(errno.EISDIR, "rename", "a directory is replaced by directories only")


def _require_parent_change(ends: _Rename, inode: Inode, caller: Caller) -> None:
    """A directory that gets another ".." is written to."""
    if inode.is_directory and ends.crosses:
        require(inode, caller, WRITE, "rename")


def _store_directories(txn: Transaction, ends: _Rename, now_ns: int) -> None:
    ends.new_directory.touch(now_ns)
    inodes.store(txn, ends.new_directory)
    if ends.crosses:
        ends.old_directory.touch(now_ns)
        inodes.store(txn, ends.old_directory)
