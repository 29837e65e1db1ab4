"""From the principal of a connection and what a request claims, to who is believed to ask.

- A *host* principal speaks for many users (a mount, a trusted network): its claims are taken.
- A *user* principal speaks for itself: uid and groups are the server's knowledge, whatever the
request says.

A peer on a Unix socket is known by its credentials: root and the user who runs the service are
hosts, everybody else is a user. A peer on TCP is a host as long as the service trusts its network
(`trust_network`); otherwise refused.
"""

import os
import pwd
from collections.abc import Callable

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.auth.identity import Principal
from fs3.errors import Denied, Status
from fs3.meta.permission import Caller

__all__ = ["IdentityPolicy", "local_groups"]

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


class IdentityPolicy:
    """Immutable; safe from any thread."""

    nobody = Caller(NOBODY, NOBODY)

    def __init__(
        self,
        *,
        service_uid: int,
        trust_network: bool = True,
        squash_root: bool = False,
        groups_of: GroupsOf = local_groups,
    ) -> None:
        self._hosts = frozenset((0, service_uid))
        self._trust_network = trust_network
        self._squash_root = squash_root
        self._groups_of = groups_of

    def caller(self, principal: Principal, claim: meta_pb2.Caller) -> Caller:
        """Raises Denied for a peer that nobody vouches for."""
        if principal.uid is not None and principal.uid not in self._hosts:
            return Caller(principal.uid, *self._groups_of(principal.uid))
        if principal.uid is None and not (self._trust_network or principal.authenticated):
            raise Denied(
                Status.CAPABILITY_DENIED,
                "meta/identity",
                f"{principal.address} is not authenticated and the network is not trusted",
            )
        if self._squash_root and claim.uid == 0:
            return self.nobody
        groups = claim.groups
        if not groups:
            return Caller(claim.uid, claim.gid)
        return Caller(claim.uid, claim.gid, frozenset(groups[: limits.GROUPS_MAX]))
