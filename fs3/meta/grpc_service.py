"""Meta.Call over gRPC, for tools: the same methods, limits and transactions as over the native
RPC."""

import grpc

from fs3._proto import common_pb2, meta_service_pb2, meta_service_pb2_grpc
from fs3.auth.identity import Principal, Role
from fs3.errors import OutcomeUnknown, Status
from fs3.meta.call import Answer, Call, failure
from fs3.meta.service import MetaService, Waiter

__all__ = ["MetaServicer"]

WAIT_S_MAX = 60.0


class MetaServicer(meta_service_pb2_grpc.MetaServicer):  # type: ignore[misc]
    """Errors of the file system are replies with a status, not gRPC errors."""

    def __init__(self, service: MetaService) -> None:
        self._service = service

    def Call(
        self, request: meta_service_pb2.CallRequest, context: grpc.ServicerContext
    ) -> meta_service_pb2.CallReply:
        waiter = Waiter()
        principal = Principal(Role.CLIENT, False, None, 0, b"", context.peer())
        self._service.submit([Call(waiter, request.method, request.body, principal)])
        left_s = context.time_remaining()
        answer = waiter.wait(min(left_s if left_s is not None else WAIT_S_MAX, WAIT_S_MAX))
        if answer is None:
            late = OutcomeUnknown(
                Status.TIMED_OUT, "meta", "no answer in time; repeat with the same request id"
            )
            answer = failure(waiter, late)
        return _reply(answer)


def _reply(answer: Answer) -> meta_service_pb2.CallReply:
    body = answer.body
    if answer.status:
        detail = common_pb2.ErrorDetail(where=answer.where, detail=answer.detail)
        body = detail.SerializeToString()
    return meta_service_pb2.CallReply(status=answer.status, body=body)
