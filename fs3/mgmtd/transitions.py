"""The target state table: public state x what the server says x situation -> next public state.

Data, and one pure function that reads it. Rows are tried in order; the first that fits decides.
Every row has an id; each transition of a running cluster carries the id of its row, and the tests
require each row executed.

Why these rows keep acknowledged bytes:
  A  Only a target that holds every acknowledged write is made SERVING: at the birth of a chain
     (F1), when its resync ended (Y1), when the last one that served is back (L1).
  B  When nobody would serve, exactly one target becomes LASTSRV (S3); nobody else may serve before
     it returned.
  C  A target leaves SERVING at once only when its server cannot answer any more: the process or its
     lease is gone (S6), or the server itself stopped serving it and said so (S4, S5).
  D  A live server's target that is to leave for another reason becomes SYNCING first (S1): it keeps
     every write and stops reads. Writes of that version need its answer, so none is acknowledged
     before it knows. It goes OFFLINE once it reported that version (Y2), or is gone (Y3).
     One that syncs and said so under this version serves nobody: it may step back at once (Y6, Y7).
"""

import enum
from dataclasses import dataclass

__all__ = ["TABLE", "Belief", "Public", "Row", "Situation", "next_row"]


class Public(enum.IntEnum):
    """What mgmtd decides; the numbers of fs3.proto.TargetState."""

    SERVING = 1
    LASTSRV = 2
    SYNCING = 3
    WAITING = 4
    OFFLINE = 5


class Belief(enum.Enum):
    """What mgmtd may believe of the target's server, from reports, leases and exits."""

    UPTODATE = "up to date"  # reported under the current chain version
    ONLINE = "online"  # disk is fine, content may be behind
    SILENT = "silent"  # alive, but no report under the current chain version yet
    FAILED = "failed"  # the server closed the target, lost its disk, or does not have it
    LOST = "lost"  # the process is gone or its lease ended


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rest of the chain decides for this target in this event."""

    forming: bool = False  # the chain never served
    complete: bool = False  # forming, and every disk of the chain is present and empty
    others_serve: bool = False  # another target of the chain serves after this event
    chosen_last: bool = False  # nobody serves after this event, and this one is to wait as LASTSRV
    sync_turn: bool = False  # somebody serves, nobody else syncs, and this one is the next in line
    leave_turn: bool = False  # others serve and nobody syncs, so this one may begin to leave
    leaving: bool = False  # it is to go: an operator wants it out, or a neighbour cannot reach it
    gives_way: bool = False  # a serving one that a neighbour cannot reach waits to leave


@dataclass(frozen=True, slots=True)
class Row:
    """None in a condition: does not matter."""

    id: str
    public: Public
    beliefs: frozenset[Belief]
    next: Public
    reason: str
    forming: bool | None = False
    complete: bool | None = None
    others_serve: bool | None = None
    chosen_last: bool | None = None
    sync_turn: bool | None = None
    leave_turn: bool | None = None
    leaving: bool | None = None
    gives_way: bool | None = None

    def fits(self, public: Public, belief: Belief, situation: Situation) -> bool:
        return (
            self.public is public
            and belief in self.beliefs
            and all(getattr(self, name) in (None, getattr(situation, name)) for name in _CONDITIONS)
        )


_CONDITIONS = (
    "forming",
    "complete",
    "others_serve",
    "chosen_last",
    "sync_turn",
    "leave_turn",
    "leaving",
    "gives_way",
)

ANY = frozenset(Belief)
HOLDS = frozenset({Belief.UPTODATE, Belief.SILENT})  # nothing says that it stopped serving
PRESENT = frozenset({Belief.UPTODATE, Belief.ONLINE})
BEHIND = frozenset({Belief.ONLINE})
FAILED = frozenset({Belief.FAILED})
LOST = frozenset({Belief.LOST})
SILENT = frozenset({Belief.SILENT})
UPTODATE = frozenset({Belief.UPTODATE})

_P = Public
# fmt: off
TABLE: tuple[Row, ...] = (
    # A chain that never served.
    Row("F1", _P.OFFLINE, PRESENT, _P.SERVING,
        "new chain: every disk is present and empty", forming=True, complete=True),
    Row("F2", _P.OFFLINE, ANY, _P.OFFLINE,
        "new chain: waits until every disk is present and empty", forming=True),

    # SERVING
    Row("S0", _P.SERVING, HOLDS, _P.SERVING, "serves", leaving=False),
    Row("S1", _P.SERVING, HOLDS, _P.SYNCING,
        "leaves: reads stop first", leaving=True, leave_turn=True),
    Row("S2", _P.SERVING, HOLDS, _P.SERVING,
        "is to leave, but is the only copy or another one syncs", leaving=True),
    Row("S3", _P.SERVING, ANY - HOLDS, _P.LASTSRV,
        "the last that served is gone", chosen_last=True),
    Row("S4", _P.SERVING, BEHIND, _P.OFFLINE, "its server says that it is behind"),
    Row("S5", _P.SERVING, FAILED, _P.OFFLINE, "its server closed it"),
    Row("S6", _P.SERVING, LOST, _P.OFFLINE, "its server is gone"),

    # LASTSRV
    Row("L1", _P.LASTSRV, UPTODATE, _P.SERVING,
        "the last that served is back, with its pending versions committed"),
    Row("L2", _P.LASTSRV, ANY, _P.LASTSRV, "the chain waits for this one"),

    # SYNCING
    Row("Y1", _P.SYNCING, UPTODATE, _P.SERVING, "resync done", leaving=False),
    Row("Y2", _P.SYNCING, PRESENT, _P.OFFLINE,
        "left: its server knows that it no longer serves", leaving=True),
    Row("Y3", _P.SYNCING, FAILED | LOST, _P.OFFLINE, "lost while syncing"),
    Row("Y4", _P.SYNCING, SILENT, _P.SYNCING, "leaves: waits until its server knows", leaving=True),
    Row("Y7", _P.SYNCING, BEHIND, _P.WAITING,
        "lets one go first that a neighbour cannot reach", leaving=False, gives_way=True),
    Row("Y5", _P.SYNCING, BEHIND | SILENT, _P.SYNCING, "syncs", leaving=False, others_serve=True),
    Row("Y6", _P.SYNCING, BEHIND, _P.WAITING,
        "nobody to sync from", leaving=False, others_serve=False),
    Row("Y8", _P.SYNCING, SILENT, _P.SYNCING,
        "nobody to sync from: waits until its server knows", leaving=False, others_serve=False),

    # WAITING
    Row("W1", _P.WAITING, FAILED | LOST, _P.OFFLINE, "lost while waiting"),
    Row("W2", _P.WAITING, ANY, _P.OFFLINE, "left", leaving=True),
    Row("W3", _P.WAITING, PRESENT, _P.SYNCING, "its turn to sync", sync_turn=True),
    Row("W4", _P.WAITING, PRESENT | SILENT, _P.WAITING, "waits for its turn to sync"),

    # OFFLINE
    Row("O1", _P.OFFLINE, ANY, _P.OFFLINE, "left", leaving=True),
    Row("O2", _P.OFFLINE, PRESENT, _P.SYNCING, "is back, and syncs at once", sync_turn=True),
    Row("O3", _P.OFFLINE, PRESENT, _P.WAITING, "is back, waits for its turn to sync"),
    Row("O4", _P.OFFLINE, FAILED | LOST | SILENT, _P.OFFLINE, "is not back"),
)
# fmt: on


def next_row(public: Public, belief: Belief, situation: Situation) -> Row:
    """The row that decides; its `next` is the new state.

    >>> next_row(Public.SERVING, Belief.LOST, Situation(others_serve=True)).id
    'S6'
    """
    for row in TABLE:
        if row.fits(public, belief, situation):
            return row
    raise AssertionError(f"no row for {public.name}, {belief.name}, {situation}")
