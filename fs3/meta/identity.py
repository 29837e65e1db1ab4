"""From the principal of a connection and what a request claims, to who is believed to ask.

- A *host* principal speaks for many users (a mount): its claims are taken as far as its rule goes.
- A *user* principal speaks for itself: uid and groups are the server's knowledge, whatever the
request says.

A peer on a Unix socket is known by its credentials: root and the user who runs the service are
hosts without bounds, everybody else is a user. A peer on TCP is a host by the first rule whose
network it is in, and refused when there is none. A rule says for which users it may speak, and
whether its root is the root of the file system; whoever it may not speak for is nobody.
"""

import ipaddress
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.auth.identity import Principal, host_of
from fs3.errors import BadRequest, Denied, Status
from fs3.meta.permission import Caller

__all__ = ["ANY_HOST", "HostRule", "IdentityPolicy", "local_groups"]

UID_MAX = (1 << 32) - 2  # the largest number is "no user" in chown(2)
NOBODY = 65534

GroupsOf = Callable[[int], tuple[int, frozenset[int]]]


def local_groups(uid: int) -> tuple[int, frozenset[int]]:
    """(gid, supplementary groups) of a user of this machine."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return NOBODY, frozenset()
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return entry.pw_gid, frozenset(groups[: limits.GROUPS_MAX])


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class HostRule:
    """As it is written: "10.1.0.0/16", "10.1.0.7 admin", "10.0.0.0/8 uids=1000-59999"."""

    network: Network
    admin: bool = False  # its uid 0 is root
    uids: range = range(1, UID_MAX + 1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadRequest naming what is wrong."""
        network, *words = text.split()
        admin, uids = False, cls.uids
        try:
            for word in words:
                if word == "admin":
                    admin = True
                else:
                    low, high = word.removeprefix("uids=").split("-")
                    uids = range(max(int(low), 1), min(int(high), UID_MAX) + 1)
            return cls(ipaddress.ip_network(network), admin, uids)
        except ValueError as error:
            detail = f"host {text!r}: {error}; write NETWORK [admin] [uids=LOW-HIGH]"
            raise BadRequest(Status.BAD_REQUEST, "meta/identity", detail) from None

    def covers(self, address: str) -> bool:
        """`address`: as the transport tells it."""
        host = host_of(address)
        return host is not None and host in self.network

    def caller(self, claim: meta_pb2.Caller) -> Caller:
        if claim.uid not in self.uids and not (claim.uid == 0 and self.admin):
            return IdentityPolicy.nobody
        groups = frozenset(claim.groups[: limits.GROUPS_MAX])
        if self.admin:
            return Caller(claim.uid, claim.gid, groups)
        # The group of root is root's as well.
        return Caller(claim.uid, claim.gid or NOBODY, groups - {0})


ANY_HOST = tuple(
    HostRule(ipaddress.ip_network(network), admin=True) for network in ("0.0.0.0/0", "::/0")
)


class IdentityPolicy:
    """Immutable; safe from any thread."""

    nobody = Caller(NOBODY, NOBODY)

    def __init__(
        self,
        *,
        service_uid: int,
        hosts: Sequence[HostRule] = ANY_HOST,
        groups_of: GroupsOf = local_groups,
    ) -> None:
        self._trusted = frozenset((0, service_uid))
        self._hosts = tuple(hosts)
        self._groups_of = groups_of

    def caller(self, principal: Principal, claim: meta_pb2.Caller) -> Caller:
        """Raises Denied for a peer that nobody vouches for."""
        if principal.uid is not None:
            if principal.uid not in self._trusted:
                return Caller(principal.uid, *self._groups_of(principal.uid))
            return Caller(claim.uid, claim.gid, frozenset(claim.groups[: limits.GROUPS_MAX]))
        for rule in self._hosts:
            if rule.covers(principal.address):
                return rule.caller(claim)
        detail = f"{principal.address} is in no network that may speak for users; see --hosts"
        raise Denied(Status.CAPABILITY_DENIED, "meta/identity", detail)
