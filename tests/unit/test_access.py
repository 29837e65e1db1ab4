"""gRPC access: deny by default, every method has a row, plain text stays on the host."""

from types import SimpleNamespace
from typing import Any

import pytest

from fs3._proto import mgmtd_pb2
from fs3.auth.access import ANYBODY, SERVERS, AccessInterceptor, current_principal, plaintext
from fs3.auth.identity import Principal, Role
from fs3.mgmtd.service import ACCESS


def test_every_method_has_a_row() -> None:
    methods = {m.name for m in mgmtd_pb2.DESCRIPTOR.services_by_name["Mgmtd"].methods}
    assert set(ACCESS) == methods


def test_clients_may_only_look_and_extend_their_session() -> None:
    open_to_clients = {method for method, roles in ACCESS.items() if Role.CLIENT in roles}
    assert open_to_clients == {"WatchRouting", "Status", "ExtendClientSession"}


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:50000", True),
        ("ipv4:127.8.0.1:1", True),
        ("ipv6:[::1]:50000", True),
        ("ipv6:%5B::1%5D:50000", True),
        ("unix:/run/fs3.sock", True),
        ("ipv4:10.0.0.7:50000", False),
        ("ipv6:[fe80::1]:50000", False),
        ("ipv4:127.0.0.1.example:5", False),
        ("ipv4:999.0.0.1:5", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_plain_text_is_for_this_host(peer: str, local: bool) -> None:
    assert (plaintext(beyond_this_host=False)(peer) is not None) == local
    assert plaintext(beyond_this_host=True)(peer) is not None


class Aborted(Exception):
    pass


class Context:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def abort(self, code: Any, detail: str) -> None:
        raise Aborted(detail)


def call(table: dict[str, frozenset[Role]], principal: Principal | None, method: str) -> Any:
    def handler(request: object, context: object) -> Principal:
        return current_principal()

    inner = SimpleNamespace(
        unary_unary=handler, unary_stream=None, request_deserializer=None, response_serializer=None
    )
    interceptor = AccessInterceptor(table, lambda peer: principal)
    details = SimpleNamespace(method=f"/fs3.Service/{method}")
    wrapped = interceptor.intercept_service(lambda _: inner, details)  # type: ignore[arg-type]
    return wrapped.unary_unary(None, Context("ipv4:10.0.0.7:1"))


def somebody(role: Role) -> Principal:
    return Principal(role, True, None, 7, b"i" * 16, "ipv4:10.0.0.7:1")


def test_the_table_decides() -> None:
    table = {"Register": SERVERS, "Status": ANYBODY}
    for role in Role:
        assert call(table, somebody(role), "Status") == somebody(role)
    assert call(table, somebody(Role.STORAGE), "Register").node_id == 7
    with pytest.raises(Aborted, match="Register is not for role client"):
        call(table, somebody(Role.CLIENT), "Register")
    with pytest.raises(Aborted, match="insecure-network"):
        call(table, None, "Status")


def test_a_method_without_a_row_is_for_nobody() -> None:
    with pytest.raises(Aborted, match="Other is not for"):
        call({"Status": ANYBODY}, somebody(Role.MGMTD), "Other")
