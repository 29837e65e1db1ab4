"""chmod, fchmod, fchmodat, umask: POSIX.1-2024, chmod(2)."""

# fmt: off
from tests.posix.table import table

TABLES = [
    table(
        "chmod",
        *(("all", "file f 600 me", f"chmod f {mode}", "ok", f"f mode={mode} ctime") for mode in ("0", "1", "644", "777", "1644", "4755", "2755", "6711", "7777")),
        *(("all", "dir d 700 me", f"chmod d {mode}", "ok", f"d mode={mode} ctime") for mode in ("0", "755", "1777", "2755", "7777")),
        ("all", "file f 644 me", "chmod f 644", "ok", "f ctime"),
        ("all", "fifo f 644 me", "chmod f 600", "ok", "f mode=600 ctime"),
        ("all", "socket f 644 me", "chmod f 600", "ok", "f mode=600 ctime"),
        ("root", "char f", "chmod f 600", "ok", "f mode=600 ctime"),
        ("root", "block f", "chmod f 600", "ok", "f mode=600 ctime"),
        ("all", "file f 644 me", "fchmodat cwd f 600", "ok", "f mode=600 ctime"),
        ("all", "file f 644 me; me: x=open f O_RDONLY", "fchmod x 600", "ok", "f mode=600 ctime"),
        ("all", "dir d 755 me; me: x=open d O_RDONLY", "fchmod x 700", "ok", "d mode=700 ctime"),
        ("all", "file f 644 me; link f g", "chmod f 600", "ok", "f mode=600 ctime; g mode=600 ctime"),
        ("all", "file f 644 me; slink f x", "chmod x 600", "ok", "f mode=600 ctime"),
        ("all", "slink none x", "chmod x 600", "ENOENT"),
        # ---- by whom
        ("root", "file f 644 alice", "chmod f 4755", "ok", "f mode=4755 ctime"),
        ("users", "file f 666", "chmod f 600", "EPERM"),
        ("users", "dir f 777", "chmod f 700", "EPERM"),
        ("users", "file f 666; me: x=open f O_RDWR", "fchmod x 600", "EPERM"),
        ("alice", "file f 666 bob:team", "chmod f 600", "EPERM"),
        ("alice", "file f 666 root:team", "chmod f 600", "EPERM"),
        # setgid is dropped where the caller is not in the file's group.
        ("bob", "file f 644 bob:team", "chmod f 2755", "ok", "f mode=755 ctime"),
        ("alice", "file f 644 alice:team", "chmod f 2755", "ok", "f mode=2755 ctime"),
        ("alice", "file f 644 alice:staff", "chmod f 6755", "ok", "f mode=6755 ctime"),
        ("bob", "file f 644 bob:team", "chmod f 6755", "ok", "f mode=4755 ctime"),
        ("root", "file f 644 bob:team", "chmod f 2755", "ok", "f mode=2755 ctime"),
        ("bob", "dir f 755 bob:team", "chmod f 2755", "ok", "f ctime"),
        ("bob", "file f 644 bob:team; me: x=open f O_RDWR", "fchmod x 2755", "ok", "f mode=755 ctime"),
        # ---- descriptors and flags
        ("all", "", "fchmod closed 600", "EBADF"),
        ("all", "file f 644 me; me: x=open f O_PATH", "fchmod x 600", "EBADF"),
        ("all", "file f 644 me; me: x=open f O_RDONLY; unlink f", "fchmod x 600", "ok", "? fstat x mode -> 600"),
        ("all", "dir d 755 me; file d/f 644 me; me: y=open d O_RDONLY", "fchmodat y f 600", "ok", "d/f mode=600 ctime"),
        ("all", "", "fchmodat closed f 600", "EBADF"),
        ("all", "file f 644 me; me: y=open f O_RDONLY", "fchmodat y g 600", "ENOTDIR"),
        # A mode counts for the next open, not for what is open.
        ("all", "file f 644 me; me: x=open f O_RDWR; me: chmod f 0", "write x hello", "5", "f size=5 written"),
        ("users", "file f 644 me; me: chmod f 0", "open f O_RDONLY", "EACCES"),
        ("users", "dir d 755 me; file d/f 644 me; me: chmod d 644", "open d/f O_RDONLY", "EACCES"),
        # Flags of POSIX's fchmodat, by fchmodat2 (Linux 6.6).
        ("all", "file f 644 me", "fchmodat2 cwd f 600 AT_SYMLINK_NOFOLLOW", "ok", "f mode=600 ctime"),
        ("all", "file f 644 me; slink f x me", "fchmodat2 cwd x 600 AT_SYMLINK_NOFOLLOW", "EOPNOTSUPP"),
        ("all", "file f 644 me; me: y=open f O_PATH", 'fchmodat2 y "" 600 AT_EMPTY_PATH', "ok", "f mode=600 ctime"),
        ("all", "file f 644 me", "fchmodat2 cwd f 600 0x4", "EINVAL"),
    ),
    table(
        "umask",
        *(("all", f"me: umask {mask}", "open f O_CREAT|O_WRONLY 777", "ok", f"+f file {0o777 & ~int(mask, 8):o} me; . touched") for mask in ("0", "1", "2", "4", "10", "20", "40", "100", "200", "400", "027", "777")),
        *(("all", f"me: umask {mask}", "mkdir d 777", "ok", f"+d dir {0o777 & ~int(mask, 8):o} me; . nlink=3 touched") for mask in ("1", "2", "22", "77", "777")),
        ("all", "me: umask 7777", "open f O_CREAT|O_WRONLY 6777", "ok", "+f file 6000 me; . touched"),
        ("all", "file f 644 me; me: umask 077", "chmod f 666", "ok", "f mode=666 ctime"),
    ),
]
