"""SET_QUOTA and COUNT_QUOTA: limits of a user, or of the tree below a directory. By root.

A directory that has a limit of its own for the first time becomes the top of a tree, `counting`:
what is made below it counts for it from then on, and what is there already does when COUNT_QUOTA
has come by, page after page, top down (the client walks; a walk that was broken off is begun
again, and pages that counted already are cheap). Names cannot leave or enter the counted part, so
nothing is missed. Then the tree is `counted`, and its limits bind. Clearing goes the other way.
"""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent, quota
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import bad_request, refuse
from fs3.meta.inode import Inode
from fs3.meta.ops.get_quota import account_of, describe
from fs3.meta.quota import TREE, Account, Limit
from fs3.types import ROOT_INODE


def set_quota(
    txn: Transaction, request: meta_pb2.SetQuotaRequest, context: Context
) -> meta_pb2.QuotaReply:
    _require_root(context, "set_quota")
    account = account_of(request.kind, request.id)
    before = quota.find_limit(txn, account)
    if request.clear:
        if account.kind == TREE:
            _leave(txn, account)
        quota.store_limit(txn, account, None)
    else:
        counting = account.kind == TREE and _counting(txn, account, before, request.counted)
        limit = Limit(request.bytes_max, request.inodes_max, counting)
        quota.store_limit(txn, account, limit)
        context.env.limited.add(account)
    return meta_pb2.QuotaReply(quota=describe(txn, account))


def _counting(txn: Transaction, account: Account, before: Limit | None, counted: bool) -> bool:
    """Makes the directory the top of a tree when it is none. True: its content is to be counted."""
    top = inodes.load_directory(txn, account.id, "set_quota")
    if top.number == ROOT_INODE:
        detail = "the root directory is no tree of its own: df shows the whole file system"
        raise refuse(errno.EINVAL, "set_quota", detail)
    if top.quota not in (0, top.number):
        detail = f"directory {top.number} is below one with a quota, inode {top.quota}"
        raise refuse(errno.EINVAL, "set_quota", detail)
    if top.quota == 0:
        top.quota = top.number
        inodes.store(txn, top)
        return not dirent.is_empty(txn, top.number)
    return not counted and (before is None or before.counting)


def _leave(txn: Transaction, account: Account) -> None:
    top = inodes.load_directory(txn, account.id, "set_quota")
    if top.quota != top.number:
        raise refuse(errno.ENOENT, "set_quota", f"directory {top.number} has no quota")
    top.quota = 0
    inodes.store(txn, top)


def count_quota(
    txn: Transaction, request: meta_pb2.CountQuotaRequest, context: Context
) -> meta_pb2.CountQuotaReply:
    _require_root(context, "count_quota")
    directory = inodes.load_directory(txn, request.directory, "count_quota")
    if directory.quota != request.tree:
        detail = f"directory {directory.number} does not count for tree {request.tree}"
        raise bad_request("count_quota", f"tree: {detail}")
    size = limits.QUOTA_ENTRIES_PER_STEP
    page = dirent.listing(txn, directory.number, request.cookie, size)
    reply = meta_pb2.CountQuotaReply(end=len(page) < size)
    for entry in page:
        inode = inodes.find(txn, entry.inode)
        if inode is None or inode.quota == inode.number:
            continue  # the top of another tree: it keeps to itself
        if _count(txn, inode, request.tree):
            reply.counted += 1
        if inode.is_directory:
            reply.directories.append(inode.number)
    reply.cookie = page[-1].order if page else request.cookie
    return reply


def _count(txn: Transaction, inode: Inode, tree: int) -> bool:
    if inode.quota == tree:
        return False
    inode.quota = tree
    inodes.store(txn, inode)
    return True


def _require_root(context: Context, where: str) -> None:
    if not context.caller.is_root:
        raise refuse(errno.EPERM, where, "quotas are the administrator's to set")
