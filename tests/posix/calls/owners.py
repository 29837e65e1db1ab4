"""chown, lchown, fchown, fchownat: POSIX.1-2024, chown(2)."""

# fmt: off
from tests.posix.table import table

KINDS = ["file f 644", "dir f 755", "fifo f 644", "socket f 644", "char f 644", "block f 644"]

TABLES = [
    table(
        "chown",
        *(("root", setup, "chown f alice team", "ok", "f uid=alice gid=team ctime") for setup in KINDS),
        *(("root", setup, "lchown f alice team", "ok", "f uid=alice gid=team ctime") for setup in KINDS),
        ("root", "file f", "chown f alice -1", "ok", "f uid=alice ctime"),
        ("root", "file f", "chown f -1 team", "ok", "f gid=team ctime"),
        ("root", "file f", "chown f 4294967294 0", "ok", "f uid=4294967294 ctime"),
        ("root", "file f 644 alice:team", "chown f alice team", "ok", "f ctime"),
        ("root", "file f; x=open f O_RDONLY", "fchown x alice team", "ok", "f uid=alice gid=team ctime"),
        ("root", "file f", "fchownat cwd f alice team 0", "ok", "f uid=alice gid=team ctime"),
        ("root", "file f; link f g", "chown f alice -1", "ok", "f uid=alice ctime; g uid=alice ctime"),
        # ---- symbolic links
        ("root", "file f; slink f x", "chown x alice team", "ok", "f uid=alice gid=team ctime"),
        ("root", "file f; slink f x", "lchown x alice team", "ok", "x uid=alice gid=team ctime"),
        ("root", "file f; slink f x", "fchownat cwd x alice team AT_SYMLINK_NOFOLLOW", "ok", "x uid=alice gid=team ctime"),
        ("root", "slink none x", "chown x alice team", "ENOENT"),
        ("root", "slink none x", "lchown x alice team", "ok", "x uid=alice gid=team ctime"),
        # ---- by ordinary users: an owner may give the file to a group of his
        ("alice", "file f 644 alice", "chown f -1 team", "ok", "f gid=team ctime"),
        ("alice", "file f 644 alice", "chown f alice staff", "ok", "f gid=staff ctime"),
        ("alice", "slink none f alice", "lchown f -1 team", "ok", "f gid=team ctime"),
        ("alice", "dir f 755 alice", "chown f -1 team", "ok", "f gid=team ctime"),
        ("alice", "file f 644 alice; me: x=open f O_RDONLY", "fchown x -1 team", "ok", "f gid=team ctime"),
        ("bob", "file f 644 bob", "chown f -1 team", "EPERM"),
        ("users", "file f 644 me", "chown f root -1", "EPERM"),
        ("users", "file f 644 me", "chown f -1 root", "EPERM"),
        ("alice", "file f 644 alice", "chown f bob -1", "EPERM"),
        ("alice", "file f 666 bob:alice", "chown f alice -1", "EPERM"),
        ("alice", "file f 666 bob:alice", "chown f -1 team", "EPERM"),
        ("users", "file f 666", "chown f me me", "EPERM"),
        ("users", "file f 666; me: x=open f O_RDWR", "fchown x me me", "EPERM"),
        ("alice", "file f 644 alice:team", "chown f alice team", "ok", "f ctime"),
        ("bob", "file f 644 bob:team", "chown f -1 bob", "ok", "f gid=bob ctime"),
        ("bob", "file f 644 bob:team", "chown f bob team", "ok", "f ctime"),
        # Neither is said: nothing changes for anybody (chown(2)); who does not own it may ask.
        ("users", "file f 666", "chown f -1 -1", "ok", "f ctime?"),
        # ---- setuid and setgid go when an ordinary file changes hands, for root too
        ("alice", "file f 6755 alice", "chown f -1 team", "ok", "f gid=team mode=755 ctime"),
        ("root", "file f 6755", "chown f alice team", "ok", "f uid=alice gid=team mode=755 ctime"),
        ("root", "file f 6755 alice", "chown f alice alice", "ok", "f mode=755 ctime"),
        ("root", "file f 4755", "chown f -1 team", "ok", "f gid=team mode=755 ctime"),
        # Without group execute, setgid means mandatory locking and stays.
        ("root", "file f 2745", "chown f alice team", "ok", "f uid=alice gid=team ctime"),
        ("alice", "file f 6745 alice", "chown f -1 team", "ok", "f gid=team mode=2745|745 ctime"),
        # Of a directory they stay.
        ("root", "dir d 2755", "chown d alice team", "ok", "d uid=alice gid=team ctime"),
        ("alice", "dir d 2755 alice:team", "chown d -1 staff", "ok", "d gid=staff ctime"),
        ("root", "fifo f 6755", "chown f alice team", "ok", "f uid=alice gid=team mode=755 ctime"),
        # ---- descriptors and flags
        ("all", "", "fchown closed -1 -1", "EBADF"),
        ("all", "file f 644 me; me: x=open f O_PATH", "fchown x -1 -1", "EBADF"),
        ("root", "file f; x=open f O_PATH", 'fchownat x "" alice team AT_EMPTY_PATH', "ok", "f uid=alice gid=team ctime"),
        ("root", "dir d; file d/f; y=open d O_RDONLY", "fchownat y f alice team 0", "ok", "d/f uid=alice gid=team ctime"),
        ("all", "file f", "fchownat closed f -1 -1 0", "EBADF"),
        ("all", "file f; me: y=open f O_RDONLY", "fchownat y g -1 -1 0", "ENOTDIR"),
        ("all", "file f", "fchownat cwd f -1 -1 0x40000", "EINVAL"),
        ("root", "file f; x=open f O_RDONLY; unlink f", "fchown x alice team", "ok", "? fstat x uid -> alice"),
    ),
]
