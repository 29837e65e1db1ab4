"""The tables of calls/ on ext4, which proves the tables, and on fs3."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.posix.actors import Actors
from tests.posix.calls import TABLES
from tests.posix.conformance import Conformance, report, system_of
from tests.posix.conftest import Mounts

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="root, alice and bob take part: needs root"),
]
IMAGE_BYTES = 512 << 20
ASSERTIONS_LEAST = 1_500


@pytest.fixture
def reference(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """ext4 on a loop device; tmpfs where there are no loop devices."""
    place, image = tmp_path / "reference", tmp_path / "image"
    place.mkdir()
    image.touch()
    os.truncate(image, IMAGE_BYTES)
    # 4 KiB blocks: with smaller ones, a symbolic link's target could not be 4,095 bytes long.
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", str(image)], check=True)
    looped = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False)
    if looped.returncode != 0:
        options = ["-t", "tmpfs", "-o", "mode=755", "none", str(place)]
        subprocess.run(["mount", *options], check=True)
    for parent in place.parents:  # alice and bob must get there
        os.chmod(parent, os.stat(parent).st_mode | 0o111)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def conform(
    place: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    *,
    second: pathlib.Path | None,
    deep: bool,
) -> None:
    with Actors() as actors:
        suite = Conformance(place, actors, second=second, everybody=deep)
        try:
            with capsys.disabled():
                print(f"\n{place}:")
                status, outcome = report(suite, TABLES, whole=True)
        finally:
            suite.close()
    assert status == 0, "\n".join(outcome.failures[:20])
    assert outcome.passed >= ASSERTIONS_LEAST


def test_the_tables_hold_on_the_reference(
    reference: pathlib.Path, capsys: pytest.CaptureFixture[str], deep: bool
) -> None:
    assert system_of(reference) in ("ext4", "tmpfs")
    conform(reference, capsys, second=None, deep=deep)


def test_the_tables_hold_on_fs3(
    mounts: Mounts, capsys: pytest.CaptureFixture[str], deep: bool
) -> None:
    assert system_of(mounts.first) == "fs3"
    conform(mounts.first, capsys, second=None, deep=deep)
