"""Every damage that fsck finds is mended by --repair, or told to be for a person to decide; nothing
is mended that changed meanwhile, and nothing is lost."""

import dataclasses

import pytest
from meta_world import CLIENT, World
from test_meta_fsck import DAMAGE, tree  # noqa: F401  (the fixture)

from fs3._proto import meta_pb2 as pb
from fs3.auth.capability import RIGHT_READ, RIGHT_SERVER, Capability, mint
from fs3.auth.identity import Principal, Role
from fs3.auth.keyring import Key, Keyring
from fs3.cli.inspection import MetaInspection, mend_name_space
from fs3.errors import BadRequest, Denied, RetryLater, Status, error_for
from fs3.kv import keys
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.call import Call
from fs3.meta.fsck import fsck
from fs3.meta.inspect import SNAPSHOTS_MAX, Inspector
from fs3.runtime.entropy import SeededEntropy

RING = Keyring((Key(1, b"k" * 32),))
CLUSTER = b"c" * 16
TOOL = b"tool-aaaaaaaaaaa"
# What nobody but a person can decide: which record was meant, or whether chunks are gone.
FOR_A_PERSON = {
    "short inode",
    "inode schema",
    "entry record",
    "unknown prefix",
    "key length",
    "session record",
    "idempotency record",
    "gc record",
    "tombstone record",
    "intent record",
    "appends record",
    "removal record",
    "usage record",
    "limit record",
    "attribute record",
    "attribute key",
    "acl record",
    "allocator record",
    "no root",
    "root below",
    "intent of another epoch",
}


def token(**fields) -> bytes:
    sound = Capability(
        rights=RIGHT_SERVER,
        cluster=CLUSTER[:4],
        inode=0,
        client=TOOL,
        issued_ms=0,
        expiry_ms=1 << 50,
    )
    return mint(dataclasses.replace(sound, **fields), RING)


class Tool:
    """The connection of `fs3 check` to a service in this thread."""

    def __init__(self, world: World, capability: bytes | None = None) -> None:
        self.inspector = Inspector(
            world.store, RING, CLUSTER, clock=world.clock, entropy=SeededEntropy(7)
        )
        self._capability = token() if capability is None else capability
        self.pages = 0

    def call(self, method: int, body: bytes) -> tuple[bytes, bytes]:
        self.pages += method == pb.CHECK
        principal = Principal(Role.CLIENT, True, 0, 0, TOOL, "unix")
        answer = self.inspector.answer(Call(1, method, body, principal, self._capability))
        if answer.status:
            raise error_for(answer.status, answer.where, answer.detail)
        return answer.body, b""


def repaired(world: World) -> tuple[list[str], list[str]]:
    """(mended, left) of a whole repair."""
    inspection = MetaInspection(Tool(world))
    _, outcome = mend_name_space(inspection, inspection.name_space(), lambda line: None)
    return outcome.mended, outcome.left


def test_the_tool_sees_what_the_service_sees(tree):  # noqa: F811
    inspection = MetaInspection(Tool(tree))
    space = inspection.name_space()
    assert space.findings == fsck(tree.kv) == []
    assert (space.inodes, space.entries) == (8, 6)
    assert space.open_inodes == {tree.f}
    assert repaired(tree) == ([], [])


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_damage_is_mended_or_told(tree, damage):  # noqa: F811
    _, plant = DAMAGE[damage]
    tree.store.transact([lambda txn: plant(txn, tree)])
    tree.clock.advance(1)
    before = set(known_inodes(tree))
    mended, left = repaired(tree)
    if damage in FOR_A_PERSON:
        assert left
    else:
        assert left == []
        assert mended
        assert fsck(tree.kv) == []
    assert before <= set(known_inodes(tree)), "a record of an inode is lost"
    again, still = repaired(tree)
    assert (again, still) == ([], left), "a second repair finds nothing to do"


def known_inodes(world: World) -> list[int]:
    begin, end = keys.INODE, keys.prefix_end(keys.INODE)
    pairs = world.kv.begin().get_range(begin, end)
    return [keys.inode_of(key) for key, _ in pairs if len(key) == 12]


def test_lost_files_and_directories_are_in_lost_and_found(tree):  # noqa: F811
    """What had lost its name can be read again; a lost directory keeps what is in it."""
    tree.store.transact([lambda txn: dirent.remove(txn, 1, b"d")])
    repaired(tree)
    attr = tree.lookup(b"lost+found")
    assert attr.mode == 0o700
    name = b"#%d" % tree.d
    assert tree.names(attr.inode) == [name]
    assert sorted(tree.names(tree.d)) == [b"f", b"g2", b"sub"]
    assert tree.lookup(b"f", parent=tree.d).size == 100
    tree.rename(name, b"d", old_parent=attr.inode)
    assert fsck(tree.kv) == []


def test_a_name_that_is_taken_in_lost_and_found(tree):  # noqa: F811
    tree.store.transact([lambda txn: dirent.remove(txn, tree.d, b"f")])
    repaired(tree)
    lost = tree.lookup(b"lost+found").inode
    tree.store.transact([lambda txn: dirent.remove(txn, tree.d, b"sub")])
    tree.create(b"#%d" % tree.sub, parent=lost)
    repaired(tree)
    assert b"#%d-2" % tree.sub in tree.names(lost)
    assert fsck(tree.kv) == []


def test_damage_that_is_gone_is_not_mended(tree):  # noqa: F811
    """Somebody else put it right, or used the inode, between finding and mending."""
    tree.store.transact([lambda txn: dirent.remove(txn, tree.d, b"g2")])
    inspection = MetaInspection(Tool(tree))
    (found,) = inspection.name_space().findings
    assert found.check == "inode_nlink"
    tree.call(pb.LINK, inode=tree.g, parent=tree.d, name=b"g3")
    done, why = inspection.mend(found)
    assert not done
    assert "changed" in why
    tree.unlink(b"g3", parent=tree.d)
    mended, left = repaired(tree)
    assert (len(mended), left) == (1, [])


def test_a_dangling_entry_whose_inode_came_back_stays(tree):  # noqa: F811
    record = tree.kv.begin().get(keys.inode(tree.g))
    tree.store.transact([lambda txn: txn.clear(keys.inode(tree.g))])
    inspection = MetaInspection(Tool(tree))
    findings = inspection.name_space().findings
    tree.store.transact([lambda txn: txn.set(keys.inode(tree.g), record)])
    dangling = [finding for finding in findings if finding.check == "dentry_dangling"]
    assert not any(inspection.mend(finding)[0] for finding in dangling)
    assert fsck(tree.kv) == []


def test_a_mend_that_fails_half_way_leaves_nothing(tree):  # noqa: F811
    """/lost+found is a file: an entry that was to move there must not be gone."""
    tree.create(b"lost+found")
    _, plant = DAMAGE["bad name"]
    tree.store.transact([lambda txn: plant(txn, tree)])
    entries = tree.kv.begin().get_range(keys.DENTRY, keys.prefix_end(keys.DENTRY))
    mended, left = repaired(tree)
    assert not any("lost+found" in line for line in mended)
    assert any(line.startswith("dentry_order") for line in left)
    assert tree.kv.begin().get_range(keys.DENTRY, keys.prefix_end(keys.DENTRY)) == entries


def test_gc_leaves_a_named_inode_alone(tree):  # noqa: F811
    """A row of the queue that leads to a file with a name must not remove the file."""
    _, plant = DAMAGE["queued with a name"]
    tree.store.transact([lambda txn: plant(txn, tree)])
    tree.collect()
    assert tree.attr(tree.g).nlink == 2
    repaired(tree)
    assert fsck(tree.kv) == []


def test_an_unlinked_orphan_goes_by_the_gc(tree):  # noqa: F811
    _, plant = DAMAGE["lost from the queue"]
    tree.store.transact([lambda txn: plant(txn, tree)])
    mended, left = repaired(tree)
    assert left == []
    assert "gc queue" in mended[0]
    tree.collect()
    assert tree.gone not in known_inodes(tree)
    assert tree.gone not in tree.chunks.lengths


def test_a_snapshot_does_not_see_what_happens_meanwhile(tree, monkeypatch):  # noqa: F811
    monkeypatch.setattr("fs3.meta.inspect.PAGE_ROWS", 2)
    tool = Tool(tree)
    inspection = MetaInspection(tool)
    rows = inspection._rows()
    seen = [next(rows)]
    tree.mkdir(b"later")
    tree.unlink(b"g")
    from fs3.meta.fsck import check_rows

    space = check_rows([*seen, *rows])
    assert space.findings == []
    assert space.inodes == 8
    assert tool.pages > 5
    assert tool.inspector._snapshots == {}, "closed when the last row was read"


def test_snapshots_are_few_and_expire(tree):  # noqa: F811
    tool = Tool(tree)
    opened = []
    for _ in range(SNAPSHOTS_MAX):
        body, _ = tool.call(pb.CHECK, b"")
        opened.append(pb.CheckReply.FromString(body).snapshot)
    with pytest.raises(RetryLater):
        tool.call(pb.CHECK, b"")
    tree.clock.advance(31)
    tool.inspector.expire()
    request = pb.CheckRequest(snapshot=opened[0], after=b"x").SerializeToString()
    with pytest.raises(BadRequest, match="begin the check again"):
        tool.call(pb.CHECK, request)
    tool.call(pb.CHECK, b"")
    tool.inspector.close()


@pytest.mark.parametrize(
    "capability",
    [
        b"",
        b"x" * 80,
        token(rights=RIGHT_READ),
        token(cluster=b"else"),
        token(client=CLIENT),
        token(expiry_ms=5),
    ],
)
def test_only_servers_may_check_and_repair(tree, capability):  # noqa: F811
    tool = Tool(tree, capability)
    for method in (pb.CHECK, pb.REPAIR):
        with pytest.raises(Denied):
            tool.call(method, b"")


def test_the_methods_are_none_of_the_operations_of_clients(world):
    for method in (pb.CHECK, pb.REPAIR):
        (answer,) = world.store.run([Call(1, method, b"", Principal(1, True, 0, 0, CLIENT, "u"))])
        assert answer.status == Status.UNKNOWN_METHOD


def test_an_unknown_mend_is_refused(tree):  # noqa: F811
    request = pb.RepairRequest(kind="erase", inode=tree.g).SerializeToString()
    reply = pb.RepairReply.FromString(Tool(tree).call(pb.REPAIR, request)[0])
    assert not reply.done
    assert "erase" in reply.detail


def test_random_mends_change_nothing_that_is_sound(tree):  # noqa: F811
    """A tool that is wrong about everything does no harm to a sound name space."""
    from fs3.meta.repair import _MENDS

    def versions():
        txn = tree.kv.begin()
        found = {}
        for number in known_inodes(tree):
            inode = inodes.find(txn, number)
            found[number] = (inode.nlink, inode.parent, inode.size)
        return found

    before = versions()
    entry = keys.dentry(1, b"g")
    row = keys.session(tree.f, tree.session)
    tool = Tool(tree)
    for kind in sorted(set(_MENDS) - {"nlink", "parent", "rescue", "drop_spare", "adopt"}):
        for number in before:
            for key in (entry, row, b"", keys.intent(number)):
                request = pb.RepairRequest(kind=kind, inode=number, version=1, key=key)
                tool.call(pb.REPAIR, request.SerializeToString())
    assert versions() == before
    assert fsck(tree.kv) == []
