"""GET_QUOTA and LIST_QUOTAS. Everybody may look, as with quota(1) on most systems."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import inode as inodes
from fs3.meta import quota
from fs3.meta.context import Context
from fs3.meta.faults import bad_request
from fs3.meta.quota import TREE, USER, Account, Limit


def get_quota(
    txn: Transaction, request: meta_pb2.GetQuotaRequest, context: Context
) -> meta_pb2.QuotaReply:
    """Of a directory: the tree that it counts for."""
    account = account_of(request.kind, request.id)
    if account.kind == TREE:
        account = Account(TREE, inodes.load(txn, account.id, "get_quota").quota)
    return meta_pb2.QuotaReply(quota=describe(txn, account))


def list_quotas(
    txn: Transaction, request: meta_pb2.ListQuotasRequest, context: Context
) -> meta_pb2.ListQuotasReply:
    accounts = [account for account, _ in quota.limits(txn)]
    return meta_pb2.ListQuotasReply(quotas=[describe(txn, account) for account in accounts])


def account_of(kind: int, number: int) -> Account:
    if kind not in (USER, TREE):
        raise bad_request("quota", f"kind: {kind} is none")
    if kind == USER and not 0 < number < 1 << 32:
        raise bad_request("quota", f"id: {number}; root has no quota, and uids have 32 bits")
    return Account(kind, number)


def describe(txn: Transaction, account: Account) -> meta_pb2.Quota:
    found = quota.find_limit(txn, account)
    limit = found or Limit()
    used = quota.usage(txn, account)
    return meta_pb2.Quota(
        kind=account.kind,  # type: ignore[arg-type]
        id=account.id,
        bytes_max=limit.bytes,
        inodes_max=limit.inodes,
        bytes=used.bytes,
        inodes=used.inodes,
        counting=limit.counting,
        limited=found is not None,
    )
