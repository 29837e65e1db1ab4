"""The golden vectors of proto/vectors, against Python's and the native implementations."""

import json
import pathlib
from typing import Any

import pytest

from fs3 import _native, layout
from fs3.auth import capability
from fs3.auth.keyring import Key, Keyring
from fs3.errors import BadRequest, Denied, Status

wire = _native.wire
VECTORS = pathlib.Path(__file__).parents[2] / "proto" / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def test_crc32c() -> None:
    rows = load("crc32c")
    assert rows["crc32c"][1]["data"] == b"123456789".hex()
    assert rows["crc32c"][1]["crc"] == 0xE3069283
    for row in rows["crc32c"]:
        assert wire.crc32c(bytes.fromhex(row["data"])) == row["crc"]
    for row in rows["combine"]:
        assert wire.crc32c_combine(row["crc_a"], row["crc_b"], row["size_b"]) == row["crc"]


def test_good_frames() -> None:
    for row in load("frames")["good"]:
        data = bytes.fromhex(row["bytes"])
        assert wire.decode_header(data[:64]) == row["fields"], row["name"]
        assert wire.encode_header(**row["fields"]) == data[:64], row["name"]
        head_len = row["fields"]["capability_len"] + row["fields"]["body_len"]
        head, payload = data[64 : 64 + head_len], data[64 + head_len :]
        assert wire.crc32c(head) == row["fields"]["body_crc"]
        assert wire.crc32c(payload) == row["fields"]["payload_crc"]


def test_bad_headers_name_the_field() -> None:
    for row in load("frames")["bad"]:
        with pytest.raises(BadRequest) as caught:
            wire.decode_header(bytes.fromhex(row["bytes"]))
        assert caught.value.code == Status.BAD_REQUEST
        assert caught.value.detail.startswith(row["field"] + ": ")


def test_encoding_a_bad_header_is_refused() -> None:
    with pytest.raises(BadRequest, match="request_id"):
        wire.encode_header(kind=1)
    with pytest.raises(BadRequest, match="kind"):
        wire.encode_header(kind=7, request_id=1)


def test_hello() -> None:
    for row in load("frames")["hello"]:
        fields = {
            "cluster_id": bytes.fromhex(row["cluster_id"]),
            "instance_id": bytes.fromhex(row["instance_id"]),
            "role": row["role"],
            "node_id": row["node_id"],
        }
        assert wire.encode_hello(**fields) == bytes.fromhex(row["bytes"])
        assert wire.decode_hello(bytes.fromhex(row["bytes"])) == fields


def test_layout_in_both_languages() -> None:
    for row in load("layout")["permutations"]:
        seed, n, expected = row["seed"], row["n"], row["permutation"]
        assert list(layout.permutation(seed, n)) == expected
        assert wire.permutation(seed, n) == expected
        for k in range(n):
            assert layout.pick(seed, n, k) == expected[k] == wire.pick(seed, n, k)
        with pytest.raises(ValueError, match="k:"):
            layout.pick(seed, n, n)
        with pytest.raises(BadRequest, match="k:"):
            wire.pick(seed, n, n)


def test_chunk_of_a_byte() -> None:
    assert layout.chunk_index(0, 1 << 20) == (0, 0)
    assert layout.chunk_index((1 << 20) - 1, 1 << 20) == (0, (1 << 20) - 1)
    assert layout.chunk_index(5 << 20, 1 << 20) == (5, 0)


def keyring() -> Keyring:
    keys = load("capability")["keys"]
    return Keyring(tuple(Key(key["id"], bytes.fromhex(key["secret"])) for key in keys))


def test_keyring_serialization() -> None:
    assert keyring().serialize().hex() == load("capability")["keyring"]


def capability_of(row: dict[str, Any]) -> capability.Capability:
    return capability.Capability(
        rights=row["rights"],
        cluster=bytes.fromhex(row["cluster"]),
        inode=row["inode"],
        client=bytes.fromhex(row["client"]),
        issued_ms=row["issued_ms"],
        expiry_ms=row["expiry_ms"],
        session=bytes.fromhex(row["session"]),
        key_id=row["key_id"],
    )


def test_tokens_in_both_languages() -> None:
    ring = keyring()
    serialized = ring.serialize()
    for row in load("capability")["tokens"]:
        token = bytes.fromhex(row["token"])
        expected = capability_of(row)
        assert capability.mint(expected, ring) == token
        assert capability.verify(token, ring, wall_ms=row["issued_ms"]) == expected
        fields = vars(expected).copy()
        assert wire.verify(serialized, token, row["issued_ms"]) == fields
        del fields["key_id"]
        assert wire.mint(serialized, **fields) == token


def test_denied_tokens_name_the_field_in_both_languages() -> None:
    ring = keyring()
    for row in load("capability")["denied"]:
        token = bytes.fromhex(row["token"])
        with pytest.raises(Denied) as python:
            capability.verify(token, ring, wall_ms=row["wall_ms"])
        with pytest.raises(Denied) as native:
            wire.verify(ring.serialize(), token, row["wall_ms"])
        for caught in (python, native):
            assert caught.value.code == Status.CAPABILITY_DENIED
            assert caught.value.detail.startswith(row["field"] + ": ")


def test_slack_and_previous_key_in_both_languages() -> None:
    ring = keyring()
    for row in load("capability")["accepted"]:
        token = bytes.fromhex(row["token"])
        capability.verify(token, ring, wall_ms=row["wall_ms"])
        wire.verify(ring.serialize(), token, row["wall_ms"])


def test_native_check_of_a_python_token() -> None:
    ring = keyring()
    cluster, client = bytes(range(16)), b"c" * 16
    made = capability.Capability(
        rights=capability.RIGHT_READ,
        cluster=cluster[:4],
        inode=42,
        client=client,
        issued_ms=1000,
        expiry_ms=601_000,
    )
    token = capability.mint(made, ring)

    def check(rights: int, inode: int, who: bytes, at_ms: int) -> None:
        wire.check_capability(ring.serialize(), cluster, token, rights, inode, who, at_ms)

    check(capability.RIGHT_READ, 42, client, 2000)
    for field, arguments in {
        "rights": (capability.RIGHT_WRITE, 42, client, 2000),
        "inode": (capability.RIGHT_READ, 43, client, 2000),
        "client": (capability.RIGHT_READ, 42, b"d" * 16, 2000),
        "expiry": (capability.RIGHT_READ, 42, client, 700_000),
    }.items():
        with pytest.raises(Denied, match=field + ":"):
            check(*arguments)
