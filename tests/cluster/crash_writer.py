"""Writes files into a directory of a mount until it is stopped, and records on a local disk what
the file system has promised to keep: a line per file, only after fsync of file and directory.

    python -m tests.cluster.crash_writer DIRECTORY MANIFEST SEED

A line "begin NAME" says that a write is in flight, "done NAME SHA256" that it was acknowledged.
"""

import hashlib
import os
import pathlib
import random
import sys

FILES_KEPT = 40  # older ones are overwritten, appended to and renamed over


def main(directory: pathlib.Path, manifest: pathlib.Path, seed: int) -> None:
    rng = random.Random(seed)
    contents: dict[str, bytes] = {}
    with manifest.open("a") as record:

        def note(line: str) -> None:
            record.write(line + "\n")
            record.flush()
            os.fsync(record.fileno())

        while True:
            name = f"{seed}-{rng.randrange(FILES_KEPT)}"
            note(f"begin {name}")
            contents[name] = change(directory / name, contents.get(name, b""), rng)
            note(f"done {name} {hashlib.sha256(contents[name]).hexdigest()}")


def change(path: pathlib.Path, content: bytes, rng: random.Random) -> bytes:
    """One change of the file, durable when it returns; the new content."""
    data = rng.randbytes(int(3_000_000 ** rng.random()))
    kind = rng.choice(["replace", "append", "overwrite", "truncate"])
    if kind == "replace" or not path.exists():
        temporary = path.with_name(path.name + ".new")
        write(temporary, os.O_TRUNC, 0, data)
        os.rename(temporary, path)
        content = data
    elif kind == "append":
        write(path, os.O_APPEND, 0, data)
        content += data
    elif kind == "overwrite":
        at = rng.randrange(len(content) + 1)
        write(path, 0, at, data)
        content = content[:at] + data + content[at + len(data) :]
    else:
        content = content[: rng.randrange(len(content) + 1)]
        os.truncate(path, len(content))
    for durable in (path, path.parent):
        fd = os.open(durable, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return content


def write(path: pathlib.Path, flags: int, at: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        view = memoryview(data)
        while view:
            count = os.write(fd, view) if flags & os.O_APPEND else os.pwrite(fd, view, at)
            view, at = view[count:], at + count
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
