"""The access check algorithm of acl(5), step by step as the page lists it, and what it says about
default ACLs and the mode.

An ACL is a dict from ("user", id or None), ("group", id or None), "mask" and "other" to a set of
letters; None is the owner, or the owning group. Written from the page, with none of the code under
test; the two places where Linux goes its own way say so.
"""

from permission_oracle import File, User


def letters(digit: int) -> frozenset[str]:
    return frozenset(letter for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if digit // bit % 2)


def digit(granted: frozenset[str]) -> int:
    return sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in granted)


def allows(acl: dict, file: File, user: User, wanted: set[str]) -> bool:
    """For a user who is not root."""
    mask = acl.get("mask", frozenset("rwx"))
    # 1. the owner
    if user.uid == file.uid:
        return wanted <= acl["user", None]
    # Linux: a group class without any permission is decided by the mode alone.
    if not (acl["mask"] if "mask" in acl else acl["group", None]):
        if file.gid in user.groups:
            return not wanted
        return wanted <= acl["other"]
    # 2. a named user
    if ("user", user.uid) in acl:
        return wanted <= acl["user", user.uid] & mask
    # 3. the group class
    matching = []
    if file.gid in user.groups:
        matching.append(acl["group", None])
    matching += [acl["group", gid] for gid in user.groups if ("group", gid) in acl]
    if matching:
        return any(wanted <= granted & mask for granted in matching)
    # 4. others
    return wanted <= acl["other"]


def mode(acl: dict) -> int:
    group = acl["mask"] if "mask" in acl else acl["group", None]
    return digit(acl["user", None]) * 64 + digit(group) * 8 + digit(acl["other"])


def after_chmod(acl: dict, mode: int) -> dict:
    changed = dict(acl)
    changed["user", None] = letters(mode // 64 % 8)
    changed["mask" if "mask" in acl else ("group", None)] = letters(mode // 8 % 8)
    changed["other"] = letters(mode % 8)
    return changed


def child(default: dict, mode: int) -> dict:
    """The access ACL of what is made in a directory with this default ACL: the permissions that
    both the ACL and the mode parameter have, for the three entries that correspond to it."""
    made = dict(default)
    made["user", None] = default["user", None] & letters(mode // 64 % 8)
    group = "mask" if "mask" in default else ("group", None)
    made[group] = default[group] & letters(mode // 8 % 8)
    made["other"] = default["other"] & letters(mode % 8)
    return made
