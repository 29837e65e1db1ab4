"""Writes the golden vectors beside this file from the texts WIRE.md, CAPABILITY.md and LAYOUT.md.

    python proto/vectors/generate.py

Independent of fs3 on purpose: it shares no code with what the vectors check. Run it only when a
format changes; a change of a committed vector is a change of the protocol.
"""

import hashlib
import hmac
import json
import pathlib
import random
import struct
from typing import Any

HERE = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1
Json = dict[str, Any]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- crc32c.json -----------------------------------------------------------------------------


def checksums() -> Json:
    source = random.Random(1)
    inputs = [b"", b"123456789", bytes(32), b"\xff" * 32, bytes(range(32))]
    inputs += [source.randbytes(size) for size in (1, 7, 8, 63, 64, 65, 255, 1000)]
    combine = []
    for size_a, size_b in ((0, 0), (5, 0), (0, 5), (100, 1), (63, 65), (10, 5000)):
        a, b = source.randbytes(size_a), source.randbytes(size_b)
        row = {"crc_a": crc32c(a), "crc_b": crc32c(b), "size_b": size_b, "crc": crc32c(a + b)}
        combine.append(row)
    rows = [{"data": data.hex(), "crc": crc32c(data)} for data in inputs]
    return {"crc32c": rows, "combine": combine}


# ---- frames.json -----------------------------------------------------------------------------

FIELDS = (
    "kind",
    "method",
    "flags",
    "status",
    "request_id",
    "deadline_ms",
    "capability_len",
    "body_len",
    "payload_len",
    "body_crc",
    "payload_crc",
    "sink_len",
)
FORMAT = struct.Struct("<IBBHIIQIHHIIIIIQ")


def header(
    fields: dict[str, int],
    *,
    magic: int = 0x46335346,
    version: int = 1,
    reserved: tuple[int, int] = (0, 0),
    crc: int | None = None,
) -> bytes:
    f = {name: fields.get(name, 0) for name in FIELDS}
    front = FORMAT.pack(
        magic,
        version,
        f["kind"],
        f["method"],
        f["flags"],
        f["status"],
        f["request_id"],
        f["deadline_ms"],
        f["capability_len"],
        reserved[0],
        f["body_len"],
        f["payload_len"],
        f["body_crc"],
        f["payload_crc"],
        f["sink_len"],
        reserved[1],
    )
    assert len(front) == 60
    return front + struct.pack("<I", crc32c(front) if crc is None else crc)


def frame(
    name: str,
    fields: dict[str, int],
    capability: bytes = b"",
    body: bytes = b"",
    payload: bytes = b"",
) -> Json:
    head = capability + body
    whole = dict(fields) | {
        "capability_len": len(capability),
        "body_len": len(body),
        "payload_len": len(payload),
        "body_crc": crc32c(head) if head else 0,
        "payload_crc": crc32c(payload) if payload else 0,
    }
    data = header(whole) + head + payload
    return {"name": name, "fields": {f: whole.get(f, 0) for f in FIELDS}, "bytes": data.hex()}


def good_frames() -> list[Json]:
    request = {"kind": 1, "method": 0x0201, "request_id": 7, "deadline_ms": 10_000}
    hello = bytes(range(16)) + bytes(range(16, 32)) + struct.pack("<BBHI", 2, 0, 0, 9)
    return [
        frame("request without body", {"kind": 1, "method": 0x0101, "request_id": 1}),
        frame("request with body", request, body=b"body of a request"),
        frame("request with everything", request | {"flags": 1, "sink_len": 4096},
              bytes(range(80)), b"body", bytes(range(256))),
        frame("request with the largest sink", request | {"sink_len": (4 << 20) + (64 << 10)}),
        frame("reply", {"kind": 2, "method": 0x0201, "request_id": MASK}, body=b"reply",
              payload=b"payload"),
        frame("failed reply", {"kind": 2, "method": 0x0201, "status": 4096, "request_id": 7},
              body=b"\x0a\x05where\x12\x06detail"),
        frame("hello", {"kind": 3}, body=hello),
    ]  # fmt: skip


def bad_headers() -> list[Json]:
    base = {"kind": 1, "method": 0x0201, "request_id": 7}
    reply = {"kind": 2, "method": 0x0201, "request_id": 7}
    largest = (4 << 20) + (64 << 10)
    rows: list[tuple[str, bytes]] = [
        ("magic", header(base, magic=0x46335347, version=2, crc=0)),
        ("version", header(base, version=2, crc=0)),
        ("header_crc", header(base | {"kind": 9}, crc=1)),
        ("kind", header(base | {"kind": 0})),
        ("kind", header(base | {"kind": 4, "flags": 4})),
        ("method", header({"kind": 3, "method": 1, "flags": 1})),
        ("flags", header(base | {"flags": 2, "status": 1})),
        ("flags", header(reply | {"flags": 1})),
        ("status", header(base | {"status": 1, "deadline_ms": 1})),
        ("request_id", header(base | {"request_id": 0, "capability_len": 1})),
        ("request_id", header({"kind": 3, "request_id": 1})),
        ("deadline_ms", header(reply | {"deadline_ms": 1, "capability_len": 80})),
        ("capability_len", header(base | {"capability_len": 79}, reserved=(1, 0))),
        ("capability_len", header(reply | {"capability_len": 80})),
        ("reserved", header(base | {"body_len": 1 << 30}, reserved=(1, 0))),
        ("body_len", header(base | {"body_len": (4 << 20) + 1, "payload_len": 1 << 31})),
        ("payload_len", header(base | {"payload_len": largest + 1, "body_crc": 1})),
        ("payload_len", header(reply | {"status": 5, "payload_len": 1})),
        ("payload_len", header({"kind": 3, "payload_len": 1})),
        ("body_crc", header(base | {"body_crc": 1, "payload_crc": 1})),
        ("payload_crc", header(base | {"payload_crc": 1, "sink_len": 1 << 31})),
        ("sink_len", header(base | {"sink_len": largest + 1}, reserved=(0, 1))),
        ("sink_len", header(reply | {"sink_len": 1})),
        ("reserved", header(base, reserved=(0, 1 << 63))),
    ]
    return [{"field": field, "bytes": data.hex()} for field, data in rows]


def hellos() -> list[Json]:
    rows = []
    for role, node in ((1, 0), (2, 9), (3, 0xFFFFFFFF), (4, 1)):
        cluster, instance = bytes(range(role, role + 16)), bytes(range(100, 116))
        body = cluster + instance + struct.pack("<BBHI", role, 0, 0, node)
        rows.append({
            "cluster_id": cluster.hex(), "instance_id": instance.hex(), "role": role,
            "node_id": node, "bytes": body.hex(),
        })  # fmt: skip
    return rows


# ---- capability.json -------------------------------------------------------------------------


def token(secret: bytes, key_id: int, row: Json, version: int = 1) -> bytes:
    signed = struct.pack(
        "<BBH4sQ16sQQ16s", version, row["rights"], key_id, bytes.fromhex(row["cluster"]),
        row["inode"], bytes.fromhex(row["client"]), row["issued_ms"], row["expiry_ms"],
        bytes.fromhex(row["session"]),
    )  # fmt: skip
    return signed + hmac.new(secret, signed, hashlib.sha256).digest()[:16]


def capabilities() -> Json:
    source = random.Random(2)
    keys = [{"id": 300, "secret": source.randbytes(32).hex()},
            {"id": 299, "secret": source.randbytes(32).hex()},
            {"id": 298, "secret": source.randbytes(32).hex()}]  # fmt: skip
    now_ms = 1_750_000_000_000
    tokens = []
    for rights, inode in ((1, 1), (3, 42), (7, MASK), (128, 0)):
        row: Json = {
            "rights": rights, "key_id": keys[0]["id"], "cluster": source.randbytes(4).hex(),
            "inode": inode, "client": source.randbytes(16).hex(), "issued_ms": now_ms,
            "expiry_ms": now_ms + 600_000,
            "session": source.randbytes(16).hex() if rights > 1 else bytes(16).hex(),
        }  # fmt: skip
        row["token"] = token(bytes.fromhex(keys[0]["secret"]), keys[0]["id"], row).hex()
        tokens.append(row)
    first = tokens[1]
    whole = bytes.fromhex(first["token"])
    secrets = [bytes.fromhex(key["secret"]) for key in keys]
    denied = [
        ("length", whole[:-1], now_ms), ("length", whole + b"\0", now_ms), ("length", b"", now_ms),
        ("version", token(secrets[0], 300, first, version=2), now_ms),
        ("key id", token(secrets[0], 301, first), now_ms),
        ("key id", token(secrets[2], 298, first), now_ms),
        ("tag", token(secrets[1], 300, first), now_ms),
        ("tag", whole[:-1] + bytes([whole[-1] ^ 1]), now_ms + 10_000_000),
        ("expiry", whole, first["expiry_ms"] + 30_001),
    ]  # fmt: skip
    rows = [{"field": field, "token": data.hex(), "wall_ms": at} for field, data, at in denied]
    old = token(secrets[1], 299, first).hex()
    accepted = [{"token": first["token"], "wall_ms": first["expiry_ms"] + 30_000},
                {"token": first["token"], "wall_ms": 0},
                {"token": old, "wall_ms": now_ms}]  # fmt: skip
    serialized = b"".join(struct.pack("<H", k["id"]) + bytes.fromhex(k["secret"]) for k in keys)
    return {"keys": keys, "keyring": serialized.hex(), "tokens": tokens, "denied": rows,
            "accepted": accepted}  # fmt: skip


# ---- layout.json -----------------------------------------------------------------------------


def permutation(seed: int, n: int) -> list[int]:
    p, state = list(range(n)), seed
    for i in range(n - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        j = (z ^ (z >> 31)) % (i + 1)
        p[i], p[j] = p[j], p[i]
    return p


def layouts() -> Json:
    rows = [
        {"seed": seed, "n": n, "permutation": permutation(seed, n)}
        for seed in (0, 1, 2, 12345, 1 << 63, MASK)
        for n in (1, 2, 3, 6, 16, 100)
    ]
    return {"permutations": rows}


def main() -> None:
    documents = {
        "crc32c": checksums(),
        "frames": {"good": good_frames(), "bad": bad_headers(), "hello": hellos()},
        "capability": capabilities(),
        "layout": layouts(),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=1)
        (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
