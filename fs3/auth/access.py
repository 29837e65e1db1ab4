"""Who may call which gRPC method: one table per service, denied when a method has no row.

    interceptor ── authenticate(context) ──> Principal ── table[method] ──> handler, or
    PERMISSION_DENIED

Without TLS nothing is proved but that a peer is on this host: such a peer may act in every role,
and a peer on another host in none, unless the operator said so.
"""

import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from fs3.auth.identity import Principal, Role, host_of

__all__ = ["ANYBODY", "SERVERS", "AccessInterceptor", "current_principal", "plaintext"]

log = logging.getLogger(__name__)

Roles = frozenset[Role]
ANYBODY: Roles = frozenset(Role)
SERVERS: Roles = frozenset({Role.STORAGE, Role.META, Role.MGMTD})

_current: contextvars.ContextVar[Principal] = contextvars.ContextVar("fs3-principal")


def current_principal() -> Principal:
    """Of the request that this thread handles. LookupError outside of one."""
    return _current.get()


def plaintext(*, beyond_this_host: bool) -> Callable[[str], Principal | None]:
    """Authentication of peers without TLS, by their address; None: nobody."""

    def authenticate(peer: str) -> Principal | None:
        if not (beyond_this_host or _is_local(peer)):
            return None
        return Principal(
            role=Role.MGMTD,
            authenticated=False,
            uid=None,
            node_id=0,
            instance_id=bytes(16),
            address=peer,
        )

    return authenticate


class AccessInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    """Runs before every handler. `table`: method name without its service -> roles."""

    def __init__(
        self, table: Mapping[str, Roles], authenticate: Callable[[str], Principal | None]
    ) -> None:
        self._table = table
        self._authenticate = authenticate

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        method = details.method.rpartition("/")[2]
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return None  # no service of ours takes streams of requests

    def _unary(self, method: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self._admit(method, context)
            return inner(request, context)

        return call

    def _stream(self, method: str, inner: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._admit(method, context)
            yield from inner(request, context)

        return call

    def _admit(self, method: str, context: grpc.ServicerContext) -> None:
        peer = context.peer()
        principal = self._authenticate(peer)
        if principal is not None and principal.role in self._table.get(method, frozenset()):
            _current.set(principal)
            return
        who = (
            "an unknown peer" if principal is None else f"role {Role(principal.role).name.lower()}"
        )
        log.warning("denied %s to %s at %s", method, who, peer)
        detail = f"{method} is not for {who} at {peer}"
        if principal is None:
            detail += "; plain text is for this host only (serve --insecure-network allows it)"
        context.abort(grpc.StatusCode.PERMISSION_DENIED, detail)


def _is_local(peer: str) -> bool:
    host = host_of(peer)
    return host is not None and host.is_loopback
