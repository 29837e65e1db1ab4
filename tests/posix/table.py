"""A table per system call; a row is one call in one situation.

    # who    setup                              action        result    effects
    ("all",  "dir d; file d/f 644 alice hello", "unlink d/f", "ok",     "-d/f; d touched"),

who      root, alice, bob, several of them, users (alice bob) or all: the row is run once for each
setup    words of root (or "bob: ..."), which must succeed, or "WORDS -> RESULT". "me" is whoever
         acts. Each run has an empty directory of its own: everybody works in it, mode 777, of root
action   the call
result   "ok" (any value), a value, or an errno; alternatives with |
effects  all that it changed (snapshot.py), and questions afterwards: "? alice: stat f size -> 5".
         A call that fails has none: nothing may have changed
differs  optional: Differs for a file system that does it in another way, with the reason

Words: words.py. How arguments are written: text.py. In setup and questions, "start alice: WORDS"
does not wait for the answer, "waits alice" says whether she still waits, "end alice" gives it.
"""

import dataclasses
import re

__all__ = ["Case", "Differs", "Table", "table"]

PEOPLE = {"all": "root alice bob", "users": "alice bob"}


@dataclasses.dataclass(frozen=True)
class Differs:
    """On that file system (ext4, tmpfs, fs3), this result and these effects, and why."""

    system: str
    result: str
    effects: str
    why: str


@dataclasses.dataclass(frozen=True)
class Case:
    call: str
    row: int
    who: str
    setup: str
    action: str
    result: str
    effects: str
    differs: tuple[Differs, ...]

    def on(self, system: str) -> "Case":
        """As that file system does it."""
        for one in self.differs:
            if one.system == system:
                return dataclasses.replace(self, result=one.result, effects=one.effects)
        return self

    def __str__(self) -> str:
        return f"{self.call}: {self.who}: {self.action} -> {self.result}"


@dataclasses.dataclass(frozen=True)
class Table:
    call: str
    cases: tuple[Case, ...]


def table(call: str, *rows: tuple[str | Differs, ...]) -> Table:
    """A case for each row and each of the people in it."""
    return Table(
        call, tuple(case for number, row in enumerate(rows) for case in _cases(call, number, row))
    )


def _cases(call: str, number: int, row: tuple[str | Differs, ...]) -> list[Case]:
    differs = tuple(one for one in row if isinstance(one, Differs))
    who, setup, action, result, *rest = (one for one in row if isinstance(one, str))
    effects = rest[0] if rest else ""
    return [
        Case(
            call, number, one, _of(one, setup), _of(one, action), result, _of(one, effects), differs
        )
        for one in PEOPLE.get(who, who).split()
    ]


def _of(who: str, text: str) -> str:
    """me in a row is whoever acts."""
    return re.sub(r"\bme\b", who, text)


def steps(text: str) -> list[str]:
    return [step.strip() for step in text.split(";") if step.strip()]
