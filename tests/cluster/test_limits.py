"""Bad input and full disks: a clear error, nothing else breaks, nothing is lost."""

import errno
import io
import os
import pathlib
import random
import socket

import pytest

from tests.cluster.conftest import LocalFs3


def test_names(running: LocalFs3) -> None:
    (running.mount / ("n" * 255)).touch()
    with pytest.raises(OSError) as caught:
        (running.mount / ("n" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG
    (running.mount / ("n" * 255)).unlink()


def test_garbage_on_every_port(running: LocalFs3) -> None:
    (running.mount / "before").write_text("still here")
    rng = random.Random(7)
    for entry in running.cluster.state()["processes"].values():
        for address in entry["addresses"]:
            if not address.startswith("tcp://"):
                continue
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            for size in (1, 63, 64, 65, 100_000):
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    try:
                        connection.sendall(rng.randbytes(size))
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(4096):
                            pass
                    except OSError:  # refused: reset at any point, also between two calls here
                        continue
    mgmtd_host, _, mgmtd_port = running.cluster.state()["mgmtd"].rpartition(":")
    with socket.create_connection((mgmtd_host, int(mgmtd_port)), timeout=10) as connection:
        connection.sendall(rng.randbytes(10_000))
    assert (running.mount / "before").read_text() == "still here"
    (running.mount / "after").write_text("goes on")
    assert running.healthy()
    for name in ("before", "after"):
        (running.mount / name).unlink()


def fill(path: pathlib.Path, limit_bytes: int) -> int:
    """Writes until ENOSPC; the bytes that fsync acknowledged."""
    written = 0
    block = os.urandom(1 << 20)
    with path.open("wb", buffering=0) as file:
        try:
            while written < limit_bytes:
                file.write(block)
                os.fsync(file.fileno())
                written += len(block)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return written
    raise AssertionError(f"{limit_bytes} bytes fitted into a smaller disk")


def write_zeros(file: io.RawIOBase, count: int) -> None:
    for _ in range(count):
        file.write(bytes(1 << 20))


def test_full_disk(fs3: LocalFs3) -> None:
    fs3.up("--capacity-mib", "192")
    fs3.wait_healthy()
    (fs3.mount / "small").write_bytes(b"s" * 10_000)
    acknowledged = 0
    try:
        acknowledged = fill(fs3.mount / "big", 400 << 20)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert acknowledged > 16 << 20
    with (fs3.mount / "unsynced").open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left"):  # from a write, not only from fsync
            write_zeros(file, 64)
        with pytest.raises(OSError, match="No space left"):
            os.fsync(file.fileno())
    assert (fs3.mount / "small").read_bytes() == b"s" * 10_000
    assert (fs3.mount / "big").stat().st_size >= acknowledged
    # A cut into a chunk takes no room, and gives back what lies beyond.
    with (fs3.mount / "big").open("rb") as file:
        kept = file.read(3_000_001)
    os.truncate(fs3.mount / "big", len(kept))
    assert (fs3.mount / "big").read_bytes() == kept
    (fs3.mount / "unsynced").unlink()

    def fits() -> bool:
        try:
            (fs3.mount / "again").write_bytes(b"a" * (32 << 20))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return False
        return True

    fs3.wait_for(fits, "space freed by the truncate")
    assert (fs3.mount / "again").read_bytes() == b"a" * (32 << 20)
    (fs3.mount / "again").unlink()
    (fs3.mount / "big").unlink()
    fs3.wait_for(fits, "space freed by the removals")
