"""POSIX access control lists: the layout of the attribute, and the rules as pure functions.

    value   le32 version 2, then for each entry le16 tag, le16 permissions, le32 id
            (<linux/posix_acl_xattr.h>; id 0xffffffff where the tag needs none)
    order   owner, named users, group, named groups, mask, others; a mask when anybody is named

An access ACL refines the group class of the mode: owner and others are the mode's own bits, the
group bits are the mask, an upper bound for the group and everybody named. So mode and ACL say the
same about three entries, and whoever changes one changes the other (chmod, equivalent). The rules
are those of acl(5) and, where that is silent, of Linux; the oracle is tests/unit/acl_oracle.py.
"""

import struct
from collections.abc import Collection
from typing import NamedTuple

from fs3 import limits

__all__ = ["ACCESS", "DEFAULT", "Acl", "BadAcl", "Entry", "decode"]

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


class BadAcl(ValueError):
    """The text names the field."""


class Entry(NamedTuple):
    tag: int
    permissions: int  # r 4, w 2, x 1
    id: int = NO_ID  # uid of USER, gid of GROUP


class Acl(NamedTuple):
    """Valid: made by decode() or from another one."""

    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in self.entries)

    def allows(self, uid: int, groups: Collection[int], owning_group: int, want: int) -> bool:
        """For anybody but the owner and root. The first matching user decides; else one of the
        matching groups has to grant all of it; else what others may."""
        mask = self._find(MASK)
        bound = mask.permissions if mask is not None else 7
        for entry in self.entries:
            if entry.tag == USER and entry.id == uid:
                return entry.permissions & bound & want == want
        matching = [
            entry.permissions
            for entry in self.entries
            if (entry.tag == GROUP_OBJ and owning_group in groups)
            or (entry.tag == GROUP and entry.id in groups)
        ]
        if matching:
            granting = [granted for granted in matching if granted & want == want]
            return bool(granting) and bound & want == want
        return self._one(OTHER).permissions & want == want

    def mode(self) -> int:
        """The nine bits that a file with this access ACL has."""
        return (
            self._one(USER_OBJ).permissions << 6
            | self._group_class().permissions << 3
            | self._one(OTHER).permissions
        )

    @property
    def is_mode(self) -> bool:
        """It says nothing beyond the nine bits: a file needs no ACL for it."""
        return len(self.entries) == 3

    def chmod(self, mode: int) -> "Acl":
        """With the classes of the mode; what is granted by name stays, and the mask bounds it."""
        return self._with_classes(mode >> 6 & 7, mode >> 3 & 7, mode & 7)

    def inherited(self, mode: int) -> tuple[int, "Acl"]:
        """As the default ACL of a directory, for a child that is made with `mode` (no umask): the
        child's mode, and its access ACL."""
        owner = self._one(USER_OBJ).permissions & mode >> 6
        group = self._group_class().permissions & mode >> 3
        others = self._one(OTHER).permissions & mode
        nine = owner << 6 | group << 3 | others
        return mode & ~0o777 | nine, self._with_classes(owner, group, others)

    def _with_classes(self, owner: int, group: int, others: int) -> "Acl":
        changed = {USER_OBJ: owner, self._group_class().tag: group, OTHER: others}
        return Acl(
            tuple(
                entry._replace(permissions=changed.get(entry.tag, entry.permissions))
                for entry in self.entries
            )
        )

    def _group_class(self) -> Entry:
        """The entry that the group bits of the mode stand for."""
        return self._find(MASK) or self._one(GROUP_OBJ)

    def _find(self, tag: int) -> Entry | None:
        return next((entry for entry in self.entries if entry.tag == tag), None)

    def _one(self, tag: int) -> Entry:
        found = self._find(tag)
        assert found is not None, "decode() lets no ACL without it pass"
        return found


def decode(value: bytes) -> Acl | None:
    """None: an ACL without entries, which means that there is none. Raises BadAcl."""
    if not value:
        return None
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise BadAcl(f"value: {len(value)} bytes are no ACL")
    (version,) = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise BadAcl(f"version: {version}, not {_VERSION}")
    if (len(value) - _HEADER.size) // _ENTRY.size > limits.ACL_ENTRIES_MAX:
        raise BadAcl(f"value: more than {limits.ACL_ENTRIES_MAX} entries")
    entries = tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEADER.size :]))
    if not entries:
        return None
    _check(entries)
    return Acl(tuple(e if e.tag in (USER, GROUP) else e._replace(id=NO_ID) for e in entries))


def _check(entries: tuple[Entry, ...]) -> None:
    tags = [entry.tag for entry in entries]
    for entry in entries:
        if entry.permissions > 7:
            raise BadAcl(f"permissions: {entry.permissions:#x}")
        if entry.tag in (USER, GROUP) and entry.id == NO_ID:
            raise BadAcl("id: a named entry needs one")
    order = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)
    if not set(tags) <= set(order) or tags != sorted(tags):  # their numbers are in that order
        raise BadAcl("tag: unknown, or out of order")
    if any(tags.count(tag) != 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) or tags.count(MASK) > 1:
        raise BadAcl("tag: owner, group and others are there once each, the mask at most once")
    if (USER in tags or GROUP in tags) and MASK not in tags:
        raise BadAcl("tag: named entries need a mask")
