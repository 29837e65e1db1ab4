"""The managers of a cluster as their callers see them: several addresses, one of which is primary.

A standby refuses with UNAVAILABLE, so finding the primary is asking round; whoever did not answer
at all (stopped, or its host is gone) is asked again only after AVOID_S, because such a question
costs its whole time-out. Within a lease there is time for one of those and many refusals.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from fs3._proto import mgmtd_pb2_grpc
from fs3.errors import BadRequest, OutcomeUnknown, Status
from fs3.limits import GRPC_MESSAGE_BYTES_MAX
from fs3.runtime.clock import Clock

__all__ = ["Managers", "call_reason", "open_channel"]

T = TypeVar("T")

RETRY_S = 0.1
AVOID_S = 2.0
ADDRESSES_MAX = 16

# Reconnect in tens of milliseconds: grpc's own default grows to minutes, a lease lasts seconds.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel to "host:port" with the time-outs of a lease. Without credentials: plain text."""
    if credentials is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


class Managers:
    """`addresses`: "host:port", several with commas. Thread-safe.

    Invariant: `_now` is the address that is asked next; it changes only when it failed.
    """

    def __init__(
        self, addresses: str, *, clock: Clock, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        parts = [part.strip() for part in addresses.split(",") if part.strip()]
        self._addresses = list(dict.fromkeys(parts))
        if not 1 <= len(self._addresses) <= ADDRESSES_MAX:
            detail = f"mgmtd: {addresses!r}: 1 to {ADDRESSES_MAX} addresses HOST:PORT with commas"
            raise BadRequest(Status.BAD_REQUEST, "managers", detail)
        self._clock = clock
        self._credentials = credentials
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._avoid_until_ns: dict[str, int] = {}
        self._now = self._addresses[0]
        self._closed = False

    def __str__(self) -> str:
        return ",".join(self._addresses)

    @property
    def address(self) -> str:
        """Where the next call goes."""
        return self._now

    def stub(self, address: str) -> Any:
        with self._lock:
            channel = self._channels.get(address)
            if channel is None:
                if self._closed:
                    raise ValueError("closed")
                channel = self._channels[address] = open_channel(address, self._credentials)
        return mgmtd_pb2_grpc.MgmtdStub(channel)

    def call(self, function: Callable[[Any], T]) -> T:
        """`function(stub)` with the manager of the moment; after a failure that another one may
        not have, the next call goes to the next one. Raises grpc.RpcError."""
        address = self._now
        try:
            return function(self.stub(address))
        except grpc.RpcError as error:
            self.failed(address, error.code())
            raise

    def ask(self, function: Callable[[Any], T], *, timeout_s: float, what: str) -> T:
        """As call(), until one answers as primary. Raises OutcomeUnknown when none did in time,
        grpc.RpcError when one refused."""
        until_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            try:
                return self.call(function)
            except grpc.RpcError as error:
                if error.code() not in ELSEWHERE:
                    raise
                if self._clock.monotonic_ns() >= until_ns:
                    detail = f"no cluster manager answers at {self} in {timeout_s:g} s "
                    detail += f"({call_reason(error)}); is it running?"
                    raise OutcomeUnknown(Status.TIMED_OUT, what, detail) from None
            self._clock.sleep(RETRY_S)

    def failed(self, address: str, code: grpc.StatusCode | None) -> None:
        """`address` did not answer as primary."""
        if code not in ELSEWHERE:
            return
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if code in SILENT:
                self._avoid_until_ns[address] = now_ns + int(AVOID_S * 1e9)
            if self._now == address:
                self._now = self._next(now_ns)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def _next(self, now_ns: int) -> str:
        """The one behind the present one that is not avoided, else simply the one behind."""
        at = self._addresses.index(self._now)
        others = self._addresses[at + 1 :] + self._addresses[: at + 1]
        for address in others:
            if self._avoid_until_ns.get(address, 0) <= now_ns:
                return address
        return others[0]


# What another manager may answer, or the same one in a moment; and what means: no answer at all.
# A stream that its owner gave up counts as silent.
SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
ELSEWHERE = (grpc.StatusCode.UNAVAILABLE, *SILENT)


def call_reason(error: grpc.RpcError) -> str:
    return f"{error.code().name.lower()}: {error.details()}"
