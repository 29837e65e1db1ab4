"""Who may do what: every mode against every class of users (POSIX.1-2024 4.7, path_resolution(7)).

The tables are computed: for each of the eight rights of a class, the same call by somebody of that
class. Only the first class that fits counts: an owner without rights is not helped by the others'.
"""

from collections.abc import Iterator

from tests.posix.table import Table, table

R, W, X = 4, 2, 1
# The class, who is in it, owner and group of the file, how the right is written as a mode; the
# other classes get the opposite.
CLASSES = [
    ("owner", "alice", "alice:team", lambda right: right << 6 | (7 - right) << 3 | (7 - right)),
    ("group", "alice", "bob:team", lambda right: (7 - right) << 6 | right << 3 | (7 - right)),
    ("other", "bob", "alice:team", lambda right: (7 - right) << 6 | (7 - right) << 3 | right),
]
# The rights that it needs, the call, what it changes.
ON_FILE = [
    (R, "open x O_RDONLY", ""),
    (W, "open x O_WRONLY", ""),
    (R | W, "open x O_RDWR", ""),
    (W, "open x O_WRONLY|O_TRUNC", "x size=0 written"),
    (X, "exec x", ""),
    (R, "access x R_OK", ""),
    (W, "access x W_OK", ""),
    (X, "access x X_OK", ""),
    (R | W | X, "access x R_OK|W_OK|X_OK", ""),
    (W, "truncate x 0", "x size=0 written"),
]
ON_DIRECTORY = [
    (R, "list x", ""),
    (R, "open x O_RDONLY|O_DIRECTORY", ""),
    (X, "chdir x", ""),
    (X, "stat x/f", ""),
    (X, "lstat x/f", ""),
    (X, "access x/f F_OK", ""),
    (X, "open x/f O_RDWR", ""),
    (X, "chmod x/mine 644", "x/mine ctime"),
    (X, "truncate x/f 1", "x/f size=1 written"),
    (X, "readlink x/s", ""),
    (W | X, "open x/n O_RDWR|O_CREAT 644", "+x/n file 644 me; x touched"),
    (W | X, "mkdir x/n 755", "+x/n dir 755 me; x nlink=4 touched"),
    (W | X, "symlink t x/n", "+x/n symlink 777 me target=t; x touched"),
    (W | X, "mkfifo x/n 644", "+x/n fifo 644 me; x touched"),
    (W | X, "mknod x/n 644 S_IFREG", "+x/n file 644 me; x touched"),
    (W | X, "link own x/n", "+x/n was own nlink=2 ctime; own nlink=2 ctime; x touched"),
    (W | X, "unlink x/f", "-x/f; x touched"),
    (W | X, "rmdir x/d", "-x/d; x nlink=2 touched"),
    (W | X, "rename x/f x/n", "-x/f; +x/n was x/f; x touched"),
    (W | X, "rename own x/n", "-own; +x/n was own; x touched; . touched"),
    (W | X, "rename x/f n", "-x/f; +n was x/f; x touched; . touched"),
    (
        W | X,
        "renameat2 cwd x/f cwd own RENAME_EXCHANGE",
        "+x/f was own; +own was x/f; x touched; . touched",
    ),
]
INSIDE = "file x/f 666; dir x/d 777; slink t x/s; file x/mine 644 me; file own 644 me"


def _rows(
    needed: int, action: str, effects: str, setup: str
) -> Iterator[tuple[str, str, str, str, str]]:
    """For each class and right: allowed exactly when it has all that is needed."""
    for _, who, owner, mode in CLASSES:
        for right in range(8):
            allowed = right & needed == needed
            prepared = setup.replace("MODE", f"{mode(right):o}").replace("OWNER", owner)
            yield (who, prepared, action, "ok" if allowed else "EACCES", effects if allowed else "")


TABLES: list[Table] = [
    table(
        "rights of files",
        *(
            row
            for needed, action, effects in ON_FILE
            for row in _rows(needed, action, effects, "file x MODE OWNER #!/bin/true")
        ),
    ),
    table(
        "rights in dirs",
        *(
            row
            for needed, action, effects in ON_DIRECTORY
            for row in _rows(needed, action, effects, f"dir x 777 OWNER; {INSIDE}; chmod x MODE")
        ),
    ),
]
