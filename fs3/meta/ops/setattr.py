"""SETATTR: chmod, chown, utimens and truncate, any of them in one transaction.

All permissions are checked before anything changes: the request happens whole or not at all.
"""

import errno

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import acl, session, xattr
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request, refuse
from fs3.meta.inode import IMMUTABLE, Inode
from fs3.meta.permission import (
    WRITE,
    may_chown,
    mode_after_chmod,
    require,
    require_changeable,
    require_owner,
)
from fs3.meta.privileges import drop_privileges
from fs3.meta.truncate import truncate

TIME_NS_MAX = (1 << 63) - 1


def setattr_(
    txn: Transaction, request: meta_pb2.SetAttrRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "setattr")
    _check_mode_and_owner(inode, request, context)
    _check_times(inode, request, context)
    if request.HasField("size"):
        _check_truncate(txn, inode, request, context)
        truncate(txn, inode, request.size, context, "setattr")
    _apply(txn, inode, request, context)
    inodes.store(txn, inode)
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))


def _check_mode_and_owner(inode: Inode, request: meta_pb2.SetAttrRequest, context: Context) -> None:
    if any(map(request.HasField, ("mode", "uid", "gid"))):
        require_changeable(inode, "setattr")
    if request.HasField("mode"):
        if request.mode > 0o7777:
            raise bad_request("setattr", f"mode: {request.mode:o} has bits beyond 07777")
        require_owner(inode, context.caller, "setattr")
    uid = request.uid if request.HasField("uid") else None
    gid = request.gid if request.HasField("gid") else None
    if (uid, gid) != (None, None) and not may_chown(inode, context.caller, uid, gid):
        raise refuse(
            errno.EPERM,
            "setattr",
            f"uid {context.caller.uid} may not give inode {inode.number} to {uid}:{gid}",
        )


def _check_times(inode: Inode, request: meta_pb2.SetAttrRequest, context: Context) -> None:
    """Explicit times, and one time alone, are the owner's; "both now" needs only to write
    (touch)."""
    explicit = request.HasField("atime_ns") or request.HasField("mtime_ns")
    now = request.atime_now or request.mtime_now
    if not explicit and (not now or request.HasField("size")):
        return  # mtime_now beside a size belongs to the truncate
    if not explicit and request.atime_now and request.mtime_now:
        if inode.flags & IMMUTABLE:
            require_changeable(inode, "setattr")  # an append-only file may be touched
        if context.caller.uid != inode.uid:
            require(inode, context.caller, WRITE, "setattr")
        return
    require_changeable(inode, "setattr")
    require_owner(inode, context.caller, "setattr")


def _check_truncate(
    txn: Transaction, inode: Inode, request: meta_pb2.SetAttrRequest, context: Context
) -> None:
    """An open handle has been checked when it was opened; whatever the mode is now."""
    if inode.is_directory:
        raise refuse(errno.EISDIR, "setattr", f"inode {inode.number} is a directory")
    if inode.type != inodes.FILE:
        raise refuse(errno.EINVAL, "setattr", f"inode {inode.number} is no regular file")
    require_changeable(inode, "setattr")
    held = session.find(txn, inode.number, request.session) if request.session else None
    if held is None or held.client != context.client:
        require(inode, context.caller, WRITE, "setattr")


def _apply(
    txn: Transaction, inode: Inode, request: meta_pb2.SetAttrRequest, context: Context
) -> None:
    now_ns = context.now_ns
    if request.HasField("uid") or request.HasField("gid"):
        drop_privileges(txn, inode, context.caller)
        inode.uid = request.uid if request.HasField("uid") else inode.uid
        inode.gid = request.gid if request.HasField("gid") else inode.gid
    if request.HasField("mode"):
        inode.mode = mode_after_chmod(inode, context.caller, request.mode)
        if inode.acl is not None:
            xattr.store_acl(txn, inode, acl.ACCESS, inode.acl.chmod(request.mode))
    if request.HasField("atime_ns") or request.atime_now:
        inode.atime_ns = now_ns if request.atime_now else request.atime_ns
    if request.HasField("mtime_ns") or request.mtime_now:
        inode.mtime_ns = now_ns if request.mtime_now else request.mtime_ns
        inode.mtime_set_ns = 0 if request.HasField("size") else now_ns
    inode.ctime_ns = now_ns
