"""Damage on the disk of one process: it says which file and what is wrong and does not serve, the
others live on, and with the file back all is as before."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import struct
import zlib
from collections.abc import Callable

import pytest

from tests.cluster.conftest import LocalFs3

HOLD_S = 600  # a held process starts when its hold file goes


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def garbage(path: pathlib.Path) -> None:
    path.write_bytes(b"\xde\xad" * 200)


def cut(path: pathlib.Path) -> None:
    os.truncate(path, 100)


def empty(path: pathlib.Path) -> None:
    os.truncate(path, 0)


def promise(path: pathlib.Path) -> None:
    """A mark of commits that are not there, as after a loss of the newest ones."""
    number = struct.pack("<Q", 1 << 40)
    path.write_bytes(number + struct.pack("<I", zlib.crc32(number)))


Damage = Callable[[pathlib.Path], None]
CASES: list[tuple[str, str, Damage, str]] = [
    ("storage-1", "superblock", flip, r"storage-1/superblock crc: does not match"),
    ("storage-1", "superblock", cut, r"storage-1/superblock is 100 bytes long"),
    ("storage-1", "superblock", garbage, r"storage-1/superblock is 400 bytes long"),
    ("storage-1", "meta/CURRENT", empty, r"storage-1/meta: open: .*CURRENT"),
    ("storage-1", "meta/MANIFEST-*", garbage, r"storage-1/meta: open: .*(MANIFEST|orruption)"),
    ("meta", "db/CURRENT", pathlib.Path.unlink, r"kv .*/meta: db/CURRENT is missing"),
    ("meta", "db/MANIFEST-*", garbage, r"kv .*/meta: RocksDB cannot open it"),
    ("meta", "FORMAT", garbage, r"kv .*/meta: FORMAT says"),
    ("meta", "DURABLE", promise, r"kv .*/meta: .*acknowledged commits are lost"),
    ("mgmtd", "db/CURRENT", empty, r"kv .*/mgmtd: RocksDB cannot open it"),
    ("mgmtd", "DURABLE", promise, r"kv .*/mgmtd: .*acknowledged commits are lost"),
]


def is_held(cluster: LocalFs3, name: str) -> bool:
    """Down, and the supervisor knows that it is to stay so."""
    return bool(cluster.cluster.state()["processes"][name]["held"])


def pids(cluster: LocalFs3) -> dict[str, int]:
    return {name: entry["pid"] for name, entry in cluster.cluster.state()["processes"].items()}


@pytest.mark.parametrize(
    ("name", "pattern", "damage", "message"),
    CASES,
    ids=[f"{name} {pattern} {damage.__name__}" for name, pattern, damage, _ in CASES],
)
def test_damage_is_named_and_stays_where_it_is(
    running: LocalFs3, name: str, pattern: str, damage: Damage, message: str, tmp_path: pathlib.Path
) -> None:
    kept = running.mount / "kept"
    kept.write_bytes(b"k" * 2_000_000)
    running.wait_healthy()
    before = pids(running)
    hold = running.cluster.run / f"{name}.hold"
    running.local("kill", name, "--hold", str(HOLD_S))
    running.wait_for(lambda: is_held(running, name), f"{name} is down")
    (path,) = (running.data / name).glob(pattern)
    copy = tmp_path / path.name
    shutil.copy2(path, copy)
    log = running.cluster.logs / f"{name}.log"
    begin = log.stat().st_size
    damage(path)
    hold.unlink()

    def told() -> bool:
        with log.open("rb") as file:
            file.seek(begin)
            return re.search(message, file.read().decode(errors="replace")) is not None

    running.wait_for(told, f"{name} says {message}")
    others = {other: pid for other, pid in before.items() if other != name}
    if name.startswith("storage"):  # two replicas are left: reads and writes go on
        assert kept.read_bytes() == b"k" * 2_000_000
        (running.mount / "meanwhile").write_bytes(b"m" * 100_000)
    now = pids(running)
    assert {other: now[other] for other in others} == others, "another process died of it"
    repaired(running, name, copy, path)
    assert kept.read_bytes() == b"k" * 2_000_000
    running.local("check")


def repaired(running: LocalFs3, name: str, copy: pathlib.Path, path: pathlib.Path) -> None:
    """The file comes back while nobody looks at it; then the process serves again."""
    hold = running.cluster.run / f"{name}.hold"
    hold.write_text("99999999999\n")
    pid = pids(running)[name]
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait_for(lambda: is_held(running, name), f"{name} is down")
    shutil.copy2(copy, path)
    hold.unlink()
    running.wait_for(
        lambda: running.cluster.state()["processes"][name]["ready"], f"{name} serves again"
    )
    running.wait_healthy()
