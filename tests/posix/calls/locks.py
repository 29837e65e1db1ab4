"""fcntl record locks, open file description locks, flock, lockf, leases: POSIX.1-2024 fcntl(), fcntl(2), flock(2).

Each person is a process; alice2 is a second one of alice's.
"""

# fmt: off
from tests.posix.table import table

MINE = "file f 666; me: x=open f O_RDWR"
BOTH = f"{MINE}; root2: z=open f O_RDWR"
HELD = f"{BOTH}; root2: setlk z F_WRLCK 10 10"
SHARED = f"{BOTH}; root2: setlk z F_RDLCK 10 10"
FREE = "F_UNLCK"

TABLES = [
    table(
        "fcntl locks",
        ("all", MINE, "setlk x F_WRLCK 0 0", "ok", "? root2: z=open f O_RDWR -> ok; ? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 0 me"),
        ("all", MINE, "setlk x F_RDLCK 5 10", "ok", "? root2: z=open f O_RDWR -> ok; ? root2: getlk z F_WRLCK 0 0 -> F_RDLCK 5 10 me; ? root2: getlk z F_RDLCK 0 0 -> F_UNLCK"),
        ("all", MINE, "getlk x F_WRLCK 0 0", FREE),
        ("all", f"{MINE}; me: setlk x F_WRLCK 0 0", "getlk x F_WRLCK 0 0", FREE),
        # ---- conflicts
        ("all", HELD, "setlk x F_WRLCK 10 10", "EAGAIN|EACCES"),
        ("all", HELD, "setlk x F_RDLCK 10 10", "EAGAIN|EACCES"),
        ("all", HELD, "setlk x F_WRLCK 0 0", "EAGAIN|EACCES"),
        ("all", HELD, "setlk x F_WRLCK 19 1", "EAGAIN|EACCES"),
        ("all", HELD, "setlk x F_WRLCK 5 6", "EAGAIN|EACCES"),
        ("all", HELD, "setlk x F_WRLCK 0 10", "ok"),
        ("all", HELD, "setlk x F_WRLCK 20 0", "ok"),
        ("all", HELD, "setlk x F_RDLCK 0 10", "ok"),
        ("all", SHARED, "setlk x F_RDLCK 0 0", "ok"),
        ("all", SHARED, "setlk x F_WRLCK 15 1", "EAGAIN|EACCES"),
        ("all", HELD, "getlk x F_RDLCK 0 0", "F_WRLCK 10 10 root2"),
        ("all", SHARED, "getlk x F_RDLCK 0 0", FREE),
        ("all", SHARED, "getlk x F_WRLCK 0 0", "F_RDLCK 10 10 root2"),
        ("all", HELD, "getlk x F_WRLCK 0 10", FREE),
        # ---- a process's own locks are replaced, split and joined
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 30", "setlk x F_UNLCK 10 10", "ok", "? root2: getlk z F_WRLCK 0 10 -> F_WRLCK 0 10 me; ? root2: getlk z F_WRLCK 10 10 -> F_UNLCK; ? root2: getlk z F_WRLCK 20 0 -> F_WRLCK 20 10 me"),
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 30", "setlk x F_RDLCK 10 10", "ok", "? root2: getlk z F_RDLCK 10 10 -> F_UNLCK; ? root2: getlk z F_WRLCK 10 1 -> F_RDLCK 10 10 me"),
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 10; me: setlk x F_WRLCK 10 10", "getlk x F_WRLCK 0 0", FREE, "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 20 me"),
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 10; me: setlk x F_WRLCK 5 20", "getlk x F_WRLCK 0 0", FREE, "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 25 me"),
        ("all", f"{BOTH}; me: setlk x F_RDLCK 0 10; me: setlk x F_WRLCK 0 10", "getlk x F_WRLCK 0 0", FREE, "? root2: getlk z F_RDLCK 0 0 -> F_WRLCK 0 10 me"),
        ("all", MINE, "setlk x F_UNLCK 0 0", "ok"),
        # ---- ends: closing any descriptor of the file, or the end of the process
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 0", "close x", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_UNLCK"),
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 0; me: y=open f O_RDONLY", "close y", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_UNLCK"),
        ("all", f"{BOTH}; me: setlk x F_WRLCK 0 0; me: y=dup x", "close y", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_UNLCK"),
        ("all", f"{HELD}; root2: close z", "setlk x F_WRLCK 0 0", "ok"),
        # ---- by the inode, not the name; from a place in the file
        ("all", "file f 666; link f g; me: x=open f O_RDWR; root2: z=open g O_RDWR; root2: setlk z F_WRLCK 0 0", "setlk x F_WRLCK 0 0", "EAGAIN|EACCES"),
        ("all", f"{HELD}; rename f g", "setlk x F_WRLCK 0 0", "EAGAIN|EACCES"),
        ("all", f"{BOTH}; me: lseek x 100 SEEK_SET", "setlk x F_WRLCK 5 10 SEEK_CUR", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 105 10 me"),
        ("all", f"{BOTH}; me: pwrite x a*50 0", "setlk x F_WRLCK -10 10 SEEK_END", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 40 10 me"),
        ("all", BOTH, "setlk x F_WRLCK 20 -10", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 10 10 me"),
        ("all", BOTH, "setlk x F_WRLCK max 1", "ok|EOVERFLOW"),
        # ---- waiting
        ("all", f"{HELD}; start me: setlkw x F_WRLCK 0 0", "waits me", "yes", "? root2: setlk z F_UNLCK 0 0 -> ok; ? end me -> ok; ? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 0 me"),
        ("all", f"{HELD}; start me: setlkw x F_RDLCK 0 0", "waits me", "yes", "? root2: close z -> ok; ? end me -> ok"),
        ("all", f"{HELD}; start me: setlkw x F_WRLCK 0 0", "waits me", "yes", "? root2: setlk z F_RDLCK 10 10 -> ok; ? waits me -> yes; ? root2: setlk z F_UNLCK 10 10 -> ok; ? end me -> ok"),
        ("all", BOTH, "setlkw x F_WRLCK 0 0", "ok"),
        ("all", f"{HELD}; me: setlk x F_WRLCK 30 1; start root2: setlkw z F_WRLCK 30 1", "setlkw x F_WRLCK 10 1", "EDEADLK", "? me: setlk x F_UNLCK 0 0 -> ok; ? end root2 -> ok"),
        ("all", f"{HELD}; start me: interrupted setlkw x F_WRLCK 0 0", "end me", "EINTR"),
        # ---- errors
        ("all", "file f 666; me: x=open f O_RDONLY", "setlk x F_WRLCK 0 0", "EBADF"),
        ("all", "file f 666; me: x=open f O_WRONLY", "setlk x F_RDLCK 0 0", "EBADF"),
        ("all", "file f 666; me: x=open f O_RDONLY", "setlk x F_RDLCK 0 0", "ok"),
        ("all", "file f 666; me: x=open f O_WRONLY", "setlk x F_WRLCK 0 0", "ok"),
        ("all", MINE, "setlk x 7 0 0", "EINVAL"),
        ("all", MINE, "setlk x F_WRLCK -1 0", "EINVAL"),
        ("all", MINE, "setlk x F_WRLCK 5 -10", "EINVAL"),
        ("all", MINE, "setlk x F_WRLCK 0 0 7", "EINVAL"),
        ("all", MINE, "getlk x F_UNLCK 0 0", "EINVAL"),
    ),
    table(
        "OFD locks",
        ("all", BOTH, "ofd_setlk x F_WRLCK 0 10", "ok", "? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 10 -1; ? root2: ofd_setlk z F_WRLCK 5 1 -> EAGAIN"),
        ("all", f"{MINE}; me: y=open f O_RDWR; me: ofd_setlk x F_WRLCK 0 0", "ofd_setlk y F_WRLCK 0 0", "EAGAIN"),
        ("all", f"{MINE}; me: y=open f O_RDWR; me: ofd_setlk x F_RDLCK 0 0", "ofd_setlk y F_RDLCK 0 0", "ok"),
        ("all", f"{MINE}; me: y=dup x; me: ofd_setlk x F_WRLCK 0 0", "ofd_setlk y F_WRLCK 0 0", "ok"),
        ("all", f"{BOTH}; me: y=dup x; me: ofd_setlk x F_WRLCK 0 0", "close y", "ok", "? root2: ofd_setlk z F_WRLCK 0 0 -> EAGAIN"),
        ("all", f"{BOTH}; me: y=open f O_RDWR; me: ofd_setlk x F_WRLCK 0 0", "close y", "ok", "? root2: ofd_setlk z F_WRLCK 0 0 -> EAGAIN"),
        ("all", f"{BOTH}; me: ofd_setlk x F_WRLCK 0 0", "close x", "ok", "? root2: ofd_setlk z F_WRLCK 0 0 -> ok"),
        ("all", HELD, "ofd_setlk x F_WRLCK 0 0", "EAGAIN"),
        ("all", HELD, "ofd_getlk x F_WRLCK 0 0", "F_WRLCK 10 10 root2"),
        ("all", f"{BOTH}; root2: ofd_setlk z F_WRLCK 3 4", "setlk x F_WRLCK 0 0", "EAGAIN|EACCES"),
        ("all", f"{BOTH}; root2: ofd_setlk z F_WRLCK 3 4; start me: ofd_setlkw x F_WRLCK 0 0", "waits me", "yes", "? root2: close z -> ok; ? end me -> ok"),
    ),
    table(
        "flock",
        ("all", BOTH, "flock x LOCK_EX|LOCK_NB", "ok", "? root2: flock z LOCK_SH|LOCK_NB -> EAGAIN; ? root2: flock z LOCK_EX|LOCK_NB -> EAGAIN"),
        ("all", BOTH, "flock x LOCK_SH|LOCK_NB", "ok", "? root2: flock z LOCK_SH|LOCK_NB -> ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX", "flock x LOCK_SH|LOCK_NB", "EAGAIN"),
        ("all", f"{BOTH}; root2: flock z LOCK_SH", "flock x LOCK_EX|LOCK_NB", "EAGAIN"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; root2: flock z LOCK_UN", "flock x LOCK_EX|LOCK_NB", "ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; root2: close z", "flock x LOCK_EX|LOCK_NB", "ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; root2: flock z LOCK_SH", "flock x LOCK_SH|LOCK_NB", "ok"),
        ("all", f"{BOTH}; me: flock x LOCK_SH", "flock x LOCK_EX|LOCK_NB", "ok"),
        # It belongs to the open file: a duplicate is the same, another open is not.
        ("all", f"{MINE}; me: y=dup x; me: flock x LOCK_EX", "flock y LOCK_EX|LOCK_NB", "ok"),
        ("all", f"{MINE}; me: y=open f O_RDWR; me: flock x LOCK_EX", "flock y LOCK_EX|LOCK_NB", "EAGAIN"),
        ("all", f"{BOTH}; me: y=dup x; me: flock x LOCK_EX", "close x", "ok", "? root2: flock z LOCK_EX|LOCK_NB -> EAGAIN; ? close y -> ok; ? root2: flock z LOCK_EX|LOCK_NB -> ok"),
        ("all", f"{BOTH}; me: y=dup x; me: flock x LOCK_EX; me: flock y LOCK_UN", "fstat x", "ok", "? root2: flock z LOCK_EX|LOCK_NB -> ok"),
        # It knows nothing of fcntl's.
        ("all", f"{BOTH}; root2: setlk z F_WRLCK 0 0", "flock x LOCK_EX|LOCK_NB", "ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX", "setlk x F_WRLCK 0 0", "ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; start me: flock x LOCK_EX", "waits me", "yes", "? root2: flock z LOCK_UN -> ok; ? end me -> ok"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; start me: interrupted flock x LOCK_EX", "end me", "EINTR"),
        ("all", "file f 666; me: x=open f O_RDONLY", "flock x LOCK_EX|LOCK_NB", "ok"),
        ("all", "file f 666; me: x=open f O_WRONLY", "flock x LOCK_SH|LOCK_NB", "ok"),
        ("all", "dir d 777; me: x=open d O_RDONLY; root2: z=open d O_RDONLY; root2: flock z LOCK_EX", "flock x LOCK_EX|LOCK_NB", "EAGAIN"),
        ("all", MINE, "flock x 0", "EINVAL"),
        ("all", f"{BOTH}; root2: flock z LOCK_EX; unlink f; file f 666; me: y=open f O_RDWR", "flock y LOCK_EX|LOCK_NB", "ok"),
    ),
    table(
        "lockf",
        ("all", MINE, "lockf x F_LOCK 10", "ok", "? root2: z=open f O_RDWR -> ok; ? root2: getlk z F_WRLCK 0 0 -> F_WRLCK 0 10 me"),
        ("all", HELD, "lockf x F_TLOCK 0", "EAGAIN|EACCES"),
        ("all", HELD, "lockf x F_TLOCK 10", "ok"),
        ("all", HELD, "lockf x F_TEST 0", "EAGAIN|EACCES"),
        ("all", HELD, "lockf x F_TEST 10", "ok"),
        ("all", f"{MINE}; me: lockf x F_LOCK 0", "lockf x F_ULOCK 0", "ok", "? root2: z=open f O_RDWR -> ok; ? root2: getlk z F_WRLCK 0 0 -> F_UNLCK"),
        ("all", "file f 666; me: x=open f O_RDONLY", "lockf x F_LOCK 0", "EBADF"),
        ("all", MINE, "lockf x 9 0", "EINVAL"),
        ("all", "", "lockf closed F_LOCK 0", "EBADF"),
    ),
]
