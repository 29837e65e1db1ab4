"""Range locks (fs3/meta/ranges.py) against those of the running kernel, step by step.

Open file descriptions are the owners (F_OFD_SETLK), so one process can be many.
"""

import errno
import fcntl
import os
import pathlib
import struct
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs3.meta.ranges import END_MAX, READ, UNLOCK, WRITE, FileLocks, Owner, Range

FLOCK = struct.Struct("hhqqi4x")
OWNERS = 4
TYPES = {READ: fcntl.F_RDLCK, WRITE: fcntl.F_WRLCK, UNLOCK: fcntl.F_UNLCK}
CLIENT = b"c" * 16


def owner(number: int) -> Owner:
    return Owner(CLIENT, number)


class Kernel:
    def __init__(self, place: pathlib.Path) -> None:
        self.descriptors = [os.open(place, os.O_RDWR | os.O_CREAT) for _ in range(OWNERS)]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def set(self, number: int, start: int, end: int, type: int) -> bool:
        length = 0 if end == END_MAX else end - start + 1
        lock = FLOCK.pack(TYPES[type], os.SEEK_SET, start, length, 0)
        try:
            fcntl.fcntl(self.descriptors[number], fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES)
            return False
        return True

    def conflict(self, number: int, start: int, end: int, type: int) -> tuple[int, int, int] | None:
        length = 0 if end == END_MAX else end - start + 1
        lock = FLOCK.pack(TYPES[type], os.SEEK_SET, start, length, 0)
        answer = fcntl.fcntl(self.descriptors[number], fcntl.F_OFD_GETLK, lock)
        found, _, first, size, _ = FLOCK.unpack(answer)
        if found == fcntl.F_UNLCK:
            return None
        kind = READ if found == fcntl.F_RDLCK else WRITE
        return kind, first, END_MAX if size == 0 else first + size - 1


class Ours:
    def __init__(self) -> None:
        self.locks = FileLocks()

    def set(self, number: int, start: int, end: int, type: int) -> bool:
        if self.locks.conflict(owner(number), start, end, type) is not None:
            return False
        before = set(self.locks.all())
        gone, come = self.locks.apply(owner(number), start, end, type, number)
        after = set(self.locks.all())
        # What it says that it changed is what it changed: the rows of the KV follow it.
        assert {(owner(number), each) for each in gone} == before - after
        assert {(owner(number), each) for each in come} == after - before
        return True

    def conflict(self, number: int, start: int, end: int, type: int) -> tuple[int, int, int] | None:
        found = self.locks.conflict(owner(number), start, end, type)
        return None if found is None else (found[1].type, found[1].start, found[1].end)


@pytest.fixture(params=["/dev/shm", ""])
def place(request: pytest.FixtureRequest) -> Iterator[pathlib.Path]:
    """A file on tmpfs, and one on whatever holds temporary files."""
    if request.param and not os.access(request.param, os.W_OK):
        pytest.skip(f"{request.param} is not there")
    with tempfile.TemporaryDirectory(dir=request.param or None) as directory:
        yield pathlib.Path(directory) / "locked"


SPOTS = st.one_of(st.integers(0, 12), st.sampled_from([100, END_MAX - 1, END_MAX]))
STEPS = st.lists(
    st.tuples(st.integers(0, OWNERS - 1), SPOTS, SPOTS, st.sampled_from(list(TYPES))), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_as_the_kernel_does(steps: list[tuple[int, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        compare(pathlib.Path(directory) / "locked", steps)


def compare(path: pathlib.Path, steps: list[tuple[int, int, int, int]]) -> None:
    kernel, ours = Kernel(path), Ours()
    try:
        for number, one, two, type in steps:
            start, end = min(one, two), max(one, two)
            assert ours.set(number, start, end, type) == kernel.set(number, start, end, type)
            for asked in range(OWNERS):
                for at in (start - 1, start, end, end + 1):
                    if not 0 <= at <= END_MAX:
                        continue
                    for wanted in (READ, WRITE):
                        assert ours.conflict(asked, at, at, wanted) == kernel.conflict(
                            asked, at, at, wanted
                        )
                assert ours.conflict(asked, 0, END_MAX, WRITE) == kernel.conflict(
                    asked, 0, END_MAX, WRITE
                )
    finally:
        kernel.close()


def test_on_both_file_systems(place: pathlib.Path) -> None:
    steps = [
        (0, 0, 9, READ),
        (1, 5, 14, READ),
        (0, 3, 4, WRITE),
        (0, 0, 20, UNLOCK),
        (2, 7, 7, WRITE),
    ]
    compare(place, steps)


def test_ten_thousand_ranges_cost_a_search_each() -> None:
    locks = FileLocks()
    for number in range(10_000):
        locks.apply(owner(number % 3), 2 * number, 2 * number, WRITE, 1)
    assert len(locks) == 10_000
    examined = Counted(locks._writes)
    locks._writes = examined  # type: ignore[assignment]
    assert locks.conflict(owner(5), 9_998, 9_998, READ) is not None
    assert locks.conflict(owner(5), 9_999, 9_999, READ) is None
    assert examined.looked < 60, "a look at every range"


class Counted(list[tuple[int, int, Owner]]):
    looked = 0

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        self.looked += 1
        return super().__getitem__(at)


def test_the_first_process_stays_the_name_of_a_range() -> None:
    locks = FileLocks()
    locks.apply(owner(0), 0, 4, READ, 11)
    locks.apply(owner(0), 5, 9, READ, 22)
    assert locks.held(owner(0)) == [Range(0, 9, READ, 11)]
