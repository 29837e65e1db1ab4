"""What the tables ask of fs3 and fs3 does not do yet: patterns of rows as conformance.py shows
them, and what they wait for. An entry whose rows all pass fails the run: this list only shrinks."""

__all__ = ["NOT_YET"]

NOT_YET: list[tuple[str, str]] = [
    ("renameat2: * RENAME_WHITEOUT -> ok", "RENAME_WHITEOUT"),
    ("open: root: open f O_RD* -> *", "devices on mounts of root"),
    ("mknod: * x * -> *", "devices on mounts of root"),
    ("O_APPEND: * write x AB -> 2", "O_APPEND taken off by fcntl"),
    ("fallocate: *", "fallocate"),
    ("SEEK_HOLE: *", "SEEK_HOLE of chunks that nobody wrote"),
]
