"""Mounts of the memory file system through our own FUSE session, in both transports; two mounts of
a real cluster; and --deep, for what takes longer than a change can wait."""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from fs3 import _native
from tests.cluster.conftest import LocalFs3
from tests.cluster.mounts import mounted


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="everything, at full length")


@pytest.fixture(scope="session")
def deep(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--deep"))


@dataclasses.dataclass(frozen=True)
class Mounts:
    """A cluster and two mounts of it, each a process of its own."""

    cluster: LocalFs3
    first: pathlib.Path
    second: pathlib.Path


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    """Shared by the tests that leave nothing behind; `fs3 check` at the end."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened here")
    base = tmp_path_factory.mktemp("posix")
    for parent in [base, *base.parents]:  # other users must get there
        if os.stat(parent).st_uid == os.geteuid():
            os.chmod(parent, os.stat(parent).st_mode | 0o111)
    cluster = LocalFs3(base)
    cluster.up()
    try:
        cluster.wait_healthy()
        with (
            mounted(cluster, base / "first", "native", "-o", "dev") as first,
            mounted(cluster, base / "second", "native", "-o", "dev") as second,
        ):
            yield Mounts(cluster, first.place, second.place)
    finally:
        cluster.checked_down()


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
