"""Writes the seeds of tests/fuzz/corpus from the golden vectors and from messages made here.

    python -m tests.fuzz.seed [DIRECTORY]

Seeds named golden-* are replayed with every prefix and every single-byte change. What a fuzzer
found and is kept lies beside them, under another name. tests/unit/test_fuzz_corpus.py compares the
seeds in the tree with what comes out of here.
"""

import json
import pathlib
import struct
import sys
from typing import Any

from fs3._proto import common_pb2, meta_pb2, storage_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests/fuzz/corpus"
Seeds = dict[str, bytes]


def vectors(name: str) -> Any:
    return json.loads((ROOT / f"proto/vectors/{name}.json").read_text())


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sealed(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32c(data))


def slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


# ---- the wire


def frames() -> Seeds:
    rows = vectors("frames")
    good = {f"golden-{slug(row['name'])}": bytes.fromhex(row["bytes"]) for row in rows["good"]}
    bad = {
        f"bad-{i:02}-{slug(row['field'])}": bytes.fromhex(row["bytes"])
        for i, row in enumerate(rows["bad"])
    }
    return good | bad


def frames_and_errors() -> Seeds:
    """... and bodies of failed replies, with text that may and that may not be handed on."""
    texts = {
        "plain": b"storage-2/write",
        "characters": "\u00e9 \u20ac \U0001d11e".encode(),
        "control": b"a\0\n\x7fb",
        "cut": b"\xc3 \xe2\x82 \xf0\x9d\x84",
        "overlong": b"\xc0\x80 \xe0\x80\x80 \xed\xa0\x80 \xf0\x80\x80\x80 \xf4\x90\x80\x80 \xff",
    }
    return frames() | {
        f"error-{name}": b"\x0a" + bytes([len(text)]) + text + b"\x12\0"
        for name, text in texts.items()
    }


def connections() -> Seeds:
    """Two bytes before the stream: how it is cut, and what to do with it."""
    streams = frames()
    single = {name: b"\0\0" + stream for name, stream in streams.items()}
    good = [stream for name, stream in streams.items() if name.startswith("golden-")]
    whole = b"".join(good)
    several = {
        "several": b"\0\0" + whole,
        "several-by-one-byte": b"\x01\0" + whole,
        "several-with-pauses": b"\x11\2" + whole,
        "several-thrown-away": b"\x07\4" + whole,
        "repaired": b"\0\1" + bytes(range(256)) * 2,
    }
    return single | several


def capabilities() -> Seeds:
    rows = vectors("capability")
    keyring = bytes.fromhex(rows["keyring"])
    current = {key["id"] for key in rows["keys"][:2]}
    seeds = {"keyring": b"\2" + keyring, "mint": b"\1" + bytes(range(100))}
    for number, row in enumerate(rows["tokens"]):
        valid = "golden" if row["key_id"] in current else "old-key"
        seeds[f"{valid}-token-{number}"] = b"\0" + keyring + bytes.fromhex(row["token"])
    return seeds | {
        f"mint-{name}": b"\1" + struct.pack("<B4sQ16sQQ16s", rights, *CAPABILITY) + asked
        for name, rights, asked in (
            ("valid", 3, b"\1\0\0"),
            ("other-rights", 1, b"\2\0\0"),
            ("other-inode", 3, b"\1\1" + bytes(8) + b"\0"),
            ("expired", 3, b"\1\0\1" + b"\xff" * 7 + b"\0"),
        )
    }


# cluster, inode, client, issued, expiry, session
CAPABILITY = (b"abcd", 7, bytes(range(16)), 1_750_000_000_000, 1_750_000_600_000, bytes(16))


def identity(sequence: int = 3) -> common_pb2.UpdateIdentity:
    return common_pb2.UpdateIdentity(client_id=bytes(range(16)), channel=2, sequence=sequence)


def storage_messages() -> Seeds:
    s = storage_pb2
    chunk = common_pb2.ChunkId(inode=7, index=3)
    to = {"target_id": 301, "chain_id": 5, "chain_version": 4}
    row = s.DedupRow(
        client_id=bytes(16), channel=1, sequence=9, chunk=chunk, version=2, chunk_length=4096
    )
    info = s.ChunkInfo(chunk=chunk, version=2, chain_version=4, length=4096, checksum=77)
    forward = s.ForwardRequest(
        **to,
        from_target=201,
        chunk=chunk,
        kind=s.UPDATE_WRITE,
        version=6,
        offset=4096,
        length=8192,
        chunk_size=1 << 20,
        checksum=123456,
        identity=identity(),
        update_chain_version=4,
    )
    piece = s.ForwardRequest()
    piece.CopyFrom(forward)
    piece.kind, piece.offset, piece.resync, piece.length = s.UPDATE_REPLACE, 0, True, 9000
    messages: list[tuple[str, int, Any]] = [
        ("read", 0, s.ReadRequest(**to, chunk=chunk, offset=4096, length=65536)),
        (
            "write",
            1,
            s.WriteRequest(
                **to, chunk=chunk, offset=1, length=99, identity=identity(), chunk_size=1 << 20
            ),
        ),
        (
            "truncate",
            2,
            s.TruncateRequest(**to, chunk=chunk, length=5, identity=identity(), chunk_size=1 << 16),
        ),
        ("remove", 3, s.RemoveRequest(**to, chunk=chunk, identity=identity())),
        ("forward", 4, forward),
        ("forward-piece", 4, piece),
        (
            "sync-start",
            5,
            s.SyncStartRequest(**to, from_target=201, after=chunk, limit=100, dedup=[row, row]),
        ),
        ("sync-done", 6, s.SyncDoneRequest(**to, from_target=201)),
        ("query-last", 7, s.QueryLastRequest(**to, inode=7)),
        ("dump", 8, s.DumpRequest(target_id=301, after=chunk, limit=4096)),
        ("read-raw", 9, s.ReadRawRequest(target_id=301, chunk=chunk, offset=0, length=4096)),
        ("update-reply", 10, s.UpdateReply(version=6, chunk_length=4096, checksum=9)),
        ("sync-start-reply", 11, s.SyncStartReply(chunks=[info, info], end=True)),
        (
            "fetch",
            12,
            s.FetchRequest(
                **to, from_target=201, chunk=chunk, offset=8192, length=4096, settled=True
            ),
        ),
        (
            "fetch-reply",
            13,
            s.FetchReply(
                length=4096, chunk_length=65536, version=6, update_chain_version=4, checksum=9
            ),
        ),
    ]
    seeds = {}
    for name, which, message in messages:
        payload = {"forward": 8192, "forward-piece": 4500}.get(name)
        lead = bytes([which]) + (struct.pack("<I", payload) if payload is not None else b"")
        seeds[f"golden-{name}"] = lead + message.SerializeToString()
    beyond = s.ReadRequest(**to, chunk=chunk, offset=(64 << 20) - 100, length=4096)
    rows = s.SyncStartRequest(**to, from_target=201, limit=100, dedup=[s.DedupRow()] * 16385)
    page = s.SyncStartReply(chunks=[s.ChunkInfo()] * 4097)
    return seeds | {
        "read-beyond-the-chunk": b"\0" + beyond.SerializeToString(),
        "sync-start-too-many-rows": b"\5" + rows.SerializeToString(),
        "sync-start-reply-too-many-chunks": b"\13" + page.SerializeToString(),
    }


# ---- the disk (native/engine/FORMAT.md)


def head_record(committed: int, pending: int) -> bytes:
    return struct.pack("<BBB", 1, committed, pending)


def version_record(version: int, length: int, size_class: int, block: int) -> bytes:
    sums = (length + 4095) // 4096
    identity = struct.pack("<16sIQ", bytes(range(16)), 2, 3)
    body = struct.pack("<BBQIII", 1, 1, version, 4, length, 99) + identity
    return body + struct.pack("<IBI", length, size_class, block) + bytes(4 * sums)


def patched_record(version: int, length: int, size_class: int, block: int, first: int) -> bytes:
    plain = version_record(version, length, size_class, block)
    sums = 4 * ((length + 4095) // 4096)
    return b"\2" + plain[1:-sums] + struct.pack("<Q", first) + plain[-sums:]


def patch_key(target: int, inode: int, index: int, version: int) -> bytes:
    return chunk_key(target, inode, index, 3) + struct.pack(">Q", version)


def dedup_record() -> bytes:
    return struct.pack("<BQQQQII", 1, 3, 7, 3, 6, 4096, 99)


def chunk_key(target: int, inode: int, index: int, row: int) -> bytes:
    return b"c" + struct.pack(">QQQB", target, inode, index, row)


def dedup_key(target: int) -> bytes:
    return b"d" + struct.pack(">Q16sI", target, bytes(range(16)), 2)


def records() -> Seeds:
    return {
        "golden-head": b"\0" + sealed(head_record(0, 1)),
        "golden-version": b"\1" + sealed(version_record(6, 8192, 1, 3)),
        "golden-target": b"\2" + sealed(struct.pack("<BI", 1, 5)),
        "golden-opened": b"\3" + sealed(struct.pack("<BQ", 1, 12)),
        "golden-dedup": b"\4" + sealed(dedup_record()),
        "golden-dedup-touched": b"\4" + sealed(dedup_record() + struct.pack("<Q", 7)),
        "dedup-touched-zero": b"\4" + sealed(dedup_record() + bytes(8)),
        "golden-patched-version": b"\1" + sealed(patched_record(6, 8192, 1, 3, 5)),
        "golden-patch": b"\6" + sealed(struct.pack("<BI", 1, 9) + b"p" * 4096),
        "key-chunk": b"\5" + chunk_key(301, 7, 3, 1),
        "key-patch": b"\5" + patch_key(301, 7, 3, 6),
        "key-dedup": b"\5" + dedup_key(301),
        "key-bad": b"\5b" + struct.pack(">BI", 4, 9),
        "key-target": b"\5a" + struct.pack(">Q", 301),
        "key-opened": b"\5o",
    }


def superblocks() -> Seeds:
    head = struct.pack("<8sII16s", b"fs3disk\n", 1, 3, bytes(range(16)))
    return {"golden-superblock": sealed(head.ljust(4092, b"\0")), "short": head}


def rows(pairs: list[tuple[bytes, bytes]], close: bool) -> bytes:
    """Closed: the target puts the CRC behind each value, so that changes get past it."""
    out = b"\x80" if close else b"\0"
    for key, value in pairs:
        body = value if close else sealed(value)
        out += bytes([len(key)]) + key + bytes([len(body)]) + body
    return out


def loads() -> Seeds:
    target = b"a" + struct.pack(">Q", 301), struct.pack("<BI", 1, 5)
    bad = b"b" + struct.pack(">BI", 1, 9), b""
    chunk = [
        (chunk_key(301, 7, 3, 0), head_record(0, 1)),
        (chunk_key(301, 7, 3, 1), version_record(5, 8192, 1, 3)),
        (chunk_key(301, 7, 3, 2), version_record(6, 8192, 1, 4)),
    ]
    other = [
        (chunk_key(301, 8, 0, 0), head_record(0, 255)),
        (chunk_key(301, 8, 0, 1), version_record(1, 4096, 0, 1)),
    ]
    dedup = dedup_key(301), dedup_record()
    opened = b"o", struct.pack("<BQ", 1, 12)
    sound = [target, *chunk, *other, dedup, opened]
    shared = [target, *chunk, (other[0]), (other[1][0], version_record(1, 8192, 1, 3))]
    both = [
        target,
        (b"b" + struct.pack(">BI", 1, 3), b""),
        *chunk,
        other[0],
        (other[1][0], version_record(1, 8192, 1, 3)),
    ]
    patched = [
        (chunk_key(301, 9, 0, 0), head_record(0, 1)),
        (chunk_key(301, 9, 0, 1), patched_record(5, 8192, 1, 5, 4)),
        (chunk_key(301, 9, 0, 2), patched_record(6, 8192, 1, 5, 4)),
        *(
            (patch_key(301, 9, 0, version), struct.pack("<BI", 1, version - 4))
            for version in (4, 6)
        ),
    ]
    stray = patch_key(301, 9, 0, 7), struct.pack("<BI", 1, 0)
    return {
        "patched-closed": rows([target, *patched], True),
        "stray-patch": rows([target, *patched, stray], True),
        "golden-disk": rows(sound, False),
        "golden-disk-closed": rows(sound, True),
        "bad-block": rows([target, bad, *chunk], True),
        "shared-block": rows(shared, True),
        "shared-bad-block": rows(both, True),
        "version-missing": rows([target, chunk[0], chunk[1]], True),
        "no-target": rows(chunk, True),
    }


# ---- routing


def routing_info() -> common_pb2.RoutingInfo:
    c = common_pb2
    nodes = [
        c.Node(id=1, role="storage", name="storage-1", addresses=["tcp://127.0.0.1:7101"]),
        c.Node(
            id=2, role="storage", name="storage-2", addresses=["unix:///run/x", "tcp://[::1]:9"]
        ),
        c.Node(id=9, role="meta", name="meta", addresses=["tcp://127.0.0.1:7011"], alive=True),
    ]
    chain = c.Chain(
        id=5,
        version=4,
        targets=[
            c.ChainTarget(target_id=101, node_id=1, state=c.SERVING),
            c.ChainTarget(target_id=201, node_id=2, state=c.SYNCING),
        ],
    )
    table = c.ChainTable(id=1, version=1, chains=[5, 5, 5])
    return c.RoutingInfo(
        version=7, cluster_id=bytes(16), nodes=nodes, chains=[chain], tables=[table]
    )


def routings() -> Seeds:
    lead = struct.pack("<BBBHQB", 1, 1, 0, 2, 42, 1)
    twice = routing_info()
    twice.chains[0].targets[1].target_id = 101
    return {
        "golden-routing": lead + routing_info().SerializeToString(),
        "target-twice": lead + twice.SerializeToString(),
    }


# ---- the mount


def request(opcode: int, body: bytes, node: int = 1, answers: tuple[bytes, ...] = ()) -> bytes:
    out = bytes([0, opcode, node]) + struct.pack("<H", len(body)) + body + b"\1"
    for answer in answers:
        out += b"\0" + struct.pack("<H", len(answer)) + answer
    return out


def mounts() -> Seeds:
    m = meta_pb2
    layout = common_pb2.Layout(
        chain_table=1, chain_table_version=1, chunk_size=1 << 20, stripe=1, seed=3
    )
    attr = m.Attr(inode=7, type=m.FILE, mode=0o644, nlink=1, size=4096, version=3, layout=layout)
    lease = m.Lease(id=1, ttl_ms=1000)
    entry = m.Entry(attr=attr, lease=lease)
    lookup = m.LookupReply(entry=entry).SerializeToString()
    opened = m.OpenReply(
        attr=attr, lease=lease, session=bytes(16), capability=bytes(range(80)), created=True
    ).SerializeToString()
    listing = m.ReaddirReply(
        entries=[
            m.DirEntry(name=b"a", inode=7, type=m.FILE, cookie=16, attr=attr),
            m.DirEntry(name=b"b", inode=8, type=m.DIRECTORY, cookie=17),
        ],
        lease=lease,
        parent=1,
    )
    last = m.ReaddirReply(end=True).SerializeToString()
    attributes = m.AttrReply(attr=attr, lease=lease).SerializeToString()
    renamed = m.RenameReply(entry=entry, replaced_inode=9).SerializeToString()
    read = struct.pack("<QQIIQII", 1, 0, 4096, 0, 0, 0, 0)
    write = struct.pack("<QQIIQII", 1, 0, 4, 0, 0, 0, 0) + b"data"
    create = struct.pack("<IIII", 0o102 | 0o100, 0o644, 0o022, 0) + b"new\0"
    setattr_body = struct.pack("<II", 8, 0) + struct.pack("<Q", 1) + bytes(72)
    far_times = struct.pack("<II24x", 0x30, 0) + struct.pack("<QQQ", *[1 << 60] * 3) + bytes(32)
    files = [
        request(1, b"a\0", answers=(lookup,)),  # LOOKUP
        request(35, create, answers=(opened,)),  # CREATE
        request(16, write, node=7),  # WRITE
        request(15, read, node=7),  # READ
        request(20, struct.pack("<QII", 1, 0, 0), node=7),  # FSYNC
        request(4, setattr_body, node=7, answers=(attributes,)),  # SETATTR
        request(18, struct.pack("<QIIQ", 1, 0, 0, 0), node=7),  # RELEASE
    ]
    directories = [
        request(27, struct.pack("<II", 0, 0)),  # OPENDIR
        request(44, read, answers=(listing.SerializeToString(), last)),  # READDIRPLUS
        request(28, read, answers=(listing.SerializeToString(), last)),  # READDIR
        request(29, struct.pack("<QIIQ", 1, 0, 0, 0)),  # RELEASEDIR
    ]
    names = [
        request(12, struct.pack("<Q", 1) + b"a\0b\0", answers=(renamed,)),  # RENAME
        request(45, struct.pack("<QII", 1, 1, 0) + b"a\0b\0", answers=(renamed,)),  # RENAME2
        request(10, b"a\0", answers=(m.RemoveReply(inode=7, last=True).SerializeToString(),)),
        request(6, b"l\0target\0", answers=(m.EntryReply(entry=entry).SerializeToString(),)),
        request(5, b"", answers=(m.ReadlinkReply(target=b"target").SerializeToString(),)),
        request(42, struct.pack("<II", 1, 0) + struct.pack("<QQ", 7, 1)),  # BATCH_FORGET
        request(2, struct.pack("<Q", 1), node=7),  # FORGET
        request(17, b"", answers=(m.StatfsReply(block_size=4096).SerializeToString(),)),
        request(26, struct.pack("<IIII", 7, 41, 1 << 20, 0xFFFFFFFF) + bytes(48)),  # INIT
    ]
    return {
        "golden-files": b"".join(files),
        "golden-directories": b"".join(directories),
        "golden-names": b"".join(names),
        "times-beyond-the-count": request(4, far_times, node=7, answers=(attributes,)),
    }


def replicas() -> Seeds:
    """Bytes are events; a few walks that reach the states worth starting from."""
    writes = bytes([0, 8, 1, 1, 8, 8, 12, 0, 9, 12, 0, 8, 12, 0]) * 4
    failover = writes + bytes([0x96, 0, 26, 20, 21]) + writes + bytes([26, 26, 20, 21]) + writes
    return {"golden-writes": writes, "golden-failover": failover}


TARGETS = {
    "frame": frames_and_errors,
    "connection": connections,
    "capability": capabilities,
    "storage_messages": storage_messages,
    "engine_records": records,
    "superblock": superblocks,
    "engine_load": loads,
    "routing": routings,
    "mount": mounts,
    "replicas": replicas,
}


def main(directory: pathlib.Path) -> None:
    for target, seeds in TARGETS.items():
        folder = directory / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS)
