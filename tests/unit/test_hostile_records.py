"""Random bytes to everything that decodes keys, records, tokens and files: the value, or an error
that names what is wrong; never another exception."""

import json
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fs3.auth import capability
from fs3.auth.keyring import Key, Keyring
from fs3.errors import BadRequest, Damaged, Denied, Refused
from fs3.kv import keys
from fs3.kv.memory import MemoryStore
from fs3.meta import dirent, garbage, idempotency, intent, quota, session, tombstone, tree
from fs3.meta import inode as inodes
from fs3.meta.allocator import reserved_end
from fs3.meta.fsck import fsck
from fs3.meta.permission import Caller
from fs3.mgmtd import store
from fs3.runtime import config

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def near(sound: bytes) -> st.SearchStrategy[bytes]:
    """A sound record with a few bytes changed, or cut, or longer."""

    def change(edits: list[tuple[int, int]], cut: int, more: bytes) -> bytes:
        record = bytearray(sound)
        for at, value in edits:
            record[at % len(record)] = value
        return bytes(record[: len(record) - cut]) + more

    edits = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=4)
    return st.builds(change, edits, st.sampled_from([0, 0, 0, 1, 9]), st.binary(max_size=3))


LAYOUT = inodes.Layout(1, 1, 1 << 20, 1, 7)
FILE = inodes.Inode(7, inodes.FILE, 0o644, 1, 0, 0, layout=LAYOUT)
LINK = inodes.Inode(8, inodes.SYMLINK, 0o777, 1, 0, 0, size=3, target=b"abc")
SESSION = session.Session(7, b"s" * 16, b"c" * 16, 3, 5, 0, 0, 0)
RECORDED = idempotency.Recorded(0x104, 0, 3, 0, b"s" * 16, b"reply")
REFUSED = idempotency.Recorded.refusal(0x104, 0, Refused(2, "meta/unlink", "no entry"))

DECODERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "file": (FILE.encode(), lambda record: inodes.decode(7, record)),
    "link": (LINK.encode(), lambda record: inodes.decode(8, record)),
    "entry": (dirent.Dirent(b"a", 7, 1).encode(), lambda record: dirent.decode(b"a", record)),
    "session": (SESSION.encode(), lambda record: session.decode(7, b"s" * 16, record)),
    "idempotency": (RECORDED.encode(), idempotency.decode),
    "usage": (
        quota.encode_usage(quota.Usage(5, -6)),
        lambda record: quota.decode_usage(keys.usage(1, 7, 0), record),
    ),
    "limit": (
        quota.encode_limit(quota.Limit(5, 6, True)),
        lambda record: quota.decode_limit(keys.quota(1, 7), record),
    ),
    "refusal": (REFUSED.encode(), idempotency.decode),
    "tree in removal": (
        tree.encode(Caller(5, 6, frozenset((7, 8)))),
        lambda record: tree.decode(7, record),
    ),
    "garbage": (
        garbage.Row(5, 1).encode(),
        lambda record: garbage.decode(keys.garbage(1, 7), record),
    ),
    "tombstone": (
        tombstone.Tombstone(1, 7, LAYOUT).encode(),
        lambda record: tombstone.decode(keys.tombstone(1, 7), record),
    ),
    "intent": (
        intent.TruncateIntent(7, True, 9, 5, 2).encode(),
        lambda record: intent.decode(7, record),
    ),
}


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_records_of_the_name_space(name: str, data: st.DataObject) -> None:
    sound, decode = DECODERS[name]
    record = data.draw(st.one_of(near(sound), st.binary(max_size=200)))
    try:
        value = decode(record)
    except Damaged as error:
        assert error.where.startswith("meta/")
        assert error.detail
    else:
        if hasattr(value, "encode"):
            assert decode(value.encode()) == value


@QUICK
@given(
    st.lists(
        st.tuples(
            st.sampled_from([keys.INODE, keys.DENTRY, keys.SESSION, keys.CLIENT_SESSION])
            | st.sampled_from(
                [keys.IDEMPOTENCY, keys.GARBAGE, keys.TREE, keys.TOMBSTONE, keys.INTENT]
            )
            | st.sampled_from([keys.ALLOCATOR, b"?"]),
            st.binary(max_size=44),
            st.one_of(*(near(sound) for sound, _ in DECODERS.values()), st.binary(max_size=20)),
        ),
        max_size=8,
    )
)
def test_fsck_reads_any_store(rows: list[tuple[bytes, bytes, bytes]]) -> None:
    kv = MemoryStore()

    def plant(txn: Any) -> None:
        for prefix, suffix, value in rows:
            txn.set(prefix + suffix, value)

    assert kv.run_batch([plant]) == [None]
    for finding in fsck(kv):
        assert finding.check
        assert finding.detail


@QUICK
@given(st.binary(max_size=20))
def test_the_allocator_record(record: bytes) -> None:
    kv = MemoryStore()
    kv.run_batch([lambda txn: txn.set(keys.ALLOCATOR, record)])
    (end,) = kv.run_batch([reserved_end])
    assert isinstance(end, Damaged | int)


@QUICK
@given(st.integers(0, (1 << 64) - 1), st.binary(min_size=1, max_size=255))
def test_keys_give_back_what_they_were_made_of(number: int, name: bytes) -> None:
    assert keys.inode_of(keys.inode(number)) == number
    parent, order, told = keys.dentry_fields(keys.dentry(number, name))
    assert (parent, told) == (number, name)
    assert order == keys.name_order(name) >= keys.ORDER_FIRST
    assert keys.garbage_fields(keys.garbage(number, number)) == (number, number)


@QUICK
@given(st.binary(max_size=30))
def test_prefix_end_is_behind_all_that_begin_with_it(prefix: bytes) -> None:
    end = keys.prefix_end(prefix)
    assert end > prefix or prefix.startswith(b"\xff")
    for suffix in (b"", b"\0", b"\xfe\xff"):
        assert not (end <= prefix + suffix < b"\xff") or prefix == b""


# ---- the manager's records

MANAGER = {
    store.CLUSTER_KEY: b'{"schema":1,"cluster_id":"' + b"0" * 32 + b'","lease_longest_ns":4,'
    b'"routing_version":7,"tables":[{"id":1,"version":1,"chains":[1]}]}',
    store.NODE_PREFIX + b"0000000001": b'{"schema":1,"id":1,"role":"storage","name":"s","addresses"'
    b':["tcp://x:1"],"admin_address":"","incarnation":"' + b"1" * 32 + b'","alive":true,'
    b'"retired":["22"]}',
    store.CHAIN_PREFIX + b"0000000001": b'{"schema":1,"id":1,"version":3,"forming":false,"targets":'
    b'[{"id":101,"node":1,"state":1,"leaving":false}]}',
}


@pytest.mark.parametrize("key", MANAGER)
@QUICK
@given(data=st.data())
def test_records_of_the_manager(key: bytes, data: st.DataObject) -> None:
    kv = MemoryStore()
    changed = data.draw(st.one_of(near(MANAGER[key]), st.binary(max_size=60)))

    def plant(txn: Any) -> None:
        for row, value in {**MANAGER, key: changed}.items():
            txn.set(row, value)

    kv.run_batch([plant])
    (outcome,) = kv.run_batch([store.read_all])
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, Damaged), outcome
        assert repr(key) in outcome.detail


# ---- tokens, keyring, configuration

RING = Keyring((Key(3, b"k" * 32), Key(2, b"j" * 32)))
TOKEN = capability.mint(
    capability.Capability(
        rights=3, cluster=b"abcd", inode=7, client=b"c" * 16, issued_ms=5, expiry_ms=9
    ),
    RING,
)


@QUICK
@given(st.one_of(near(TOKEN), st.binary(max_size=100)))
def test_tokens(token: bytes) -> None:
    if token == TOKEN:
        assert capability.verify(token, RING, wall_ms=9).inode == 7
        return
    with pytest.raises(Denied, match=r"auth/capability: (length|version|key id|tag): "):
        capability.verify(token, RING, wall_ms=9)


def texts() -> st.SearchStrategy[bytes]:
    """JSON of the right shape with wrong values, any JSON, any bytes."""
    scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
    entry = st.dictionaries(st.sampled_from(["id", "secret"]), scalar, max_size=2)
    document = st.fixed_dictionaries(
        {"version": st.just(1) | scalar, "keys": st.lists(entry | scalar, max_size=3) | scalar}
    )
    tree = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    deep = st.integers(1, 30_000).map(lambda depth: b"[" * depth)
    return st.one_of((document | tree).map(lambda d: json.dumps(d).encode()), st.binary(), deep)


@QUICK
@given(texts())
def test_the_keyring_file(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "keyring"
    path.write_bytes(text)
    path.chmod(0o600)
    try:
        ring = Keyring.load(path)
    except BadRequest as error:
        assert str(path) in error.detail
    else:
        assert ring.keys


def toml_values() -> st.SearchStrategy[Any]:
    scalar = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text()
    return st.recursive(scalar, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


KINDS = {
    "mgmtd": config.MgmtdConfig,
    "meta": config.MetaConfig,
    "storage": config.StorageConfig,
}


@pytest.mark.parametrize("section", KINDS)
@QUICK
@given(data=st.data())
def test_settings_of_any_value(section: str, data: st.DataObject) -> None:
    kind = KINDS[section]
    names = list(kind.__struct_fields__)
    base = {"data": "/d", "mgmtd": "x:1", "node_id": 1} if section != "mgmtd" else {"data": "/d"}
    odd = data.draw(
        st.dictionaries(st.sampled_from([*names, "unknown"]), toml_values(), max_size=3)
    )
    try:
        made = config.parse(kind, {**base, **odd}, "file")
    except BadRequest as error:
        assert error.where == "file"
        # The field is named, by msgspec's path or by check().
        assert re.search("|".join([*odd, "data", "mgmtd", "node_id"]), error.detail), error.detail
    else:
        assert made.data
        assert made.cluster_id_bytes() is not None


@QUICK
@given(st.one_of(st.binary(), st.text().map(str.encode), st.just(b"a=" + b"[" * 20_000)))
def test_configuration_files(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "fs3.toml"
    path.write_bytes(text)
    with pytest.raises(BadRequest) as refused:
        config.load(config.MetaConfig, path, "meta")
    assert str(path) in refused.value.where


def test_an_unknown_key_or_section_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fs3.toml"
    path.write_text('[storage]\ndata = "/d"\nnode_id = 1\nmgmtd = "x:1"\nnodeid = 2\n')
    with pytest.raises(BadRequest, match="nodeid"):
        config.load(config.StorageConfig, path, "storage")
    path.write_text('[storag]\ndata = "/d"\n')
    with pytest.raises(BadRequest, match="storag"):
        config.load(config.StorageConfig, path, "storage")
    with pytest.raises(BadRequest, match=re.escape("no such file")):
        config.load(config.StorageConfig, tmp_path / "none", "storage")


def test_struct_sizes_are_those_of_the_keys() -> None:
    assert len(keys.garbage(1, 2)) == 4 + struct.calcsize(">Q") + struct.calcsize("<Q")
