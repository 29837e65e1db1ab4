"""Random operations on files, every byte compared with an image in memory.

One tester works on several files through several handles of each: buffered, O_APPEND, O_DIRECT and
mappings; it writes, reads, truncates, punches holes, zeroes, preallocates, copies from file to
file, and asks where the holes are. A file lives on one mount at a time; it moves to another one
after all its handles are closed, which is what close-to-open consistency promises. Everything
follows from the seed, so a failure repeats with the command that the message names; the operations
before it are printed.

By hand, on mounts of one file system (with --operations 0 until SIGTERM; the comparison at the end
is made in any case):

    python -m tests.posix.data_tester --seed 7 --operations 100000 MOUNT [MOUNT...]

Beside it, python -m tests.cluster.disturber kills and stops the processes of the cluster. Never
from a thread of this process: a page fault on a mapping holds the interpreter until it is served.
"""

import argparse
import collections
import ctypes
import dataclasses
import errno
import itertools
import mmap
import os
import pathlib
import random
import signal
import sys
from collections.abc import Callable

FILE_BYTES_MAX = 5 << 19  # two and a half chunks of the default size
WRITE_BYTES_MAX = 300_000
PAGE = mmap.PAGESIZE
REMEMBERED = 60
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # <linux/falloc.h>


class Mismatch(AssertionError):
    """What the file system says differs from the image."""


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """The system call: posix_fallocate of the C library writes zeros where it is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def first_difference(got: bytes, wanted: bytes) -> int:
    for index, (left, right) in enumerate(zip(got, wanted, strict=False)):
        if left != right:
            return index
    return min(len(got), len(wanted))


@dataclasses.dataclass
class Handle:
    fd: int
    kind: str  # "rw", "append", "direct"


class File:
    """One file under test: its image, where it lives and the handles that are open."""

    def __init__(self, name: str, home: pathlib.Path) -> None:
        self.name = name
        self.home = home
        self.image = bytearray()
        self.handles: list[Handle] = []
        self.maps: list[mmap.mmap] = []
        self.mapped = False  # written through a mapping since the last fsync

    @property
    def path(self) -> pathlib.Path:
        return self.home / self.name

    def rename(self) -> None:
        """A name that no mount has looked up: names are believed until their lease ends."""
        stem, _, number = self.name.rpartition(".")
        self.name = f"{stem}.{int(number) + 1}"

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.image):
            self.image.extend(bytes(end - len(self.image)))
        self.image[offset:end] = data

    def zero(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.image))
        if offset < end:
            self.image[offset:end] = bytes(end - offset)

    def resize(self, size: int) -> None:
        if size < len(self.image):
            del self.image[size:]
        else:
            self.image.extend(bytes(size - len(self.image)))


class DataTester:
    """`mounts` show the same directory. `step()` does one operation."""

    def __init__(self, mounts: list[pathlib.Path], seed: int, files: int = 3) -> None:
        self.seed = seed
        self.mounts = mounts
        self.rng = random.Random(seed)
        self.history: collections.deque[str] = collections.deque(maxlen=REMEMBERED)
        self.counts: collections.Counter[str] = collections.Counter()
        self.files = [File(f"tester-{seed}-{number}.0", mounts[0]) for number in range(files)]
        self._buffer = mmap.mmap(-1, WRITE_BYTES_MAX + 2 * PAGE)  # page aligned, for O_DIRECT
        self._operations: list[tuple[int, Callable[[File], str]]] = [
            (20, self._pwrite),
            (14, self._pread),
            (6, self._append),
            (6, self._mapped_write),
            (5, self._mapped_read),
            (4, self._kept_mapping),
            (6, self._truncate),
            (6, self._direct_write),
            (5, self._direct_read),
            (3, self._punch),
            (3, self._zero_range),
            (2, self._preallocate),
            (4, self._copy_range),
            (4, self._seek),
            (3, self._fsync),
            (4, self._reopen),
            (1, self._rewrite),
            (2, self._recreate),
            (1, self._rename),
            (4, self._stat),
            (2, self._read_all),
            (2, self._move),
        ]
        self._weights = list(itertools.accumulate(weight for weight, _ in self._operations))
        for file in self.files:
            self._open(file, "rw", os.O_CREAT)

    def step(self) -> None:
        file = self.rng.choice(self.files)
        operation = self.rng.choices(self._operations, cum_weights=self._weights)[0][1]
        name = operation.__name__.strip("_")
        self.history.append(f"{file.name} {name} ...")
        try:
            told = operation(file)
        except OSError as error:
            raise Mismatch(f"{file.name}: {name} failed: {error}\n{self.story()}") from error
        self.counts[name] += 1
        self.history[-1] = f"{file.name} {name} {told} -> {len(file.image)} bytes"

    def run(self, operations: int) -> None:
        for _ in range(operations):
            self.step()
        self.finish()

    def finish(self) -> None:
        """Closes everything and compares every file on every mount."""
        for file in self.files:
            self._close_all(file)
            for mount in self.mounts:
                file.home = mount
                self._compare_all(file)

    def remove(self) -> None:
        for file in self.files:
            self._close_all(file)
            file.path.unlink(missing_ok=True)

    def story(self) -> str:
        return (
            f"after {sum(self.counts.values())} operations; to repeat: python -m "
            f"tests.posix.data_tester --seed {self.seed} --files {len(self.files)} MOUNT"
            f"{' MOUNT' * (len(self.mounts) - 1)}\nthe last:\n  " + "\n  ".join(self.history)
        )

    # ---- writing
    def _pwrite(self, file: File) -> str:
        handle = self._handle(file, "rw", "direct")
        offset, data = self._place(), self._bytes()
        self._write_all(file, handle.fd, offset, data)
        file.write(offset, data)
        return f"{handle.kind} [{offset}, +{len(data)})"

    def _append(self, file: File) -> str:
        handle = self._handle(file, "append")
        data = self._bytes()[: max(1, FILE_BYTES_MAX - len(file.image))]
        written = os.write(handle.fd, data)
        self._require(written == len(data), f"append wrote {written} of {len(data)}")
        offset = len(file.image)
        file.write(offset, data)
        return f"[{offset}, +{len(data)})"

    def _mapped_write(self, file: File) -> str:
        if not file.image:
            return "empty"
        base, length, start, data = self._window(file)
        handle = self._handle(file, "rw", "append", "direct")
        with mmap.mmap(handle.fd, length, offset=base) as memory:
            memory[start : start + len(data)] = data
            flush = self.rng.random() < 0.3
            if flush:
                memory.flush()
        file.write(base + start, data)
        file.mapped = True
        return f"{handle.kind} [{base + start}, +{len(data)}) flush={flush}"

    def _kept_mapping(self, file: File) -> str:
        """A mapping that outlives the operation: later reads and writes go past its pages."""
        if len(file.maps) >= 2 or not file.image:
            while file.maps:
                file.maps.pop().close()
            return "unmapped"
        handle = self._handle(file, "rw", "append")
        size = len(file.image)
        memory = mmap.mmap(handle.fd, size)
        file.maps.append(memory)
        offset = self.rng.randrange(size)
        data = self._bytes()[: size - offset]
        memory[offset : offset + len(data)] = data
        file.write(offset, data)
        file.mapped = True
        return f"{handle.kind} mapped {size}, wrote [{offset}, +{len(data)})"

    def _direct_write(self, file: File) -> str:
        handle = self._handle(file, "direct")
        offset = self._place() // 512 * 512
        length = max(512, self.rng.randrange(WRITE_BYTES_MAX) // 512 * 512)
        data = self.rng.randbytes(length)
        self._buffer[:length] = data
        written = os.pwritev(handle.fd, [memoryview(self._buffer)[:length]], offset)
        self._require(written == length, f"O_DIRECT wrote {written} of {length}")
        file.write(offset, data)
        return f"[{offset}, +{length})"

    def _truncate(self, file: File) -> str:
        size = self.rng.choice([self._place(), self._place(), len(file.image) // 2, 0])
        if self.rng.random() < 0.2:
            size = size // PAGE * PAGE
        self._drop_maps_beyond(file, size)
        by_handle = bool(file.handles) and self.rng.random() < 0.6
        if by_handle:
            os.ftruncate(self.rng.choice(file.handles).fd, size)
        else:
            os.truncate(file.path, size)
        file.resize(size)
        return f"to {size} {'by handle' if by_handle else 'by path'}"

    def _punch(self, file: File) -> str:
        handle = self._handle(file, "rw", "append", "direct")
        offset, length = self._range()
        fallocate(handle.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        file.zero(offset, length)
        return f"{handle.kind} [{offset}, +{length})"

    def _zero_range(self, file: File) -> str:
        handle = self._handle(file, "rw", "append", "direct")
        offset, length = self._range()
        keep = self.rng.random() < 0.5
        fallocate(handle.fd, ZERO_RANGE | (KEEP_SIZE if keep else 0), offset, length)
        if not keep:
            file.resize(max(len(file.image), offset + length))
        file.zero(offset, length)
        return f"{handle.kind} [{offset}, +{length}) keep={keep}"

    def _preallocate(self, file: File) -> str:
        handle = self._handle(file, "rw", "append", "direct")
        offset, length = self._range()
        keep = self.rng.random() < 0.5
        fallocate(handle.fd, KEEP_SIZE if keep else 0, offset, length)
        if not keep:
            file.resize(max(len(file.image), offset + length))
        return f"{handle.kind} [{offset}, +{length}) keep={keep}"

    def _copy_range(self, file: File) -> str:
        """From a file of the same mount, maybe the same one."""
        source = self.rng.choice([other for other in self.files if other.home == file.home])
        into = self._handle(file, "rw", "direct")
        out_of = into if source is file else self._handle(source, "rw", "append", "direct")
        offset, target, length = self._place(), self._place(), self._range()[1]
        if source is file and offset < target + length and target < offset + length:
            return "overlapping"
        wanted = bytes(source.image[offset : offset + length])
        copied = 0
        while copied < len(wanted):
            got = os.copy_file_range(
                out_of.fd, into.fd, length - copied, offset + copied, target + copied
            )
            self._require(got > 0, f"copy_file_range stopped after {copied} of {len(wanted)}")
            copied += got
        self._require(copied <= len(wanted), f"copy_file_range copied {copied} of {len(wanted)}")
        if wanted:
            file.write(target, wanted)
        return f"{source.name} [{offset}, +{len(wanted)}) to {target}"

    # ---- reading
    def _seek(self, file: File) -> str:
        """What is called a hole must be zeros, and every hole and all data must have an end."""
        handle = self._handle(file, "rw", "append", "direct")
        size = len(file.image)
        offset = self.rng.randrange(size + 1) if self.rng.random() < 0.7 else 0
        data, hole = self._seek_both(handle.fd, offset)
        if hole not in (None, offset) and data != offset:
            # Two answers, and between them write-back made data of the hole. Not a second time.
            os.fsync(handle.fd)
            data, hole = self._seek_both(handle.fd, offset)
        self._require((hole is None) == (offset >= size), f"SEEK_HOLE from {offset} of {size}")
        begins = size if data is None else data
        zeros = file.image[offset:begins].count(0) == max(begins - offset, 0)
        self._require(zeros, f"SEEK_DATA from {offset} says {data}: data is called a hole")
        if hole is not None:
            self._require(offset <= hole <= size, f"SEEK_HOLE from {offset} of {size}: {hole}")
            in_hole = hole == offset and hole < size
            self._require(not in_hole or file.image[hole] == 0, f"no hole at {hole}")
            self._require(in_hole or data == offset, f"data at {data}, hole at {hole}")
        return f"{handle.kind} from {offset}: data {data}, hole {hole}"

    def _seek_both(self, fd: int, offset: int) -> tuple[int | None, int | None]:
        found: list[int | None] = []
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            try:
                found.append(os.lseek(fd, offset, whence))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                found.append(None)
        return found[0], found[1]

    def _pread(self, file: File) -> str:
        handle = self._handle(file, "rw", "direct")
        offset, length = self._place(), self._length()
        got = os.pread(handle.fd, length, offset)
        self._compare(file, offset, got, length, f"pread of a {handle.kind} handle")
        return f"{handle.kind} [{offset}, +{length})"

    def _direct_read(self, file: File) -> str:
        handle = self._handle(file, "direct")
        offset = self._place() // 512 * 512
        length = max(512, self.rng.randrange(WRITE_BYTES_MAX) // 512 * 512)
        count = os.preadv(handle.fd, [memoryview(self._buffer)[:length]], offset)
        self._compare(file, offset, self._buffer[:count], length, "O_DIRECT read")
        return f"[{offset}, +{length})"

    def _mapped_read(self, file: File) -> str:
        if not file.image:
            return "empty"
        base, length, start, data = self._window(file)
        handle = self._handle(file, "rw", "direct")
        with mmap.mmap(handle.fd, length, prot=mmap.PROT_READ, offset=base) as memory:
            got = memory[start : start + len(data)]
            self._compare(file, base + start, got, len(data), f"mapping of a {handle.kind} handle")
        return f"{handle.kind} [{base + start}, +{len(data)})"

    def _stat(self, file: File) -> str:
        size = os.stat(file.path).st_size
        self._require(size == len(file.image), f"stat says {size}, written are {len(file.image)}")
        if file.handles:
            size = os.fstat(self.rng.choice(file.handles).fd).st_size
            self._require(size == len(file.image), f"fstat says {size}")
        return ""

    def _read_all(self, file: File) -> str:
        self._compare_all(file)
        return ""

    # ---- handles and names
    def _fsync(self, file: File) -> str:
        handle = self._handle(file, "rw", "append", "direct")
        self.rng.choice([os.fsync, os.fdatasync])(handle.fd)
        return handle.kind

    def _reopen(self, file: File) -> str:
        if file.handles:
            handle = file.handles.pop(self.rng.randrange(len(file.handles)))
            os.close(handle.fd)
        return self._open(file, self.rng.choice(["rw", "rw", "append", "direct"])).kind

    def _rewrite(self, file: File) -> str:
        """Open with O_TRUNC while other handles stay open."""
        self._drop_maps_beyond(file, 0)
        file.resize(0)
        return self._open(file, self.rng.choice(["rw", "direct"]), os.O_TRUNC).kind

    def _recreate(self, file: File) -> str:
        self._close_all(file)
        os.unlink(file.path)
        file.resize(0)
        file.rename()
        return self._open(file, self.rng.choice(["rw", "append", "direct"]), os.O_CREAT).kind

    def _rename(self, file: File) -> str:
        before = file.path
        file.rename()
        os.rename(before, file.path)
        return file.name

    def _move(self, file: File) -> str:
        """To another mount, which has cached what it saw the last time."""
        self._close_all(file)
        file.home = self.rng.choice(self.mounts)
        self._compare_all(file)
        return str(self.mounts.index(file.home))

    # ---- helpers
    def _open(self, file: File, kind: str, extra: int = 0) -> Handle:
        while len(file.handles) >= 4:
            os.close(file.handles.pop(0).fd)
        flags = os.O_RDWR | {"rw": 0, "append": os.O_APPEND, "direct": os.O_DIRECT}[kind]
        handle = Handle(os.open(file.path, flags | extra, 0o644), kind)
        file.handles.append(handle)
        return handle

    def _handle(self, file: File, *kinds: str) -> Handle:
        usable = [handle for handle in file.handles if handle.kind in kinds]
        if usable and self.rng.random() < 0.95:
            return self.rng.choice(usable)
        return self._open(file, self.rng.choice(kinds))

    def _close_all(self, file: File) -> None:
        while file.maps:
            memory = file.maps.pop()
            memory.flush()  # close(2) promises nothing about mappings; msync does
            memory.close()
        # Pages dirtied by mappings that are gone are the kernel's until somebody asks for them.
        if file.handles and (file.mapped or self.rng.random() < 0.2):
            os.fsync(file.handles[-1].fd)
        file.mapped = False
        while file.handles:
            os.close(file.handles.pop().fd)

    def _drop_maps_beyond(self, file: File, size: int) -> None:
        for memory in [memory for memory in file.maps if len(memory) > size]:
            file.maps.remove(memory)
            memory.close()

    def _place(self) -> int:
        """An offset: anywhere, near a page or chunk boundary, or near the start."""
        choice = self.rng.random()
        if choice < 0.3:
            boundary = self.rng.choice([1 << 20, 2 << 20, 1 << 16, 5 * PAGE, 129 * PAGE])
            return max(0, boundary + self.rng.randrange(-9, 10))
        if choice < 0.5:
            return self.rng.randrange(3 * PAGE)
        return self.rng.randrange(FILE_BYTES_MAX - WRITE_BYTES_MAX)

    def _range(self) -> tuple[int, int]:
        """A place, and often enough a length that covers a chunk."""
        offset = self._place()
        length = self.rng.choice([self._length(), self._length(), self.rng.randrange(1, 2 << 20)])
        return offset, min(length, max(1, FILE_BYTES_MAX - offset))

    def _length(self) -> int:
        return max(1, int(WRITE_BYTES_MAX ** self.rng.random()))

    def _bytes(self) -> bytes:
        return self.rng.randbytes(self._length())

    def _window(self, file: File) -> tuple[int, int, int, bytes]:
        """(map offset, map length, start inside, data) within the file."""
        offset = self.rng.randrange(len(file.image))
        data = self._bytes()[: len(file.image) - offset]
        base = offset // PAGE * PAGE
        length = min(len(file.image), offset + len(data) + self.rng.randrange(PAGE)) - base
        return base, length, offset - base, data

    def _write_all(self, file: File, fd: int, offset: int, data: bytes) -> None:
        written = os.pwrite(fd, data, offset)
        self._require(written == len(data), f"{file.name}: pwrite took {written} of {len(data)}")

    def _compare(self, file: File, offset: int, got: bytes, length: int, what: str) -> None:
        wanted = bytes(file.image[offset : offset + length])
        if got == wanted:
            return
        at = first_difference(got, wanted)
        raise Mismatch(
            f"{file.path}: {what} of [{offset}, +{length}): got {len(got)} bytes, wanted "
            f"{len(wanted)}; first difference at {offset + at}: got {got[at : at + 16].hex()}, "
            f"wanted {wanted[at : at + 16].hex()}\n{self.story()}"
        )

    def _compare_all(self, file: File) -> None:
        fd = os.open(file.path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            got = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
        finally:
            os.close(fd)
        self._require(size == len(file.image), f"{file.path}: fstat of a new open says {size}")
        self._compare(file, 0, got, len(file.image) + 1, "a new open and read")

    def _require(self, condition: bool, text: str) -> None:
        if not condition:
            raise Mismatch(f"{text}\n{self.story()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("mounts", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    tester = DataTester(options.mounts, options.seed, options.files)
    for done in itertools.count(1):
        tester.step()
        if done % 1000 == 0:
            print(f"{done:,} operations", flush=True)
        if done == options.operations or ended:
            break
    tester.finish()
    tester.remove()
    print(f"all equal: {dict(tester.counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
