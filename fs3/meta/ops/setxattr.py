"""SETXATTR. An access ACL sets the nine bits of the mode too; one that says no more than they do
is not kept."""

import errno

from fs3 import limits, trash
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import acl, xattr
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request, refuse
from fs3.meta.inode import Inode
from fs3.meta.namespaces import is_acl, no_attribute, require_change
from fs3.meta.permission import mode_after_chmod

CREATE, REPLACE = 1, 2


def setxattr(
    txn: Transaction, request: meta_pb2.SetXattrRequest, context: Context
) -> meta_pb2.AttrReply:
    inode = inodes.load(txn, request.inode, "setxattr")
    name, value = request.name, request.value
    if request.flags & ~(CREATE | REPLACE):
        raise bad_request("setxattr", f"flags: {request.flags:#x} has bits beyond 3")
    if len(value) > limits.XATTR_VALUE_BYTES_MAX:
        raise refuse(errno.E2BIG, "setxattr", f"value: {len(value)} bytes, at most 65536")
    require_change(inode, name, context.caller, "setxattr")
    if is_acl(name):
        set_acl(txn, inode, name, _decode(value), context)
    else:
        _check_trash(inode, name, value)
        _check_flags(inode, name, request.flags, xattr.find(txn, inode, name) is not None)
        _check_room(inode, xattr.sizes(txn, inode) | {name: len(value)})
        xattr.store(txn, inode, name, value)
    inode.ctime_ns = context.now_ns
    inodes.store(txn, inode)
    return meta_pb2.AttrReply(attr=inode.attr(), lease=context.lease(inode.number))


def set_acl(
    txn: Transaction, inode: Inode, name: bytes, value: acl.Acl | None, context: Context
) -> None:
    """Changes `inode` (the caller stores it). None removes the ACL; the mode stays as it is."""
    if name == acl.DEFAULT and not inode.is_directory:
        if value is None:
            return
        raise refuse(errno.EACCES, "setxattr", "name: only a directory has a default ACL")
    if name == acl.ACCESS and value is not None:
        # As by chmod: who is not in the group of the file does not keep its setgid.
        mode = inode.mode & ~0o777 | value.mode()
        inode.mode = mode_after_chmod(inode, context.caller, mode)
        if value.is_mode:
            value = None
    xattr.store_acl(txn, inode, name, value)


def _decode(value: bytes) -> acl.Acl | None:
    try:
        return acl.decode(value)
    except acl.BadAcl as error:
        raise refuse(errno.EINVAL, "setxattr", str(error)) from None


def _check_trash(inode: Inode, name: bytes, value: bytes) -> None:
    if name != trash.KEEPS:
        return
    if not inode.is_directory:
        raise refuse(errno.EINVAL, "setxattr", f"name: only a directory has {name!r}")
    try:
        trash.duration_s(value)
    except ValueError as error:
        raise refuse(errno.EINVAL, "setxattr", f"value: {error}") from None


def _check_flags(inode: Inode, name: bytes, flags: int, exists: bool) -> None:
    if exists and flags & CREATE:
        raise refuse(errno.EEXIST, "setxattr", f"inode {inode.number} has {name!r} already")
    if not exists and flags & REPLACE:
        raise no_attribute(inode, name, "setxattr")


def _check_room(inode: Inode, sizes: dict[bytes, int]) -> None:
    """`sizes`: of the values by name, as they would be. A list that cannot be read whole by
    listxattr(2) is not begun."""
    names_bytes = sum(len(name) + 1 for name in sizes)
    if (
        len(sizes) > limits.XATTRS_PER_INODE_MAX
        or names_bytes > limits.XATTR_NAMES_BYTES_MAX
        or names_bytes + sum(sizes.values()) > limits.XATTRS_BYTES_MAX
    ):
        detail = (
            f"inode {inode.number} would have {len(sizes)} attributes, {names_bytes} bytes of "
            f"names, {sum(sizes.values())} of values; remove some"
        )
        raise refuse(errno.ENOSPC, "setxattr", detail)
