"""Trash: what is removed from a directory that keeps it is moved aside for a while.

    /.trash/1000/20261205T18/report.pdf#81234
            |    |           |          the number of its inode
            |    |           the name that it had, cut when it is too long
            |    the hour in which it goes for good, UTC; 20261205T1807 what is kept for less than a
            |    day
            uid of who removed it; only he looks in there

Ordinary directories and ordinary entries: whoever removed something moves it back with mv, or for
good with rm, or lets `fs3 trash` do it. A directory keeps what is removed when its attribute
`user.fs3.trash` names a time ("7d"; "0" is no time); directories made in it begin with the same.
Kept is what would be gone: the last name of an inode, by unlink, rmdir, as what a rename replaces,
or a whole tree removed recursively. `system.fs3.removed_from` of the inode tells where it was: the
inode of the directory, a space, and the name. In the trash itself nothing is kept.

Until the last entry is gone the space counts for whose it was. trash_cleaner.py ends it.
"""

import errno

from fs3 import limits
from fs3.kv.api import Transaction
from fs3.meta import birth, dirent, xattr
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import Inode
from fs3.trash import KEEPS, REMOVED_FROM, ROOT_NAME, Bucket, duration_s
from fs3.types import ROOT_INODE

__all__ = ["NEW_DIRECTORIES", "keep"]

NEW_DIRECTORIES = 3  # that one removal may make: the trash, the user's part of it, the hour


def keep(txn: Transaction, directory: Inode, name: bytes, inode: Inode, context: Context) -> bool:
    """`name` was taken out of `directory`. When that was the last name of `inode`, and the
    directory keeps such things, it goes to the trash, is stored so, and this is True. Otherwise
    nothing happens, and the caller drops the link. REQUIRES: the caller has stored all directories
    that it changed; the root may change here."""
    if not inode.is_directory and inode.nlink > 1:
        return False
    keep_s = _keep_s(txn, directory)
    if not keep_s or _is_in_trash(txn, directory):
        return False
    _put(txn, directory, name, inode, keep_s, context)
    return True


def _keep_s(txn: Transaction, directory: Inode) -> int:
    if not directory.flags & xattr.KEEPS_TRASH:
        return 0
    return duration_s(xattr.find(txn, directory, KEEPS) or b"0")


def _is_in_trash(txn: Transaction, directory: Inode) -> bool:
    trash = dirent.find(txn, ROOT_INODE, ROOT_NAME)
    at = directory
    for _ in range(limits.DIRECTORY_DEPTH_MAX if trash is not None else 0):
        if at.number == trash.inode:  # type: ignore[union-attr]
            return True
        if at.number == ROOT_INODE or at.nlink == 0:
            return False
        at = inodes.load_directory(txn, at.parent, "trash")
    return False


def _put(
    txn: Transaction, directory: Inode, name: bytes, inode: Inode, keep_s: int, context: Context
) -> None:
    bucket = _bucket(txn, keep_s, context)
    suffix = b"#%d" % inode.number
    kept_as = name[: limits.NAME_BYTES_MAX - len(suffix)] + suffix
    dirent.store(txn, bucket.number, kept_as, inode.number, inode.type)
    xattr.store(txn, inode, REMOVED_FROM, b"%d %s" % (directory.number, name))
    inode.ctime_ns = context.now_ns
    if inode.is_directory:
        inode.parent = bucket.number
        bucket.add_subdirectories(1)
        inodes.store(txn, bucket)
    inodes.store(txn, inode)


def _bucket(txn: Transaction, keep_s: int, context: Context) -> Inode:
    """For what this caller removes now. Its times do not follow what is put there, so that those
    who remove at the same time do not wait for each other."""
    uid = context.caller.uid
    root = inodes.load_directory(txn, ROOT_INODE, "trash")
    trash = _directory(txn, root, ROOT_NAME, 0, 0o755, context)
    own = _directory(txn, trash, b"%d" % uid, uid, 0o700, context)
    name = Bucket.of(context.now_ns // 10**9, keep_s).name
    return _directory(txn, own, name, uid, 0o700, context)


def _directory(
    txn: Transaction, parent: Inode, name: bytes, uid: int, mode: int, context: Context
) -> Inode:
    """It is there, or is made. Somebody else's under that name gets nothing of this caller's."""
    known = dirent.find(txn, parent.number, name)
    if known is None:
        owner = (uid, context.caller.gid if uid else 0)
        number = context.new_inode()
        return birth.make_reserved(txn, parent, name, number, owner, mode, context.now_ns)
    inode = inodes.load(txn, known.inode, "trash")
    if not inode.is_directory or inode.uid != uid or inode.mode & 0o022:
        detail = (
            f"{name!r} in directory {parent.number}, where removed things are kept, is not a "
            f"directory that only uid {uid} may change; nothing was removed; "
            "move it away, or clear user.fs3.trash of the directory that you remove from"
        )
        raise refuse(errno.EPERM, "trash", detail)
    return inode
