"""GET_ROUTING: the newest routing info that the service has, when the client's is older."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta.context import Context


def get_routing(
    txn: Transaction, request: meta_pb2.GetRoutingRequest, context: Context
) -> meta_pb2.GetRoutingReply:
    routing = context.env.layouts.routing
    if request.known_version and request.known_version >= routing.version:
        return meta_pb2.GetRoutingReply()
    return meta_pb2.GetRoutingReply(routing=routing)
