"""Mounts of the memory file system through our own FUSE session, in both transports."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from fs3 import _native

URING = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


def uring_obstacle() -> str:
    """Why FUSE over io_uring cannot be tested here; empty when it can."""
    if not URING.exists():
        return "this kernel has no FUSE over io_uring (Linux 6.14)"
    if URING.read_text().strip() == "N" and not os.access(URING, os.W_OK):
        return f"{URING} is N and only root may change it"
    return ""


@contextlib.contextmanager
def uring_enabled() -> Iterator[None]:
    """The parameter is what it was afterwards; mounts made meanwhile keep working."""
    before = URING.read_text()
    URING.write_text("Y")
    try:
        yield
    finally:
        URING.write_text(before)


@pytest.fixture(params=["classic", "io_uring"])
def memory_mount(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[tuple[pathlib.Path, _native.FuseMount]]:
    """An empty mounted memory file system and its mount."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened here")
    over_uring = request.param == "io_uring"
    if over_uring and uring_obstacle():
        pytest.skip(uring_obstacle())
    place = tmp_path / "mnt"
    place.mkdir()
    with uring_enabled() if over_uring else contextlib.nullcontext():
        mount = _native.null_mount(
            str(place), uring="required" if over_uring else "off", reactors=2
        )
        mount.start()
    try:
        assert mount.over_uring() == over_uring
        yield place, mount
    finally:
        mount.stop(force=True)
        # Only when stop() failed: never leave a mount behind that hangs the next test.
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False, timeout=30)
    assert not os.path.ismount(place)
