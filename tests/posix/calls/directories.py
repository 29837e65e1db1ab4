"""readdir, getdents, rewinddir, seekdir, and who sees a change: POSIX.1-2024 readdir(), getdents(2)."""

# fmt: off
from tests.posix.table import table

MANY = "; ".join(f"file d/n{number:03}" for number in range(150))
SHOWN = ",".join(f"n{number:03}" for number in range(150))

TABLES = [
    table(
        "readdir",
        ("all", "dir d", "list d", "nothing"),
        ("all", "dir d; file d/a; dir d/b; slink x d/c; fifo d/e; socket d/f", "list d", "a,b,c,e,f"),
        ("all", "dir d; file d/a; dir d/b; slink x d/c; fifo d/e; socket d/f", "types d", "a:other,b:dir,c:symlink,e:other,f:other"),
        ("all", "dir d; dir d/e", "dots d", "ok"),
        ("all", "dir d; dir d/e", "dots d/e", "ok"),
        ("all", "", "dots .", "ok"),
        ("all", f"dir d; {MANY}", "list d", SHOWN),
        ("all", "dir d; file d/{n*255}; file d/{m*254}", "list d", "m" * 254 + "," + "n" * 255),
        ("all", "dir d; file d/ä€; file d/b", "list d", "b,ä€"),
        ("all", "dir d; file d/a; unlink d/a; file d/b", "list d", "b"),
        ("all", "dir d; file d/a; rename d/a d/b", "list d", "b"),
        ("all", "dir d; file d/a; link d/a d/b", "list d", "a,b"),
        ("users", "dir d 711", "list d", "EACCES"),
        ("users", "dir d 744; file d/a", "list d", "a"),
        ("all", "file f", "list f", "ENOTDIR"),
        ("all", "", "list none", "ENOENT"),
        ("all", "dir d; slink d x; file d/a", "list x", "a"),
        # ---- one descriptor through changes
        ("all", "dir d 777; file d/a; me: x=open d O_RDONLY", "getdents x", "a", "? getdents x -> nothing"),
        ("all", "dir d 777; file d/a; me: x=open d O_RDONLY; me: getdents x; me: seekdir x 0", "getdents x", "a"),
        ("all", "dir d 777; file d/a; me: x=open d O_RDONLY; me: getdents x; file d/b; me: seekdir x 0", "getdents x", "a,b"),
        ("all", "dir d 777; file d/a; file d/b; me: x=open d O_RDONLY; me: getdents x; unlink d/a; me: seekdir x 0", "getdents x", "b"),
        ("all", f"dir d 777; {MANY}; me: x=open d O_RDONLY", "getdents x", SHOWN),
        ("all", "file f 666; me: x=open f O_RDONLY", "getdents x", "ENOTDIR"),
        ("all", "", "getdents closed", "EBADF"),
        ("all", "dir d 777; me: x=open d O_PATH", "getdents x", "EBADF"),
        # ---- seen at once by everybody
        ("all", "dir d 777; me: list d; me: stat d; file d/new 666", "list d", "new"),
        ("all", "dir d 777; file d/f; me: list d; unlink d/f", "list d", "nothing"),
        ("all", "dir d 777; me: stat d/f -> ENOENT; file d/f", "stat d/f type", "file"),
        ("all", "dir d 777; file d/f; me: stat d/f; unlink d/f", "stat d/f", "ENOENT"),
        ("all", "dir d 777; file d/f; me: stat d/f; rename d/f d/g", "stat d/f", "ENOENT"),
        ("all", "file f; me: stat f; chmod f 600", "stat f mode", "600"),
        ("all", "file f; me: stat f; chown f alice team", "stat f gid", "team"),
        ("users", "file f 666; me: open f O_RDONLY; chmod f 600", "open f O_RDONLY", "EACCES"),
        ("users", "dir d 777; file d/f 666; me: stat d/f; chmod d 700", "stat d/f", "EACCES"),
    ),
]
