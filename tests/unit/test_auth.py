"""Keyring files and the minter. The bytes of tokens are in test_vectors.py."""

import json
import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.auth import capability
from fs3.auth.capability import Capability, Minter
from fs3.auth.identity import Principal, Role
from fs3.auth.keyring import Key, Keyring
from fs3.errors import BadRequest, Denied
from fs3.runtime.clock import ManualClock
from fs3.runtime.entropy import SeededEntropy

CLUSTER = bytes(range(16))
CLIENT = b"c" * 16


def test_create_and_load(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    made = Keyring.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.load(path) == made
    assert len(made.keys) == 1
    assert len(made.keys[0].secret) == 32
    assert Keyring.create(tmp_path / "other").keys[0].secret != made.keys[0].secret


def test_create_keeps_an_existing_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    made = Keyring.create(path)
    with pytest.raises(FileExistsError):
        Keyring.create(path)
    assert Keyring.load(path) == made


def test_mode_does_not_depend_on_the_umask(tmp_path: pathlib.Path) -> None:
    old = os.umask(0)
    try:
        Keyring.create(tmp_path / "keyring")
    finally:
        os.umask(old)
    assert (tmp_path / "keyring").stat().st_mode & 0o777 == 0o600


def test_rotation_keeps_current_and_previous(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    first = Keyring.create(path)
    second = first.rotate(path)
    third = second.rotate(path)
    assert [key.id for key in third.keys] == [3, 2]
    assert Keyring.load(path) == third
    assert third.find(2) == second.keys[0]
    assert third.find(1) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring"]
    made = Capability(
        rights=1, cluster=CLUSTER[:4], inode=1, client=CLIENT, issued_ms=0, expiry_ms=1000
    )
    capability.verify(capability.mint(made, second), third, wall_ms=0)
    with pytest.raises(Denied, match="key id: 1"):
        capability.verify(capability.mint(made, first), third, wall_ms=0)


def test_ids_wrap_around(tmp_path: pathlib.Path) -> None:
    ring = Keyring((Key(0xFFFF, bytes(32)),)).rotate(tmp_path / "keyring")
    assert [key.id for key in ring.keys] == [0, 0xFFFF]


def test_a_file_that_others_may_read_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    Keyring.create(path)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(Denied, match="chmod 600"):
            Keyring.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"version": 2, "keys": [{"id": 1, "secret": "' + "00" * 32 + '"}]}',
        '{"version": 1, "keys": []}',
        '{"version": 1, "keys": [{"id": 1}]}',
        '{"version": 1, "keys": [{"id": 1, "secret": "abcd"}]}',
        '{"version": 1, "keys": [{"id": 65536, "secret": "' + "00" * 32 + '"}]}',
        '{"version": 1, "keys": [{"id": 1, "secret": "' + "zz" * 32 + '"}]}',
        "x" * 70_000,
    ],
)
def test_what_is_no_keyring_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "keyring"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadRequest):
        Keyring.load(path)


def test_secrets_stay_out_of_texts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    ring = Keyring.create(path, SeededEntropy(1))
    secret = ring.keys[0].secret
    assert secret.hex() not in repr(ring)
    assert repr(secret) not in repr(ring)
    document = json.loads(path.read_text())
    document["version"] = 9
    path.write_text(json.dumps(document))
    with pytest.raises(BadRequest) as caught:
        Keyring.load(path)
    assert secret.hex() not in str(caught.value)


def test_duplicate_ids_are_refused() -> None:
    with pytest.raises(BadRequest, match="twice"):
        Keyring((Key(1, bytes(32)), Key(1, b"x" * 32)))


def test_minter_dates_tokens_by_its_clock(tmp_path: pathlib.Path) -> None:
    ring = Keyring.create(tmp_path / "keyring")
    clock = ManualClock(start_ns=5_000_000_000)
    minter = Minter(ring, CLUSTER, clock)
    token = minter.mint(rights=3, inode=7, client=CLIENT, session=b"s" * 16)
    assert capability.decode(token, ring) == Capability(
        rights=3,
        cluster=CLUSTER[:4],
        inode=7,
        client=CLIENT,
        issued_ms=5000,
        expiry_ms=605_000,
        session=b"s" * 16,
        key_id=1,
    )
    clock.advance(630)
    capability.verify(token, ring, wall_ms=clock.wall_ns() // 1_000_000)
    clock.advance(0.001)
    with pytest.raises(Denied, match="expiry"):
        capability.verify(token, ring, wall_ms=clock.wall_ns() // 1_000_000)
    assert capability.decode(minter.mint(rights=1, inode=7, client=CLIENT), ring).session == bytes(
        16
    )


def test_minter_takes_a_rotated_keyring(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keyring"
    minter = Minter(ring := Keyring.create(path), CLUSTER, ManualClock())
    minter.replace_keyring(rotated := ring.rotate(path))
    token = minter.mint(rights=1, inode=1, client=CLIENT)
    assert capability.decode(token, rotated).key_id == 2


@given(
    rights=st.integers(0, 255),
    inode=st.integers(0, (1 << 64) - 1),
    client=st.binary(min_size=16, max_size=16),
    issued_ms=st.integers(0, (1 << 64) - 1),
    expiry_ms=st.integers(0, (1 << 64) - 1),
    session=st.binary(min_size=16, max_size=16),
    bit=st.integers(0, 639),
)
def test_tokens_carry_everything_and_no_bit_may_change(
    rights: int,
    inode: int,
    client: bytes,
    issued_ms: int,
    expiry_ms: int,
    session: bytes,
    bit: int,
) -> None:
    ring = Keyring((Key(9, b"k" * 32),))
    made = Capability(
        rights=rights,
        cluster=b"abcd",
        inode=inode,
        client=client,
        issued_ms=issued_ms,
        expiry_ms=expiry_ms,
        session=session,
        key_id=9,
    )
    token = capability.mint(made, ring)
    assert capability.decode(token, ring) == made
    changed = bytearray(token)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Denied):
        capability.decode(bytes(changed), ring)


@given(st.binary(max_size=100))
def test_no_bytes_are_a_token(data: bytes) -> None:
    with pytest.raises(Denied):
        capability.decode(data, Keyring((Key(9, b"k" * 32),)))


def test_wrong_lengths_are_programming_errors() -> None:
    ring = Keyring((Key(9, b"k" * 32),))
    with pytest.raises(ValueError, match="16 bytes"):
        Minter(ring, b"short", ManualClock())
    with pytest.raises(ValueError, match="16 bytes"):
        Minter(ring, CLUSTER, ManualClock()).mint(rights=1, inode=1, client=b"x")


def test_principal() -> None:
    client = Principal(Role.CLIENT, False, None, 0, CLIENT, "127.0.0.1:1")
    assert not client.is_server
    assert client._replace(role=Role.STORAGE).is_server
