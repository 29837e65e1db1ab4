"""Mode strings of open(), as in the io module."""

import os
from dataclasses import dataclass

__all__ = ["Mode", "mode_of_flags", "parse_mode"]


@dataclass(frozen=True)
class Mode:
    """`flags` are os.O_*; `text` says that the caller wants str."""

    flags: int
    text: bool
    name: str  # normalized, binary: "rb+", "wb", ...


def parse_mode(mode: str) -> Mode:
    """Raises ValueError.

    >>> parse_mode("x").flags == os.O_WRONLY | os.O_CREAT | os.O_EXCL
    True
    """
    letters = set(mode)
    if letters - set("rwaxbt+") or len(mode) != len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    kinds = letters & set("rwax")
    if len(kinds) != 1:
        raise ValueError(f"mode must have exactly one of r, w, a, x: {mode!r}")
    if {"b", "t"} <= letters:
        raise ValueError(f"mode cannot be both binary and text: {mode!r}")
    kind = kinds.pop()
    plus = "+" in letters
    flags = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "a": os.O_CREAT | os.O_APPEND,
        "x": os.O_CREAT | os.O_EXCL,
    }[kind]
    access = os.O_RDWR if plus else os.O_RDONLY if kind == "r" else os.O_WRONLY
    return Mode(flags | access, "b" not in letters, kind + "b" + ("+" if plus else ""))


def mode_of_flags(flags: int) -> Mode:
    """Of an open with the flags of os.open.

    >>> mode_of_flags(os.O_RDWR | os.O_CREAT).name
    'rb+'
    """
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY:
        return Mode(flags, False, "rb")
    letter = "a" if flags & os.O_APPEND else "w"
    if access == os.O_WRONLY:
        return Mode(flags, False, letter + "b")
    return Mode(flags, False, ("a" if letter == "a" else "r") + "b+")
