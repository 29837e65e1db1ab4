"""Every mutating request, sent again with the same request id: applied once, answered the same."""

import errno
import os

import pytest
from meta_world import PRINCIPAL

from fs3._proto import meta_pb2 as pb
from fs3.kv import keys
from fs3.kv.api import KEY_END
from fs3.meta.call import Call
from fs3.meta.idempotency import GENERATION_S
from fs3.meta.ops import VERBS


def prepare(world):
    """A tree with something for each operation to change."""
    world.d = world.mkdir(b"d")
    world.mkdir(b"empty")
    world.mkdir(b"below", world.mkdir(b"full"))
    world.top = world.mkdir(b"top")
    world.mkdir(b"counted", world.top)
    world.call(pb.SET_QUOTA, kind=pb.TREE_QUOTA, id=world.top)
    world.f = world.write_file(b"f", 5000)
    world.g = world.write_file(b"g", 100)
    world.call(pb.SETXATTR, inode=world.f, name=b"user.old", value=b"v")
    world.session = world.open(world.g).session
    world.clock.advance(1)


CASES = {
    "setattr": (pb.SETATTR, lambda w: {"inode": w.f, "mode": 0o600, "mtime_now": True}),
    "truncate": (pb.SETATTR, lambda w: {"inode": w.f, "size": 10}),
    "create": (pb.CREATE, lambda w: {"parent": 1, "name": b"new", "mode": 0o644}),
    "create and open": (
        pb.CREATE,
        lambda w: {"parent": 1, "name": b"new", "open": True, "flags": os.O_RDWR},
    ),
    "create exclusively": (
        pb.CREATE,
        lambda w: {"parent": 1, "name": b"new", "open": True, "exclusive": True, "flags": 1},
    ),
    "create without a name": (
        pb.CREATE,
        lambda w: {"parent": 1, "open": True, "flags": os.O_RDWR | os.O_TMPFILE},
    ),
    "setxattr": (
        pb.SETXATTR,
        lambda w: {"inode": w.f, "name": b"user.new", "value": b"v", "flags": os.XATTR_CREATE},
    ),
    "removexattr": (pb.REMOVEXATTR, lambda w: {"inode": w.f, "name": b"user.old"}),
    "setflags": (pb.SETFLAGS, lambda w: {"inode": w.f, "flags": pb.IMMUTABLE}),
    "mkdir": (pb.MKDIR, lambda w: {"parent": 1, "name": b"new", "mode": 0o755}),
    "symlink": (pb.SYMLINK, lambda w: {"parent": 1, "name": b"new", "target": b"x"}),
    "link": (pb.LINK, lambda w: {"inode": w.f, "parent": 1, "name": b"new"}),
    "unlink": (pb.UNLINK, lambda w: {"parent": 1, "name": b"f"}),
    "rmdir": (pb.RMDIR, lambda w: {"parent": 1, "name": b"empty"}),
    "set a quota": (
        pb.SET_QUOTA,
        lambda w: {"kind": pb.TREE_QUOTA, "id": w.d, "bytes_max": 1 << 20},
    ),
    "count a directory": (
        pb.COUNT_QUOTA,
        lambda w: {"directory": w.top, "tree": w.top},
    ),
    "remove a tree": (pb.REMOVE_TREE, lambda w: {"parent": 1, "name": b"full"}),
    "rename": (
        pb.RENAME,
        lambda w: {"old_parent": 1, "old_name": b"f", "new_parent": w.d, "new_name": b"f"},
    ),
    "rename over": (
        pb.RENAME,
        lambda w: {"old_parent": 1, "old_name": b"f", "new_parent": 1, "new_name": b"g"},
    ),
    "exchange": (
        pb.RENAME,
        lambda w: {
            "old_parent": 1,
            "old_name": b"f",
            "new_parent": 1,
            "new_name": b"d",
            "flags": 2,
        },
    ),
    "open": (pb.OPEN, lambda w: {"inode": w.f, "flags": os.O_WRONLY}),
    "open and truncate": (pb.OPEN, lambda w: {"inode": w.f, "flags": os.O_RDWR | os.O_TRUNC}),
    "sync": (
        pb.SYNC,
        lambda w: {"inode": w.g, "session": w.session, "wrote": True, "written_end": 900},
    ),
    "append": (pb.APPEND, lambda w: {"inode": w.g, "session": w.session, "length": 50}),
    "allocate": (pb.ALLOCATE, lambda w: {"inode": w.f, "offset": 0, "length": 400}),
    "close": (
        pb.CLOSE,
        lambda w: {"inode": w.g, "session": w.session, "wrote": True, "written_end": 900},
    ),
}


def contents(world) -> dict[bytes, bytes]:
    """All but the counter of inode ids, which moves on at a restart."""
    txn = world.kv.begin()
    pairs = dict(txn.get_range(b"", KEY_END))
    pairs.pop(keys.ALLOCATOR, None)
    txn.cancel()
    return pairs


def finish(world, token, method):
    while token not in world.delivered:
        assert world.jobs.run(1)
    return world.answer(token, method)


def without_lease(reply):
    if "lease" in reply.DESCRIPTOR.fields_by_name:
        reply.ClearField("lease")
    if "entry" in reply.DESCRIPTOR.fields_by_name:
        reply.entry.ClearField("lease")
    return reply


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
@pytest.mark.parametrize("case", CASES)
def test_a_retry_changes_nothing_and_gets_the_same_reply(world, case, restarted):
    prepare(world)
    method, fields = CASES[case]
    body = world.request(method, **fields(world))
    first = finish(world, world.send(method, body), method)
    after_first = contents(world)
    calls = len(world.chunks.calls)
    if restarted:
        world.restart()
    for _ in range(2):
        world.clock.advance(1)
        again = finish(world, world.send(method, body), method)
        assert without_lease(again) == without_lease(first)
    changed = {k for k, v in contents(world).items() if after_first.get(k) != v}
    assert changed == set()
    assert contents(world).keys() == after_first.keys()
    assert len(world.chunks.calls) == calls


def test_every_mutating_method_is_in_the_table():
    covered = {method for method, _ in CASES.values()}
    never = {m for m, verb in VERBS.items() if verb.mutates.__name__ == "_never"}
    assert covered == set(VERBS) - never


def test_a_refused_request_is_refused_for_ever(world):
    """A late copy would otherwise do what its client believes not to have happened."""
    body = world.request(pb.UNLINK, parent=1, name=b"f")
    said = []
    for _ in range(2):
        with pytest.raises(OSError) as refused:
            finish(world, world.send(pb.UNLINK, body), pb.UNLINK)
        said.append((refused.value.code, refused.value.where, refused.value.detail))
        if len(said) == 1:
            world.create(b"f")
    assert said[0] == said[1]
    assert said[0][0] == errno.ENOENT
    assert world.lookup(b"f")
    world.unlink(b"f")


def test_a_copy_in_the_batch_of_a_refused_request(world):
    """The copy is behind the request that makes what the first did not find."""
    unlink = world.request(pb.UNLINK, parent=1, name=b"f")
    create = world.request(pb.CREATE, parent=1, name=b"f", mode=0o644)
    calls = [(pb.UNLINK, unlink), (pb.CREATE, create), (pb.UNLINK, unlink)]
    answers = world.store.run([Call(method, method, body, PRINCIPAL) for method, body in calls])
    codes = sorted((answer.token, answer.status) for answer in answers)
    assert codes == [(pb.CREATE, 0), (pb.UNLINK, errno.ENOENT), (pb.UNLINK, errno.ENOENT)]
    assert world.lookup(b"f")


def test_two_of_the_same_in_one_batch(world):
    body = world.request(pb.MKDIR, parent=1, name=b"d", mode=0o755)
    tokens = [object(), object()]
    answers = world.store.run([Call(token, pb.MKDIR, body, PRINCIPAL) for token in tokens])
    replies = [pb.EntryReply.FromString(answer.body) for answer in answers]
    assert without_lease(replies[0]) == without_lease(replies[1])
    assert world.attr(1).nlink == 3


def test_an_attempt_forgets_the_one_before(world):
    """It met a conflict; meanwhile another attempt of the request was applied, and counted."""
    inode = world.write_file(b"f", 10)
    body = world.request(pb.OPEN, inode=inode, flags=os.O_RDWR)
    call = Call(object(), pb.OPEN, body, PRINCIPAL)
    store = world.store
    call.prepare(store.env, store._identity, world.clock.wall_ns())
    txn = world.kv.begin()
    store._operate(call, txn)
    txn.cancel()
    client = call.context.client
    before = store.env.clients.sessions_of(client)
    finish(world, world.send(pb.OPEN, body), pb.OPEN)
    assert store.env.clients.sessions_of(client) == before + 1
    answers = []
    with store.lock:
        store._execute([call], answers)
    assert [answer.status for answer in answers] == [0]
    assert store.env.clients.sessions_of(client) == before + 1


def test_an_id_belongs_to_one_method_and_one_user(world):
    world.mkdir(b"d", mode=0o777)
    number = world.request_id
    world.fails(errno.EINVAL, pb.UNLINK, parent=1, name=b"d", request_id=number)
    world.fails(errno.EACCES, pb.MKDIR, parent=1, name=b"d", request_id=number, uid=7)
    other = world.call(
        pb.SYMLINK, parent=1, name=b"l", target=b"x", request_id=number, client=b"o" * 16
    )
    assert other.entry.attr.type == pb.LINK_SYMBOLIC


def test_a_replay_has_no_lease(world):
    body = world.request(pb.MKDIR, parent=1, name=b"d", mode=0o755)
    assert finish(world, world.send(pb.MKDIR, body), pb.MKDIR).entry.lease.ttl_ms
    assert not finish(world, world.send(pb.MKDIR, body), pb.MKDIR).entry.HasField("lease")


def test_a_replayed_open_of_a_closed_session_is_refused(world):
    inode = world.create(b"f")
    body = world.request(pb.OPEN, inode=inode, flags=os.O_RDWR)
    session = finish(world, world.send(pb.OPEN, body), pb.OPEN).session
    world.call(pb.CLOSE, inode=inode, session=session)
    with pytest.raises(OSError) as refused:
        finish(world, world.send(pb.OPEN, body), pb.OPEN)
    assert refused.value.errno == errno.EACCES


def test_no_capability_is_ever_stored(world):
    reply = world.call(pb.CREATE, parent=1, name=b"f", open=True, flags=os.O_RDWR)
    assert len(reply.capability) == 80
    assert not any(reply.capability[:40] in value for value in contents(world).values())
    world.call(pb.CLOSE, inode=reply.attr.inode, session=reply.session)


def test_rows_live_two_generations_and_then_go(world):
    body = world.request(pb.MKDIR, parent=1, name=b"d", mode=0o755)
    first = finish(world, world.send(pb.MKDIR, body), pb.MKDIR)
    for restarted in (False, True):
        world.clock.advance(GENERATION_S)
        world.store.tick()
        if restarted:
            world.restart()
        again = finish(world, world.send(pb.MKDIR, body), pb.MKDIR)
        assert without_lease(again) == without_lease(first)
    rows = [key for key in contents(world) if key.startswith(b"IDEM")]
    assert rows
    for _ in range(3):
        world.clock.advance(GENERATION_S)
        world.store.tick()
    assert [key for key in contents(world) if key.startswith(b"IDEM")] == []
    with pytest.raises(OSError) as refused:
        finish(world, world.send(pb.MKDIR, body), pb.MKDIR)
    assert refused.value.errno == errno.EEXIST
