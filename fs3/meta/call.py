"""One request on its way through the service, and its answer."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from fs3.auth.identity import Principal
from fs3.errors import BadRequest, Fs3Error, Status
from fs3.meta.context import Context, Environment
from fs3.meta.faults import bad_request
from fs3.meta.identity import IdentityPolicy
from fs3.meta.ops import VERBS, Verb

__all__ = ["Answer", "Call", "failure"]

CLIENT_ID_BYTES = 16


class Answer(NamedTuple):
    """As the native server takes it."""

    token: Any  # what the transport knows the call by
    status: int  # fs3.StatusCode
    where: str
    detail: str
    body: bytes  # the reply when status is 0


@dataclass(slots=True)
class Call:
    """The first five come from the transport; prepare() fills in the rest."""

    token: Any
    method: int
    body: bytes
    principal: Principal
    capability: bytes = b""  # for CHECK and REPAIR; operations of clients are judged by the caller
    verb: Verb = field(init=False)
    request: Any = field(init=False)
    context: Context = field(init=False)
    request_id: int = 0
    mutates: bool = False
    parked_ns: int = 0  # monotonic; when it began to wait for something

    @property
    def name(self) -> str:
        """Also before prepare()."""
        verb = VERBS.get(self.method)
        return verb.name if verb is not None else f"method {self.method:#x}"

    def prepare(self, env: Environment, identity: IdentityPolicy, now_ns: int) -> None:
        """Decodes and checks what every request has. Raises BadRequest or Denied."""
        verb = VERBS.get(self.method)
        if verb is None:
            raise BadRequest(
                Status.UNKNOWN_METHOD, "meta", f"method: {self.method:#x} is not of this service"
            )
        try:
            request: Any = verb.request.FromString(self.body)
        except DecodeError as error:
            raise bad_request(verb.name, f"body: {error}") from None
        self.verb = verb
        self.request = request
        self.mutates = verb.mutates(request)
        client = b""
        if verb.has_header:
            header = request.header
            client = header.client_id
            self.request_id = header.request_id
            caller = identity.caller(self.principal, header.caller)
            self.context = Context(env, caller, client, header.umask & 0o777, now_ns)
        else:
            self.context = Context(env, identity.nobody, client, 0, now_ns)
        if client and len(client) != CLIENT_ID_BYTES:
            raise bad_request(verb.name, f"header.client_id: {len(client)} bytes, 16 are needed")
        if self.mutates and not (client and self.request_id):
            raise bad_request(
                verb.name, "header.request_id: a change needs it, and client_id, to happen once"
            )


def failure(token: Any, error: Fs3Error) -> Answer:
    return Answer(token, error.code, error.where, error.detail, b"")
