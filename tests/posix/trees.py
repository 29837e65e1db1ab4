"""Processes change one tree through several mounts at once; at the end all mounts show one tree.

    python -m tests.posix.trees --seconds 30 --seed 7 MOUNT1 MOUNT2

Names are few, so that the processes meet: they create, link, rename and remove each other's files
and directories. An operation may fail with what a race explains (the file is gone, the name is
taken) and with nothing else. Every file is written once, in one piece, by the process that made it:
what is found later is such a piece, or nothing yet.
"""

import argparse
import collections
import dataclasses
import errno
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence

from tests.posix import snapshot
from tests.posix.libc import call
from tests.posix.text import flags

__all__ = ["PROCESSES", "TreesDiffer", "run"]

PROCESSES = 8
NAMES = [b"a", b"b", b"c", b"d", b"e"]
DEPTH_MAX = 3
RECORD = b"process %06d wrote %09d\n"
# What a race between two processes explains; EIO, EBUSY or EACCES are none of these. ESTALE is: the
# kernel looks once more by itself, and what it found may be gone a second time.
RACES = frozenset(
    [
        *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
        *(
            errno.EINVAL,
            errno.ELOOP,
            errno.ENODATA,
        ),  # a loop of directories, of links; no attribute
    ]
)
# An attribute of a FIFO, a second name for a directory.
ALSO = dict.fromkeys(["setxattr", "removexattr", "link"], errno.EPERM)
EXCHANGE = flags("RENAME_EXCHANGE")
NOREPLACE = flags("RENAME_NOREPLACE")


class TreesDiffer(AssertionError):
    """Two mounts show two things, or a process met what no race explains."""


class Worker:
    """One process: random operations below `root`, from a seed."""

    def __init__(self, root: bytes, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._seed = seed
        self._written = 0
        self.counts: collections.Counter[str] = collections.Counter()

    def run(self, until_s: float) -> str:
        """What went wrong; empty when nothing did."""
        operations: list[Callable[[], None]] = [
            *(self.create, self.create, self.mkdir, self.symlink, self.link, self.unlink),
            *(self.rename, self.rename, self.exchange, self.rename_to_nothing, self.rmdir),
            *(self.chmod, self.list, self.read, self.setxattr, self.removexattr, self.mkfifo),
        ]
        while time.monotonic() < until_s:
            operation = self._random.choice(operations)
            try:
                operation()
                self.counts[operation.__name__] += 1
            except OSError as error:
                if error.errno not in RACES and error.errno != ALSO.get(operation.__name__):
                    return f"seed {self._seed}: {operation.__name__}: {error}"
                self.counts[f"{operation.__name__} in vain"] += 1
            except AssertionError as error:
                return f"seed {self._seed}: {operation.__name__}: {error}"
        return ""

    def _path(self) -> bytes:
        depth = self._random.randint(1, DEPTH_MAX)
        return b"/".join([self._root, *self._random.choices(NAMES, k=depth)])

    def create(self) -> None:
        self._written += 1
        fd = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            record = RECORD % (self._seed, self._written)
            assert os.write(fd, record) == len(record)
        finally:
            os.close(fd)

    def read(self) -> None:
        fd = os.open(self._path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            content = os.read(fd, 1 << 12)
        finally:
            os.close(fd)
        check_record(content)

    def mkdir(self) -> None:
        os.mkdir(self._path())

    def symlink(self) -> None:
        os.symlink(self._random.choice(NAMES), self._path())

    def mkfifo(self) -> None:
        os.mkfifo(self._path())

    def link(self) -> None:
        os.link(self._path(), self._path(), follow_symlinks=False)

    def unlink(self) -> None:
        os.unlink(self._path())

    def rmdir(self) -> None:
        os.rmdir(self._path())

    def rename(self) -> None:
        os.rename(self._path(), self._path())

    def exchange(self) -> None:
        call("renameat2", -100, self._path(), -100, self._path(), EXCHANGE)

    def rename_to_nothing(self) -> None:
        call("renameat2", -100, self._path(), -100, self._path(), NOREPLACE)

    def chmod(self) -> None:
        os.chmod(self._path(), self._random.choice([0o700, 0o755, 0o777]))

    def setxattr(self) -> None:
        os.setxattr(self._path(), "user.seed", b"%d" % self._seed)

    def removexattr(self) -> None:
        os.removexattr(self._path(), "user.seed")

    def list(self) -> None:
        path = self._path()
        names = os.listdir(path)
        assert len(names) == len(set(names)), f"{path!r} lists a name twice: {names}"
        assert set(names) <= set(NAMES), f"{path!r} lists what nobody made: {names}"


def check_record(content: bytes) -> None:
    """One whole record, or nothing yet."""
    whole = len(content) == len(RECORD % (0, 0)) and content.startswith(b"process ")
    assert not content or whole, f"a file holds what nobody wrote: {content[:80]!r}"


def _work(root: bytes, seed: int, until_s: float, results: "multiprocessing.Queue[object]") -> None:
    worker = Worker(root, seed)
    results.put((worker.run(until_s), dict(worker.counts)))


def run(mounts: Sequence[pathlib.Path], *, seconds: float, seed: int) -> str:
    """What was done, in a sentence; raises TreesDiffer. `mounts` show the same directory."""
    name = f"trees-{os.getpid()}"
    (mounts[0] / name).mkdir()
    try:
        counts = _storm([os.fsencode(mount / name) for mount in mounts], seconds, seed)
        entries = _compare([mount / name for mount in mounts], seed)
    finally:
        shutil.rmtree(mounts[0] / name)
    done = sum(count for what, count in counts.items() if not what.endswith("in vain"))
    missing = {what for what in _operations() if not counts[what]}
    if missing:
        raise TreesDiffer(f"seed {seed}: nothing was proved of {', '.join(sorted(missing))}")
    return (
        f"{done:,} operations of {PROCESSES} processes ({counts.total() - done:,} in vain) left "
        f"{entries:,} names, equal on {len(mounts)} mounts"
    )


def _operations() -> list[str]:
    return [
        *("create", "read", "mkdir", "symlink", "mkfifo", "link", "unlink", "rmdir", "rename"),
        *("exchange", "rename_to_nothing", "chmod", "setxattr", "removexattr", "list"),
    ]


def _storm(roots: list[bytes], seconds: float, seed: int) -> collections.Counter[str]:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[object] = context.Queue()
    until_s = time.monotonic() + seconds
    processes = [
        context.Process(
            target=_work,
            args=(roots[number % len(roots)], seed * PROCESSES + number, until_s, results),
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for _ in processes:
        failure, counted = results.get(timeout=seconds + 120)  # type: ignore[misc]
        counts.update(counted)
        if failure:
            wrong.append(failure)
    for process in processes:
        process.join()
    if wrong:
        raise TreesDiffer("\n".join(wrong))
    return counts


def _compare(roots: list[pathlib.Path], seed: int) -> int:
    """How many names there are, the same on all; every file is one record."""
    trees = [
        # Reading moves the time of access, and this reads one after the other.
        {
            path: dataclasses.replace(entry, atime=0)
            for path, entry in snapshot.take(str(root)).items()
        }
        for root in roots
    ]
    for root, tree in zip(roots[1:], trees[1:], strict=True):
        for path in sorted({*trees[0], *tree}):
            if trees[0].get(path) != tree.get(path):
                raise TreesDiffer(
                    f"seed {seed}: {path} is {trees[0].get(path)} on {roots[0]} and "
                    f"{tree.get(path)} on {root}"
                )
    for path, entry in trees[0].items():
        if entry.type == "file":
            check_record((roots[0] / path).read_bytes())
    return len(trees[0])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mounts", nargs="+", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(run(options.mounts, seconds=options.seconds, seed=options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
