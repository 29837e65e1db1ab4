"""Who may believe what until when, and who has to be told first: leases that are recalled.

Pure: the time is an argument, messages are values. The rules, of which fs3/mount/README.md is the
reader's side:

1. A client that caches opens a *session* and keeps it by a WATCH call that is always on its way
   (watch.py). It ends SESSION_S after the last WATCH that came; the client counts the same time
   from before it sent it, so the client always stops believing first.
2. Within a session, each reply with attributes or a name *grants* a lease: the client may believe
   the one inode, or the one name in the one directory (there, or not there), for LEASE_S and no
   longer than its session.
3. A change of an inode or a name *recalls* the leases of all other sessions on it. Whoever asked
   for the change is answered when each of them has acknowledged, or its session has ended
   (`Barrier`). The recalled lease is over whatever comes; the session goes on.
4. Recalls of a session are numbered. A grant carries the number of the last one before it, so a
   client that learns of a recall knows which replies, still on their way, are older.
5. A session that leaves a recall unanswered for ANSWER_S is not prolonged: SESSION_S later it has
   ended. That bounds what a dead or stuck client costs one change; the next one it costs nothing.
6. A mount may outlive its client (fs3/mount/keeper.py): its kernel goes on believing what it was
   told. The next client *continues* the session of the one before: with what was granted in it, and
   with the recalls that were not acknowledged, which it is sent again.

Leases are per name, not per directory: who makes files of his own in a directory that many work in
disturbs nobody. The attributes of such a directory change all the time; what was recalled within
COOL_S is not granted anew, so each object costs at most one round of recalls a second.

Nothing of this is stored but which sessions there are (watch.py): after a restart the sessions of
the service before are taken to hold everything, until each has come back or has ended.

A store that several services share has no sessions: a change through one of them is not seen by
the others. There a lease is believed for SHARED_MS, and nothing is recalled.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from fs3 import limits
from fs3._proto import meta_pb2

__all__ = [
    "ANSWER_S",
    "HOLD_S",
    "LEASE_S",
    "SESSION_S",
    "Barrier",
    "Changes",
    "LeaseStatistics",
    "LeaseTable",
    "Recall",
]

SESSION_S = 5.0  # a dead client holds a change up for this long, once
GRACE_S = 0.5  # clocks of two hosts over SESSION_S, and the way of a WATCH through a busy service
HOLD_S = 1.5  # a WATCH is answered after this: three of them may get lost within a session
ANSWER_S = 2.0
LEASE_S = 60.0  # bounds what a client that forgets in silence leaves here
COOL_S = 1.0
SHARED_MS = 1000

Name = tuple[int, bytes]  # parent, name
_Thing = int | Name


class Recall(NamedTuple):
    """`inode`: its attributes. Or, with 0: `name` in `parent`."""

    inode: int = 0
    data_version: int = 0  # of the inode now
    parent: int = 0
    name: bytes = b""


class Changes(NamedTuple):
    """What a transaction has changed."""

    inodes: Mapping[int, Callable[[], int]]  # to what tells the data version, if it is needed
    names: AbstractSet[Name]
    # Directories that the request does not name: who sent it does not know that they changed.
    unasked: AbstractSet[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.inodes or self.names)


@dataclass(slots=True, eq=False)
class Barrier:
    """A change that others have not all acknowledged yet."""

    waits_for: int = 0  # sessions


@dataclass(slots=True, eq=False)
class _Sent:
    """What a session has to answer together."""

    sequence: int
    since_ns: int
    recalls: list[Recall]
    barriers: list[Barrier]


@dataclass(frozen=True)
class LeaseStatistics:
    sessions: int
    former: int
    rows: int
    granted: int
    recalled: int
    ended: int  # sessions that ended by time


@dataclass(slots=True, eq=False)
class _Session:
    client: bytes
    number: int  # 0: of the service before this one
    bit: int
    until_ns: int
    opened_by: int = 0  # request id: they grow
    sequence: int = 0  # of the newest recall
    prolonged: bool = True
    received: int = 0  # what the client has got, as far as is known; the rest is sent again
    unanswered: deque[_Sent] = field(default_factory=deque)

    def owes(self, now_ns: int) -> bool:
        """... an answer, for too long."""
        return bool(self.unanswered) and now_ns - self.unanswered[0].since_ns >= ANSWER_S * 1e9


class _Rows:
    """Holders by object, as bit sets of sessions."""

    def __init__(self) -> None:
        self.inodes: dict[int, int] = {}
        self.names: dict[int, dict[bytes, int]] = {}
        self.count = 0

    def add_inode(self, inode: int, bit: int) -> None:
        held = self.inodes.get(inode)
        self.count += held is None
        self.inodes[inode] = (held or 0) | bit

    def add_name(self, parent: int, name: bytes, bit: int) -> None:
        names = self.names.setdefault(parent, {})
        held = names.get(name)
        self.count += held is None
        names[name] = (held or 0) | bit

    def take_inode(self, inode: int, but: int) -> int:
        """Holders beside `but`, who are none any more."""
        held = self.inodes.get(inode, 0)
        if held & ~but:
            self.inodes[inode] = held & but
        return held & ~but

    def take_name(self, parent: int, name: bytes, but: int) -> int:
        names = self.names.get(parent)
        held = names.get(name, 0) if names else 0
        if names and held & ~but:
            names[name] = held & but
        return held & ~but


class LeaseTable:
    """Not thread-safe: guarded by the lock of the store. Memory is bounded by LEASE_ROWS_MAX: then
    nothing more is granted until rows are forgotten. They are forgotten by halves: two generations,
    each as long as a lease, and the older one is dropped whole."""

    def __init__(self, now_ns: int, *, shared: bool = False) -> None:
        self._shared = shared
        self._turned_ns = now_ns
        self._young, self._old = _Rows(), _Rows()
        self._sessions: dict[bytes, _Session] = {}
        self._by_bit: dict[int, _Session] = {}
        self._hot: dict[int, int] = {}  # inode -> until when it is not granted
        self._former: set[bytes] = set()  # clients whose session is of the service before
        self._owing: list[bytes] = []
        self._unacknowledged: dict[_Thing, dict[int, _Sent]] = {}  # by bit; the newest of a session
        self._opened: list[Barrier] = []
        self._granted = self._recalled = self._ended = 0

    # -- sessions ------------------------------------------------------------------------------

    def former(self, client: bytes, now_ns: int) -> None:
        """A session of the service before this one: nobody knows what it holds."""
        self._add(client, 0, now_ns)
        self._former.add(client)

    def open(
        self, client: bytes, number: int, request: int, now_ns: int, *, formerly: bytes = b""
    ) -> int:
        """The client believes nothing now: an earlier session of it is over. Returns the number of
        its session: `number`, or the one that the same request, repeated, has opened before. A
        request that is older than the session comes late: 0, and nothing happens.

        `formerly`: instead of believing nothing, it continues the session of that client; its own,
        when this one has continued it already and nobody has told it."""
        session = self._sessions.get(client)
        if session is not None and session.opened_by >= request:
            return session.number if session.opened_by == request else 0
        if formerly and session is None:
            session = self._sessions.get(formerly)
        # Nobody knows what a session of the service before holds: it ends by time.
        if formerly and session is not None and session.number:
            self._continue(session, client, number, now_ns).opened_by = request
            return number
        self.close(client)
        self._add(client, number, now_ns).opened_by = request
        return number

    def _continue(self, session: _Session, client: bytes, number: int, now_ns: int) -> _Session:
        """Everything that was granted stays, for its bit does; what was recalled and not answered
        is sent again, and the client has the whole time for it."""
        del self._sessions[session.client]
        self._sessions[client] = session
        session.client, session.number = client, number
        session.until_ns = now_ns + _SESSION_NS
        session.received, session.prolonged = 0, True
        for sent in session.unanswered:
            sent.since_ns = now_ns
        return session

    def close(self, client: bytes) -> bool:
        """The client believes nothing any more; True when it had a session."""
        session = self._sessions.pop(client, None)
        if session is None:
            return False
        del self._by_bit[session.bit]
        self._former.discard(client)
        while session.unanswered:
            self._acknowledged(session, session.unanswered.popleft())
        return True

    def watch(self, client: bytes, number: int, received: int, acked: int, now_ns: int) -> bool:
        """A WATCH came: True when the session is there. It lives on, unless it owes an answer."""
        session = self._find(client, number, now_ns)
        if session is None:
            return False
        self.acknowledge(client, number, acked, now_ns)
        session.received = received
        session.prolonged = not session.owes(now_ns)
        if session.prolonged:
            session.until_ns = now_ns + _SESSION_NS
        return True

    def acknowledge(self, client: bytes, number: int, acked: int, now_ns: int) -> None:
        session = self._find(client, number, now_ns)
        while session and session.unanswered and session.unanswered[0].sequence <= acked:
            self._acknowledged(session, session.unanswered.popleft())

    def prolonged(self, client: bytes) -> bool:
        """Whether the last WATCH did; its answer tells the client."""
        session = self._sessions.get(client)
        return session is not None and session.prolonged

    def knows(self, client: bytes, number: int) -> bool:
        session = self._sessions.get(client)
        return session is not None and bool(number) and session.number == number

    def has_session(self, client: bytes) -> bool:
        return client in self._sessions

    def take_owing(self) -> list[bytes]:
        """Clients that owe an answer since the last call."""
        owing, self._owing = self._owing, []
        return owing

    def take_recalls(self, client: bytes) -> tuple[list[Recall], int]:
        """What the client has not got yet, and the number of the last of them."""
        session = self._sessions[client]
        recalls = [
            recall
            for sent in session.unanswered
            if sent.sequence > session.received
            for recall in sent.recalls
        ]
        session.received = session.sequence
        return recalls, session.sequence

    def has_recalls(self, client: bytes) -> bool:
        session = self._sessions.get(client)
        return session is not None and session.sequence > session.received

    def expire(self, now_ns: int) -> list[bytes]:
        """Clients whose session has ended by time."""
        ended = [
            session.client
            for session in self._sessions.values()
            if now_ns > session.until_ns + _GRACE_NS
        ]
        for client in ended:
            self._ended += 1
            self.close(client)
        self._turn(now_ns)
        return ended

    def take_open_barriers(self) -> list[Barrier]:
        """Those that nothing holds up any more, since the last call."""
        opened, self._opened = self._opened, []
        return opened

    # -- grants --------------------------------------------------------------------------------

    def grant_inode(self, client: bytes, inode: int, now_ns: int) -> meta_pb2.Lease | None:
        session = self._may_hold(client, now_ns)
        if session is None or self._hot.get(inode, 0) > now_ns:
            return self._without_session()
        self._young.add_inode(inode, session.bit)
        return self._lease(session)

    def grant_name(
        self, client: bytes, parent: int, name: bytes, now_ns: int
    ) -> meta_pb2.Lease | None:
        session = self._may_hold(client, now_ns)
        if session is None:
            return self._without_session()
        self._young.add_name(parent, name, session.bit)
        return self._lease(session)

    # -- changes -------------------------------------------------------------------------------

    def change(self, client: bytes, changes: Changes, now_ns: int) -> Barrier | None:
        """After the commit: recalls from everybody but `client`, who knows (what he asked for).
        None when nobody has to be waited for."""
        own = self._sessions.get(client)
        owed: dict[int, list[Recall]] = {}

        def knowing(directory: int) -> int:
            return own.bit if own is not None and directory not in changes.unasked else 0

        for inode, data_version in changes.inodes.items():
            but = knowing(inode)
            held = self._young.take_inode(inode, but) | self._old.take_inode(inode, but)
            if held:
                self._hot[inode] = now_ns + int(COOL_S * 1e9)
                recall = Recall(inode, data_version())
                for bit in _bits(held):
                    owed.setdefault(bit, []).append(recall)
        for parent, name in changes.names:
            but = knowing(parent)
            held = self._young.take_name(parent, name, but) | self._old.take_name(parent, name, but)
            for bit in _bits(held):
                owed.setdefault(bit, []).append(Recall(parent=parent, name=name))
        barrier = self.wait_for_former(client, now_ns) if changes else Barrier()
        for inode in changes.inodes:
            self._wait_for_earlier(inode, barrier, knowing(inode))
        for changed in changes.names:
            self._wait_for_earlier(changed, barrier, knowing(changed[0]))
        for bit, recalls in owed.items():
            session = self._by_bit.get(bit)
            if session is not None and session.number:
                self._owe(session, recalls, barrier, now_ns)
        return barrier if barrier.waits_for else None

    def _wait_for_earlier(self, thing: _Thing, barrier: Barrier, but: int) -> None:
        """Whoever has not acknowledged an earlier recall may still believe what was before it."""
        for bit, sent in self._unacknowledged.get(thing, {}).items():
            if bit != but and barrier not in sent.barriers:
                sent.barriers.append(barrier)
                barrier.waits_for += 1

    def wait_for_former(self, client: bytes, now_ns: int) -> Barrier:
        """Of a change that the service before this one has made: whom it told is not known."""
        barrier = Barrier()
        for other in self._former:
            if other != client:
                self._owe(self._sessions[other], [], barrier, now_ns)
        return barrier

    def _owe(self, session: _Session, recalls: list[Recall], barrier: Barrier, now_ns: int) -> None:
        if now_ns > session.until_ns + _GRACE_NS:
            return
        session.sequence += 1
        self._owing.append(session.client)
        sent = _Sent(session.sequence, now_ns, recalls, [barrier])
        session.unanswered.append(sent)
        for recall in recalls:
            self._unacknowledged.setdefault(_thing(recall), {})[session.bit] = sent
        barrier.waits_for += 1
        self._recalled += len(recalls)

    def holds_inode(self, client: bytes, inode: int) -> bool:
        return bool(self._bit(client) & self._held(inode))

    def holds_name(self, client: bytes, parent: int, name: bytes) -> bool:
        rows = (self._young, self._old)
        held = [each.names.get(parent, {}).get(name, 0) for each in rows]
        return bool(self._bit(client) & (held[0] | held[1]))

    def statistics(self) -> LeaseStatistics:
        return LeaseStatistics(
            sessions=len(self._sessions),
            former=len(self._former),
            rows=self._young.count + self._old.count,
            granted=self._granted,
            recalled=self._recalled,
            ended=self._ended,
        )

    # -- parts ---------------------------------------------------------------------------------

    def _add(self, client: bytes, number: int, now_ns: int) -> _Session:
        """A bit that a session had before brings its holdings along: recalls too many, which no
        client minds."""
        bit = 1
        while bit in self._by_bit:
            bit <<= 1
        session = _Session(client, number, bit, now_ns + _SESSION_NS)
        self._sessions[client] = self._by_bit[bit] = session
        return session

    def _find(self, client: bytes, number: int, now_ns: int) -> _Session | None:
        session = self._sessions.get(client)
        if session is None or not number or session.number != number:
            return None
        return session if now_ns <= session.until_ns + _GRACE_NS else None

    def _may_hold(self, client: bytes, now_ns: int) -> _Session | None:
        session = self._sessions.get(client)
        if session is None or not session.number or now_ns > session.until_ns:
            return None
        full = self._young.count + self._old.count >= limits.LEASE_ROWS_MAX
        return None if full else session

    def _lease(self, session: _Session) -> meta_pb2.Lease:
        self._granted += 1
        return meta_pb2.Lease(
            id=session.number, ttl_ms=int(LEASE_S * 1000), sequence=session.sequence
        )

    def _without_session(self) -> meta_pb2.Lease | None:
        return meta_pb2.Lease(ttl_ms=SHARED_MS) if self._shared else None

    def _acknowledged(self, session: _Session, sent: _Sent) -> None:
        for recall in sent.recalls:
            owing = self._unacknowledged.get(_thing(recall))
            if owing is not None and owing.get(session.bit) is sent:
                del owing[session.bit]
                if not owing:
                    del self._unacknowledged[_thing(recall)]
        for barrier in sent.barriers:
            barrier.waits_for -= 1
            if not barrier.waits_for:
                self._opened.append(barrier)

    def _turn(self, now_ns: int) -> None:
        """Everything in the older generation was granted more than a lease ago."""
        if now_ns - self._turned_ns > LEASE_S * 1e9:
            self._old, self._young = self._young, _Rows()
            self._turned_ns = now_ns
        self._hot = {inode: until for inode, until in self._hot.items() if until > now_ns}

    def _bit(self, client: bytes) -> int:
        session = self._sessions.get(client)
        return session.bit if session is not None else 0

    def _held(self, inode: int) -> int:
        return self._young.inodes.get(inode, 0) | self._old.inodes.get(inode, 0)


_SESSION_NS = int(SESSION_S * 1e9)
_GRACE_NS = int(GRACE_S * 1e9)


def _thing(recall: Recall) -> _Thing:
    return recall.inode or (recall.parent, recall.name)


def _bits(held: int) -> Iterator[int]:
    while held:
        bit = held & -held
        yield bit
        held ^= bit
