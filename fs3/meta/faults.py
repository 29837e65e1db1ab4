"""Refusals by errno, in one short call."""

import errno

from fs3.errors import BadRequest, Refused, Status

__all__ = ["bad_request", "refuse"]


def refuse(number: int, where: str, detail: str) -> Refused:
    """`raise refuse(errno.ENOENT, "lookup", "no entry b'x' in inode 1")`."""
    return Refused(number, f"meta/{where}", detail)


def bad_request(where: str, detail: str) -> BadRequest:
    """`detail` begins with the name of the field."""
    return BadRequest(Status.BAD_REQUEST, f"meta/{where}", detail)


def no_inode(where: str, number: int) -> Refused:
    return refuse(errno.ENOENT, where, f"inode {number} does not exist")
