"""KEEPALIVE: the client is alive, keeps its sessions, and reads these inodes."""

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta.clients import PERIOD_MS
from fs3.meta.context import Context
from fs3.meta.faults import bad_request


def keepalive(
    txn: Transaction, request: meta_pb2.KeepaliveRequest, context: Context
) -> meta_pb2.KeepaliveReply:
    if len(context.client) != 16:
        raise bad_request("keepalive", "header.client_id: 16 bytes are needed")
    if len(request.open_inodes) > limits.KEEPALIVE_INODES_MAX:
        raise bad_request("keepalive", f"open_inodes: {len(request.open_inodes)} inodes")
    context.env.clients.keepalive(context.client, request.open_inodes)
    return meta_pb2.KeepaliveReply(
        period_ms=PERIOD_MS, routing_version=context.env.layouts.routing.version
    )
