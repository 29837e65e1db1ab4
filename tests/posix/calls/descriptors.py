"""Descriptors: what a wrong one answers, what O_PATH allows, dup, fcntl: POSIX.1-2024, fcntl(2), open(2)."""

# fmt: off
from tests.posix.table import table

ON_ANY = ["fstat @", "fchdir @", "fstatfs @", "close @", "dup @"]
ON_FILE = [
    "read @ 1",
    "write @ a",
    "pread @ 1 0",
    "pwrite @ a 0",
    "readv @ 1",
    "writev @ a",
    "lseek @ 0 SEEK_SET",
    "ftruncate @ 0",
    "fsync @",
    "fdatasync @",
    "fchmod @ 600",
    "fchown @ -1 -1",
    "flock @ LOCK_SH",
    "fallocate @ 0 0 1",
    "fgetxattr @ user.a",
    "fsetxattr @ user.a 1",
    "flistxattr @",
    "fremovexattr @ user.a",
    "setlk @ F_RDLCK 0 1",
    "getlk @ F_RDLCK 0 1",
]

TABLES = [
    table(
        "descriptors",
        *(("all", "", action.replace("@", "closed"), "EBADF") for action in ON_ANY + ON_FILE),
        *(("all", "", action.replace("@", "-1"), "EBADF") for action in ON_ANY + ON_FILE),
        *(("all", "file f 666 me; me: x=open f O_PATH", action.replace("@", "x"), "EBADF") for action in ON_FILE),
        ("all", "file f 666; me: x=open f O_RDONLY", "close x", "ok"),
        ("all", "file f 666; me: x=open f O_RDONLY", "fchdir x", "ENOTDIR"),
        ("all", "dir d 777; file d/f; me: x=open d O_PATH", "fchdir x", "ok", "? getcwd -> d; ? stat f type -> file"),
        ("users", "dir d 744; me: x=open d O_RDONLY", "fchdir x", "EACCES"),
        ("all", "file f 666; me: x=open f O_RDWR|O_APPEND", "getfl x O_APPEND", "yes"),
        ("all", "file f 666; me: x=open f O_RDWR", "getfl x O_APPEND", "no"),
        ("all", "file f 666; me: x=open f O_RDWR; me: setfl x O_NONBLOCK", "getfl x O_NONBLOCK", "yes"),
        ("all", "file f 666; me: x=open f O_WRONLY", "getfl x O_WRONLY", "yes"),
        # A duplicate is the same open file: position and flags are shared, closing one leaves the other.
        ("all", "file f 666 root hello; me: x=open f O_RDONLY; me: y=dup x; me: close x", "read y 9", "hello"),
        ("all", "file f 666; me: x=open f O_RDWR; me: y=dup x; me: setfl x O_APPEND", "getfl y O_APPEND", "yes"),
    ),
    table(
        "chdir",
        ("all", "dir d 711", "chdir d", "ok", "? getcwd -> d"),
        ("all", "dir d 711; slink d x", "chdir x", "ok", "? getcwd -> d"),
        ("all", "file f 777", "chdir f", "ENOTDIR"),
        ("all", "fifo f 777", "chdir f", "ENOTDIR"),
        ("users", "dir d 766", "chdir d", "EACCES"),
        ("users", "dir d 755; me: chdir d; rename d e", "getcwd", "e"),
        ("users", "dir d 755; me: chdir d; rmdir d", "stat .", "ok"),
        ("users", "dir d 755; me: chdir d; rmdir d", "list .", "nothing|ENOENT"),
        ("users", "dir d 755; me: chdir d; dir e; rename d e/d; file e/f", "stat ../f type", "file"),
        ("root", "dir d", "chroot d", "ok"),
        ("users", "dir d", "chroot d", "EPERM"),
    ),
]
