"""link, linkat: POSIX.1-2024, link(2)."""

# fmt: off
from tests.posix.table import table

LINKED = "+g was f nlink=2 ctime; f nlink=2 ctime; . touched"

TABLES = [
    table(
        "link",
        ("all", "file f 644 me", "link f g", "ok", LINKED),
        ("all", "file f 644 me hello", "link f g", "ok", f"{LINKED}; ? same f g -> yes; ? content g -> hello"),
        ("all", "file f 644 me", "linkat cwd f cwd g 0", "ok", LINKED),
        ("all", "fifo f 644 me", "link f g", "ok", LINKED),
        ("all", "socket f 644 me", "link f g", "ok", LINKED),
        ("root", "char f", "link f g", "ok", LINKED),
        ("root", "block f", "link f g", "ok", LINKED),
        # A symbolic link itself is linked, unless AT_SYMLINK_FOLLOW.
        ("all", "slink none f me", "link f g", "ok", LINKED),
        ("all", "slink none f me", "linkat cwd f cwd g 0", "ok", LINKED),
        ("all", "slink none f me", "linkat cwd f cwd g AT_SYMLINK_FOLLOW", "ENOENT"),
        ("all", "file h 644 me; slink h f", "linkat cwd f cwd g AT_SYMLINK_FOLLOW", "ok", "+g was h nlink=2 ctime; h nlink=2 ctime; . touched"),
        ("all", "file f 644 me; dir d 777; link f d/a; link f d/b", "link f g", "ok", "+g was f nlink=4 ctime; f nlink=4 ctime; d/a nlink=4 ctime; d/b nlink=4 ctime; . touched"),
        ("all", "file f 644 me; dir d 777", "link f d/g", "ok", "+d/g was f nlink=2 ctime; f nlink=2 ctime; d touched"),
        ("all", "file f 644 me; dir d 2777 root:team", "link f d/g", "ok", "+d/g was f nlink=2 ctime; f nlink=2 ctime; d touched"),
        # One file under both names.
        ("all", "file f 644 me; link f g", "chmod g 600", "ok", "f mode=600 ctime; g mode=600 ctime"),
        ("all", "file f 644 me; link f g; me: x=open g O_WRONLY", "write x hello", "5", "f size=5 written; g size=5 written"),
        ("all", "file f 644 me hello; link f g", "truncate g 2", "ok", "f size=2 written; g size=2 written"),
        ("all", "file f 644 me; link f g", "utimensat cwd g 7 8", "ok", "f mtime=8 ctime; g mtime=8 ctime"),
        # ---- errors
        ("all", "file f 644 me; file g", "link f g", "EEXIST"),
        ("all", "file f 644 me; dir g", "link f g", "EEXIST"),
        ("all", "file f 644 me; slink none g", "link f g", "EEXIST"),
        ("all", "file f 644 me", "link f f", "EEXIST"),
        ("all", "file f 644 me; link f g", "link f g", "EEXIST"),
        ("all", "dir f 777 me", "link f g", "EPERM"),
        ("all", "dir f 777 me; dir g", "link f g", "EEXIST"),
        ("all", "", "link none g", "ENOENT"),
        ("all", "file f 644 me", "link f none/g", "ENOENT"),
        ("all", "file f 644 me", "link f g/", "ENOENT"),
        ("all", "file f 644 me", "link f/ g", "ENOTDIR"),
        ("users", "file f 644 me; dir d 755", "link f d/g", "EACCES"),
        ("users", "dir d 700; file d/f 666", "link d/f g", "EACCES"),
        # fs.protected_hardlinks: only the owner, or who can read and write an ordinary file (proc(5)).
        ("users", "file f 644", "link f g", "EPERM"),
        ("users", "file f 4777", "link f g", "EPERM"),
        ("users", "file f 2777", "link f g", "EPERM"),
        ("users", "fifo f 666", "link f g", "EPERM"),
        ("users", "file f 666", "link f g", "ok", LINKED),
        ("users", "slink none f", "link f g", "EPERM"),
        ("root", "file f 600 alice", "link f g", "ok", LINKED),
        ("all", "file f 644 me", "linkat cwd f cwd g 0x10", "EINVAL"),
        ("all", "", "linkat closed f cwd g 0", "EBADF"),
        ("all", "file f 644 me", "linkat cwd f closed g 0", "EBADF"),
        ("all", "file f 644 me; me: y=open f O_RDONLY", "linkat y f cwd g 0", "ENOTDIR"),
        ("all", "file f 644 me; me: y=open f O_RDONLY", "linkat cwd f y g 0", "ENOTDIR"),
        ("all", "dir d 777; file d/f 644 me; me: y=open d O_RDONLY", "linkat y f y g 0", "ok", "+d/g was d/f nlink=2 ctime; d/f nlink=2 ctime; d touched"),
        ("root", "file f; x=open f O_PATH", 'linkat x "" cwd g AT_EMPTY_PATH', "ok", LINKED),
        ("all", "file f 644 me; me: x=open f O_RDONLY", "linkfd x g", "ok", LINKED),
        ("all", "dir d 777; me: y=open d O_RDONLY; rmdir d; file f 644 me", "linkat cwd f y g 0", "ENOENT"),
    ),
]
