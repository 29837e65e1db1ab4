"""Work on the mounts while faults happen; each remembers what was acknowledged, and checks it.

Every workload runs in threads of its own until stopped. An OSError that a fault explains (the mount
was killed, or a deadline passed) ends the attempt, not the workload; what was not acknowledged may
be there or not.
"""

import abc
import errno
import itertools
import mmap
import os
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.nemesis.failure import Failure
from tests.nemesis.registers import INITIAL, NEVER, Operation, violation

__all__ = ["Manifest", "Names", "Registers", "Workload"]

CELL = 4096
CELLS = 24
NAMES = [f"n{index}" for index in range(12)]
Listing = dict[str, int]  # name -> number of the entry
# What a dead mount answers.
MOUNT_GONE = (
    errno.ENOTCONN,
    errno.ECONNABORTED,
    errno.EIO,
    errno.ENODEV,
    errno.EINTR,
    errno.ESTALE,
)


class Workload(abc.ABC):
    """`begin()` starts the threads, `end()` joins them, then `verify(mount)` raises Failure."""

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        self._mounts = mounts
        self._seed = seed
        self.acknowledged = 0
        self.in_flight = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        self._stop.clear()
        bodies = self.bodies()
        self._threads = [threading.Thread(target=self._run, args=(body,)) for body in bodies]
        for thread in self._threads:
            thread.start()

    def end(self, timeout_s: float) -> None:
        self._stop.set()
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
            if thread.is_alive():
                raise Failure(f"{type(self).__name__}: an operation has not ended in {timeout_s} s")
        if self.errors:
            raise Failure(f"{type(self).__name__}: {self.errors[0]}")

    @abc.abstractmethod
    def bodies(self) -> list[Callable[[], None]]:
        """One step of each thread."""

    @abc.abstractmethod
    def verify(self, mount: pathlib.Path) -> str:
        """Compares what a fresh mount shows with what was acknowledged; says what it compared."""

    def _run(self, body: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                body()
            except OSError as error:
                if error.errno not in MOUNT_GONE:
                    self.errors.append(f"the application saw {error}")
                    return
                self._stop.wait(0.1)
            except Failure as error:
                self.errors.append(str(error))
                return

    @contextmanager
    def _flight(self) -> Iterator[None]:
        """Counts what is under way, and what was acknowledged."""
        with self._lock:
            self.in_flight += 1
        try:
            yield
            with self._lock:
                self.acknowledged += 1
        finally:
            with self._lock:
                self.in_flight -= 1


class Manifest(Workload):
    """Writes files, and records one only after fsync of the file and of its directory returned.

    The record lies in this process, which no fault touches. Every third file is appended to later:
    its recorded part must stay what it was.
    """

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        super().__init__(mounts, seed)
        self._recorded: dict[str, tuple[int, int]] = {}  # name -> (seed of the content, length)

    def bodies(self) -> list[Callable[[], None]]:
        return [self._writer(mount, number) for number, mount in enumerate(self._mounts)]

    def _writer(self, mount: pathlib.Path, number: int) -> Callable[[], None]:
        counter = itertools.count(len(self._recorded))
        rng = random.Random(f"manifest {self._seed} {number}")

        def step() -> None:
            name = f"manifest-{number}-{next(counter)}-{rng.randrange(1 << 30)}"
            length = rng.choice((1, 100, 4096, 5000, 70_000, rng.randrange(1, 3_000_000)))
            content = _content(length, length)
            with self._flight():
                self._write(mount, name, content)
                with self._lock:
                    self._recorded[name] = (length, length)
            if rng.random() < 0.3:
                more = _content(length, length + rng.randrange(1, 10_000))
                with self._flight():
                    self._append(mount, name, more[length:])
                    with self._lock:
                        self._recorded[name] = (length, len(more))

        return step

    def _write(self, mount: pathlib.Path, name: str, content: bytes) -> None:
        temporary = mount / (name + ".new")
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.rename(mount / name)
        _sync_directory(mount)

    def _append(self, mount: pathlib.Path, name: str, more: bytes) -> None:
        with (mount / name).open("ab", buffering=0) as file:
            file.write(more)
            os.fsync(file.fileno())

    def verify(self, mount: pathlib.Path) -> str:
        for name, (seed, length) in self._recorded.items():
            try:
                found = (mount / name).read_bytes()
            except OSError as error:
                raise Failure(f"{name}, fsynced and recorded, cannot be read: {error}") from None
            wanted = _content(seed, length)
            if found[:length] != wanted:
                at = next(
                    (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
                    len(found),
                )
                raise Failure(
                    f"{name}: {len(found)} bytes, differs from the {length} recorded at {at}"
                )
        return f"{len(self._recorded)} recorded files"


def _content(seed: int, length: int) -> bytes:
    """A longer one begins with the shorter one."""
    block = random.Random(seed).randbytes(1 << 16)
    return (block * (length // len(block) + 1))[:length]


def _sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Registers(Workload):
    """Reads and writes of 4 KiB cells of one file with O_DIRECT, from both mounts.

    Every write waits for its replicas, so the cells must behave as registers. An operation that
    ended with an error has an unknown outcome.
    """

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        super().__init__(mounts, seed)
        self._values = itertools.count(1)
        self._history: list[Operation] = []
        self._begin_s = time.monotonic()

    def bodies(self) -> list[Callable[[], None]]:
        if not self._history:
            with (self._mounts[0] / "registers").open("wb", buffering=0) as file:
                file.write(bytes(CELL * CELLS))
                os.fsync(file.fileno())
        return [self._client(mount, f"{mount.name}/{n}") for mount in self._mounts for n in (1, 2)]

    def _client(self, mount: pathlib.Path, who: str) -> Callable[[], None]:
        rng = random.Random(f"registers {self._seed} {who}")
        buffer = mmap.mmap(-1, CELL)  # page-aligned, as O_DIRECT wants it

        def step() -> None:
            file = os.open(mount / "registers", os.O_RDWR | os.O_DIRECT)
            try:
                for _ in range(20):
                    if self._stop.is_set():
                        break
                    self._operate(file, buffer, rng, who)
            finally:
                os.close(file)

        return step

    def _operate(self, file: int, buffer: mmap.mmap, rng: random.Random, who: str) -> None:
        cell, write = rng.randrange(CELLS), rng.random() < 0.5
        value = next(self._values) if write else INITIAL
        begin_s, end_s = self._now_s(), NEVER
        try:
            with self._flight():
                if write:
                    buffer[:] = value.to_bytes(8, "little") * (CELL // 8)
                    if os.pwritev(file, [buffer], cell * CELL) != CELL:
                        raise Failure("a direct write was short")
                else:
                    if os.preadv(file, [buffer], cell * CELL) != CELL:
                        raise Failure(f"cell {cell}: a direct read was short")
                    value = self._whole(bytes(buffer), cell)
            end_s = self._now_s()
        finally:
            if write or end_s != NEVER:
                with self._lock:
                    self._history.append(Operation(cell, write, value, begin_s, end_s, who))

    def _whole(self, data: bytes, cell: int) -> int:
        if data[:8] * (CELL // 8) != data:
            raise Failure(f"cell {cell}: one read shows two writes")
        return int.from_bytes(data[:8], "little")

    def _now_s(self) -> float:
        return time.monotonic() - self._begin_s

    def verify(self, mount: pathlib.Path) -> str:
        data = (mount / "registers").read_bytes()
        with self._lock:
            for cell in range(CELLS):
                value = self._whole(data[cell * CELL : (cell + 1) * CELL], cell)
                now_s = self._now_s()
                self._history.append(Operation(cell, False, value, now_s, now_s, "final"))
            if text := violation(self._history):
                raise Failure(f"not linearizable: {text}")
        return f"{len(self._history)} register operations"


class Names(Workload):
    """Creates, renames, links and removes names in a directory of its own, one per mount, and
    compares every answer and the directory at the end with a model.

    After an operation of unknown outcome the directory is looked at before the next one: it must be
    as before the operation or as after it.
    """

    def __init__(self, mounts: list[pathlib.Path], seed: int) -> None:
        super().__init__(mounts, seed)
        self._models: dict[str, list[Listing]] = {}  # directory -> what it may hold: one, or two

    def bodies(self) -> list[Callable[[], None]]:
        return [self._walker(mount) for mount in self._mounts]

    def _walker(self, mount: pathlib.Path) -> Callable[[], None]:
        directory = mount / f"names-{mount.name}"
        self._models.setdefault(directory.name, [{}])
        rng = random.Random(f"names {self._seed} {mount.name} {self.acknowledged}")
        numbers = itertools.count(rng.randrange(1 << 40))

        def step() -> None:
            directory.mkdir(exist_ok=True)
            before = self._settled(directory)
            source, target = rng.choice(NAMES), rng.choice(NAMES)
            kind = rng.choice(("create", "rename", "unlink"))
            wanted, after = _model(before, kind, source, target, number := next(numbers))
            self._models[directory.name] = [before, after]
            with self._flight():
                found = _errno_of(lambda: _do(directory, kind, source, target, number))
            if found != wanted:
                what = f"{kind} {source} {target} in {directory.name}"
                raise Failure(f"{what}: errno {found}, not {wanted}")
            self._models[directory.name] = [after]

        return step

    def _settled(self, directory: pathlib.Path) -> Listing:
        possible = self._models[directory.name]
        if len(possible) > 1:
            found = _listing(directory)
            if found not in possible:
                raise Failure(f"{directory.name} holds {found}, which is none of {possible}")
            self._models[directory.name] = [found]
        return self._models[directory.name][0]

    def verify(self, mount: pathlib.Path) -> str:
        count = 0
        for name in self._models:
            expected = self._settled(mount / name)
            found = _listing(mount / name)
            if found != expected:
                raise Failure(f"{name} holds {found}, must be {expected}")
            count += len(found)
        return f"{count} names"


def _model(
    before: Listing, kind: str, source: str, target: str, number: int
) -> tuple[int, Listing]:
    """The errno and what the directory holds afterwards."""
    without = {name: other for name, other in before.items() if name != source}
    if kind == "create":
        return (errno.EEXIST, before) if source in before else (0, {**before, source: number})
    if source not in before:
        return errno.ENOENT, before
    if kind == "unlink":
        return 0, without
    return 0, before if source == target else {**without, target: before[source]}


def _errno_of(action: Callable[[], None]) -> int:
    try:
        action()
    except OSError as error:
        if error.errno in MOUNT_GONE:
            raise
        return error.errno or 0
    return 0


def _do(directory: pathlib.Path, kind: str, source: str, target: str, number: int) -> None:
    """The entries are symbolic links, so that name and number appear in one operation."""
    if kind == "create":
        (directory / source).symlink_to(str(number))
    elif kind == "rename":
        (directory / source).rename(directory / target)
    else:
        (directory / source).unlink()


def _listing(directory: pathlib.Path) -> Listing:
    return {entry.name: int(os.readlink(entry)) for entry in os.scandir(directory)}
