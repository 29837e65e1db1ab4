"""Across mount points: EXDEV, EBUSY and EROFS, by bind mounts of the same file system (mount(2))."""

# fmt: off
from tests.posix.table import table

OTHER = "dir d 777; dir m 777; file d/f 666 me; bindmount d m"
FIXED = "dir d 777; dir m 777; file d/f 666 me hello; slink f d/s; dir d/e 777 me; romount d m"

TABLES = [
    table(
        "EXDEV",
        ("all", OTHER, "rename m/f f", "EXDEV"),
        ("all", f"{OTHER}; file g 666 me", "rename g m/g", "EXDEV"),
        ("all", f"{OTHER}; file g 666 me", "link g m/g", "EXDEV"),
        ("all", f"{OTHER}; file g 666 me", "renameat2 cwd g cwd m/f RENAME_EXCHANGE", "EXDEV"),
        ("all", OTHER, "rename m/f m/g", "ok", "-d/f; -m/f; +d/g was d/f; +m/g was m/f; d touched; m touched"),
        ("all", OTHER, "content m/f", '""'),
    ),
    table(
        "EBUSY",
        ("all", OTHER, "rmdir m", "EBUSY"),
        ("all", OTHER, "rename m n", "EBUSY"),
        ("all", f"{OTHER}; dir n 777 me", "rename n m", "EBUSY"),
        ("all", OTHER, "unlink m", "EISDIR|EBUSY|EPERM"),
    ),
    table(
        "EROFS",
        *(("all", FIXED, action, "EROFS") for action in ("open m/f O_WRONLY", "open m/f O_RDWR", "open m/f O_WRONLY|O_TRUNC", "open m/n O_WRONLY|O_CREAT 644", "open m O_RDWR|O_TMPFILE 644", "mkdir m/n 755", "rmdir m/e", "unlink m/f", "link m/f m/n", "symlink x m/n", "mkfifo m/n 644", "mknod m/n 644 S_IFREG", "rename m/f m/n", "renameat2 cwd m/f cwd m/e RENAME_EXCHANGE", "chmod m/f 600", "chown m/f -1 -1", "touch m/f", "utimensat cwd m/f 1 1", "truncate m/f 0", "access m/f W_OK", "setxattr m/f user.a x", "removexattr m/f user.a", "bind m/n")),
        ("all", FIXED, "mkdir m/e 755", "EEXIST|EROFS"),
        ("all", FIXED, "open m/f O_RDONLY", "ok"),
        ("all", FIXED, "open m/f O_RDONLY|O_CREAT 644", "ok"),
        ("all", FIXED, "content m/f", "hello"),
        ("all", FIXED, "access m/f R_OK", "ok"),
        ("all", FIXED, "readlink m/s", "f"),
        ("all", FIXED, "list m", "e,f,s"),
        ("all", f"{FIXED}; me: x=open m/f O_RDONLY", "fchmod x 600", "EROFS"),
    ),
]
