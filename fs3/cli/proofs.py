"""The proof that a mounted cluster works: real trees and real programs on the mount, while a
storage node dies.

Each proof is a function of a Bench: it does its work below `bench.work` (a directory on the
mount), compares
bytes, and returns one sentence that says what it proved. It raises ProofFailed otherwise. Cold
comparisons go through a second, fresh mount of the same file system, which has cached nothing.
"""

import dataclasses
import filecmp
import hashlib
import mmap
import os
import pathlib
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator

COMMAND_TIMEOUT_S = 900
_FOR_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


class ProofFailed(Exception):
    """Something was lost, changed, or refused; the text says what and where."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where proofs work. `full` does everything at the size of the test suite, else a short
    form."""

    work: pathlib.Path  # on the mount
    scratch: pathlib.Path  # on a local disk
    cold: Callable[[], pathlib.Path]  # a fresh mount; returns the same directory as `work` in it
    repository: pathlib.Path | None  # a git checkout with native/, when there is one
    full: bool

    def run(self, *command: str, **environment: str) -> str:
        """Runs a program; its output. Raises ProofFailed with the end of the output when it
        fails."""
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env={**os.environ, **_FOR_GIT, **environment},
        )
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            end = "\n".join(text.splitlines()[-15:])
            raise ProofFailed(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{end}")
        return text


def require(condition: bool, text: str) -> None:
    if not condition:
        raise ProofFailed(text)


# ---- 1: a tree ----
def prove_tree(bench: Bench) -> str:
    """The interpreter's standard library: cp -a, then contents and metadata through a fresh
    mount."""
    source = pathlib.Path(sysconfig.get_path("stdlib"))
    reference = bench.scratch / "tree"
    _local_copy(source, reference, bench.full)
    bench.run("cp", "-a", str(reference), str(bench.work / "tree"))
    cold = bench.cold() / "tree"
    # diff calls two fifos different; the walk compares what there is of them.
    bench.run("diff", "-r", "--no-dereference", "--exclude=a fifo", str(reference), str(cold))
    entries = compare_metadata(reference, cold)
    return f"{entries:,} files, directories and links copied with cp -a are equal on a fresh mount"


_SHORT_FORM = ("asyncio", "json", "email", "encodings", "http", "importlib", "logging", "unittest")


def _local_copy(source: pathlib.Path, target: pathlib.Path, full: bool) -> None:
    """The tree on the local disk, as reference: without what is not the standard library, with odd
    entries."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.name in ("site-packages", "dist-packages"):
            continue
        if not full and entry.name not in _SHORT_FORM:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, target / entry.name, follow_symlinks=False)
    odd = target / "odd"
    odd.mkdir(mode=0o750)
    (odd / "to a file").symlink_to("../json/__init__.py")
    (odd / "dangling").symlink_to("nowhere/at all")
    (odd / "empty").touch(mode=0o400)
    (odd / ("n" * 255)).write_bytes(b"a name of 255 bytes")
    os.link(odd / ("n" * 255), odd / "hard link")
    (odd / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(os.urandom(4097))
    os.utime(odd / "empty", ns=(1, 2_000_000_003))
    os.mkfifo(odd / "a fifo", 0o620)


def compare_metadata(left: pathlib.Path, right: pathlib.Path) -> int:
    """Walks both trees; type, mode, owner, size, link count and mtime must agree. Returns the
    number of entries."""
    count = 0
    for path in walk(left):
        ours, theirs = path.lstat(), (right / path.relative_to(left)).lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink"):
            if stat.S_ISDIR(ours.st_mode) and field in ("st_size", "st_nlink"):
                continue  # a directory's own size and links are each file system's business
            a, b = getattr(ours, field), getattr(theirs, field)
            require(a == b, f"{path.relative_to(left)}: {field} is {b}, was {a}")
        count += 1
    return count


def walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            yield pathlib.Path(directory) / name


# ---- 2: git and a compiler ----
# ---------------------------------------------------------------------------------------------


def prove_git(bench: Bench) -> str:
    """git clone into the mount, fsck, another commit checked out; the native code built there
    (full form)."""
    origin = bench.repository or _small_repository(bench)
    clone = bench.work / "clone"
    bench.run("git", "clone", "--no-local", "--quiet", str(origin), str(clone))
    bench.run("git", "-C", str(clone), "fsck", "--full", "--strict")
    commits = bench.run("git", "-C", str(clone), "rev-list", "HEAD").split()
    other = commits[min(len(commits) - 1, 5)]
    bench.run("git", "-C", str(clone), "checkout", "--quiet", other)
    bench.run("git", "-C", str(clone), "checkout", "--quiet", "-")
    clean = bench.run("git", "-C", str(clone), "status", "--porcelain")
    require(clean == "", f"git status is not clean after checkouts: {clean[:200]}")
    built = _build(bench, clone) if bench.full and bench.repository else ""
    return f"git clone, fsck and checkout of {len(commits)} commits{built}"


def _small_repository(bench: Bench) -> pathlib.Path:
    origin = bench.scratch / "origin"
    bench.run("git", "init", "--quiet", str(origin))
    for number in range(8):
        (origin / f"file-{number % 5}").write_bytes(os.urandom(20_000))
        bench.run("git", "-C", str(origin), "add", ".")
        identity = ("-c", "user.name=fs3", "-c", "user.email=fs3@localhost")
        bench.run(
            "git", "-C", str(origin), *identity, "commit", "--quiet", "-m", f"commit {number}"
        )
    return origin


def _build(bench: Bench, clone: pathlib.Path) -> str:
    """Compiles all native code inside the mount, and loads the module from there."""
    build = bench.work / "build"
    options = ("-G", "Ninja", "-DFS3_TESTS=OFF", f"-DPython_EXECUTABLE={sys.executable}")
    bench.run("cmake", "-S", str(clone / "native"), "-B", str(build), *options)
    bench.run("cmake", "--build", str(build), "-j", "2")
    code = "from fs3 import _native; print(_native.__file__, _native.wire.crc32c(b'123456789'))"
    said = bench.run(sys.executable, "-P", "-c", code, PYTHONPATH=str(clone)).split()
    require(
        pathlib.Path(said[0]).is_relative_to(clone) and said[1] == str(0xE3069283),
        f"the module built in the mount says {said}",
    )
    return ", and the native module of fs3 built inside the mount and loaded from it"


# ---- 3: SQLite ----
def prove_sqlite(bench: Bench) -> str:
    """Transactions in rollback and WAL mode; the integrity check and the contents through a fresh
    mount."""
    transactions = 2000 if bench.full else 100
    for mode in ("delete", "wal"):
        path = bench.work / f"{mode}.db"
        expected = _transactions(path, mode, transactions)
        cold = bench.cold() / path.name
        with sqlite3.connect(cold) as database:
            result = database.execute("pragma integrity_check").fetchone()[0]
            require(result == "ok", f"SQLite in {mode} mode: integrity check says {result}")
            found = _digest(database)
        database.close()
        require(
            found == expected, f"SQLite in {mode} mode: the rows are not those that were committed"
        )
    return (
        f"SQLite: {transactions:,} transactions each in rollback and WAL mode, integrity check ok"
    )


def _transactions(path: pathlib.Path, mode: str, count: int) -> str:
    rng = random.Random(mode)
    with sqlite3.connect(path, timeout=60, isolation_level=None) as database:
        database.execute(f"pragma journal_mode={mode}")
        database.execute("create table item (key integer primary key, value blob)")
        for number in range(count):
            database.execute("begin immediate")
            database.execute(
                "insert into item values (?, ?)", (number, rng.randbytes(rng.randrange(500)))
            )
            database.execute(
                "update item set value = ? where key = ?",
                (rng.randbytes(50), rng.randrange(number + 1)),
            )
            database.execute("commit")
        digest = _digest(database)
    database.close()
    return digest


def _digest(database: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    for key, value in database.execute("select key, value from item order by key"):
        digest.update(b"%d:" % key + bytes(value))
    return digest.hexdigest()


# ---- 4: fio and mmap ----
def prove_fio(bench: Bench) -> str:
    """fio with verification: sequential and random, buffered and direct, sizes that are multiples
    of nothing."""
    if shutil.which("fio") is None:
        return _prove_random_writes(bench)
    # Direct I/O needs whole blocks, so its size is a multiple of the block and of nothing else.
    size = 37 * 1024 * 1024 if bench.full else 5 * 1024 * 1024
    for pattern in ("write", "randwrite"):
        for direct, odd in ((0, size + 12_345), (1, size + 3 * 4096)):
            block = "4k" if pattern == "randwrite" else "128k"
            if direct and pattern == "write":
                odd = size // (128 * 1024) * (128 * 1024) + 128 * 1024
            limit = ["--io_size=4m"] if pattern == "randwrite" and not bench.full else []
            bench.run(
                "fio",
                f"--name={pattern}-{direct}",
                f"--directory={bench.work}",
                f"--rw={pattern}",
                f"--bs={block}",
                f"--size={odd}",
                f"--direct={direct}",
                "--ioengine=psync",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--end_fsync=1",
                "--randseed=4711",
                "--output-format=terse",
                *limit,
            )
    return "fio verified crc32c of sequential and random writes, buffered and O_DIRECT"


def _prove_random_writes(bench: Bench) -> str:
    rng = random.Random(4711)
    path = bench.work / "random"
    image = bytearray(3_000_017)
    with path.open("w+b", buffering=0) as file:
        file.truncate(len(image))
        for _ in range(400):
            offset = rng.randrange(len(image))
            data = rng.randbytes(min(rng.randrange(1, 40_000), len(image) - offset))
            image[offset : offset + len(data)] = data
            os.pwrite(file.fileno(), data, offset)
        os.fsync(file.fileno())
    require((bench.cold() / "random").read_bytes() == image, "random writes read back differently")
    return "400 random writes read back equal on a fresh mount (fio is not installed)"


def prove_mmap(bench: Bench) -> str:
    """Shared mappings: written through memory, read by read(2), and the other way round; read-only
    shared too."""
    path = bench.work / "mapped"
    size = 5 * 1024 * 1024 + 777
    content = bytearray(random.Random(1).randbytes(size))
    path.write_bytes(content)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as memory:
        for offset in range(0, size - 100, 65_537):
            memory[offset : offset + 100] = b"m" * 100
            content[offset : offset + 100] = b"m" * 100
        memory.flush()
        require(
            path.read_bytes() == content,
            "read(2) does not see what was written through the mapping",
        )
    cold = bench.cold() / "mapped"
    with (
        cold.open("rb") as reader,
        mmap.mmap(reader.fileno(), size, access=mmap.ACCESS_READ) as memory,
    ):
        require(memory[:] == content, "a read-only mapping on a fresh mount shows other bytes")
    require(filecmp.cmp(path, cold, shallow=False), "mapped file differs between mounts")
    return "mmap: shared writes reach read(2) and a fresh mount; shared read-only mapping equal"


PROOFS: list[tuple[str, Callable[[Bench], str]]] = [
    ("tree", prove_tree),
    ("git", prove_git),
    ("sqlite", prove_sqlite),
    ("fio", prove_fio),
    ("mmap", prove_mmap),
]
