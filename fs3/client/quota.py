"""Quotas as applications and commands see them; what they mean: fs3/meta/quota.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fs3._proto import meta_pb2

if TYPE_CHECKING:
    from fs3.client.calls import Operation
    from fs3.client.operations import Operations

__all__ = ["Owner", "Quota"]

Owner = Any  # a uid (int), or the path of a directory: the tree below it


@dataclass(frozen=True)
class Quota:
    """Of one user, or of the tree below a directory. Limits of 0 are none."""

    uid: int | None  # of a user
    inode: int | None  # of the directory of a tree; 0: it counts for no tree
    bytes_max: int
    inodes_max: int
    bytes: int
    inodes: int
    limited: bool  # somebody has set limits
    counting: bool  # not enforced yet: what was there before is not all counted

    @classmethod
    def of(cls, told: meta_pb2.Quota) -> "Quota":
        user = told.kind == meta_pb2.USER_QUOTA
        return cls(
            told.id if user else None,
            None if user else told.id,
            told.bytes_max,
            told.inodes_max,
            told.bytes,
            told.inodes,
            told.limited,
            told.counting,
        )


def count(
    operations: "Operations", top: int, tree: int, on_counted: Callable[[int], object]
) -> "Operation[None]":
    """Every inode below directory `top` counts for `tree` from now on (0: for none); top down."""
    waiting = [top]
    while waiting:
        directory, cookie, end = waiting.pop(), 0, False
        while not end:
            request = meta_pb2.CountQuotaRequest(directory=directory, cookie=cookie, tree=tree)
            reply = meta_pb2.CountQuotaReply.FromString(
                (yield operations.meta(meta_pb2.COUNT_QUOTA, request))
            )
            waiting += reply.directories
            cookie, end = reply.cookie, reply.end
            on_counted(reply.counted)
