"""utimensat, futimens, and which calls change which times: POSIX.1-2024 4.12, utimensat(2)."""

# fmt: off
from tests.posix.table import Differs, table

KINDS = ["file f 644 me", "dir f 755 me", "fifo f 644 me", "socket f 644 me"]
FAR = Differs("fs3", "ok", "f mtime=9223372036.854775807 ctime", "times are nanoseconds in 64 bits")
SET = "f mtime=2000.000000002 atime=1000.000000001 ctime"

TABLES = [
    table(
        "utimensat",
        *(("all", setup, "utimensat cwd f 1000.000000001 2000.000000002", "ok", SET) for setup in KINDS),
        ("root", "char f", "utimensat cwd f 1000.000000001 2000.000000002", "ok", SET),
        ("root", "block f", "utimensat cwd f 1000.000000001 2000.000000002", "ok", SET),
        ("all", "file f 644 me; me: x=open f O_RDONLY", "futimens x 1000.000000001 2000.000000002", "ok", SET),
        ("all", "dir f 755 me; me: x=open f O_RDONLY", "futimens x 1000.000000001 2000.000000002", "ok", SET),
        ("all", "slink none f me", "utimensat cwd f 1000.000000001 2000.000000002 AT_SYMLINK_NOFOLLOW", "ok", SET),
        ("all", "slink f x me; file f 644 me", "utimensat cwd x 1000.000000001 2000.000000002", "ok", SET),
        ("all", "slink none x me", "utimensat cwd x 1 1", "ENOENT"),
        ("all", "file f 644 me; link f g", "utimensat cwd f 1 2", "ok", "f mtime=2 ctime; g mtime=2 ctime"),
        # ---- the present, and leaving one as it is
        ("all", "file f 644 me; utimensat cwd f 1 2", "touch f", "ok", "f touched"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f now now", "ok", "f touched"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f now omit", "ok", "f ctime"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f omit now", "ok", "f touched; ? stat f atime -> 1"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f 5 omit", "ok", "f ctime; ? stat f atime -> 5; ? stat f mtime -> 2"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f omit 5", "ok", "f mtime=5 ctime; ? stat f atime -> 1"),
        ("all", "file f 644 me; utimensat cwd f 1 2", "utimensat cwd f omit omit", "ok", "? stat f atime -> 1; ? stat f mtime -> 2"),
        ("users", "file f 0; utimensat cwd f 1 2", "utimensat cwd f omit omit", "ok"),
        # ---- far away
        *(("all", "file f 644 me", f"utimensat cwd f {time} {time}", "ok", f"f mtime={time} ctime; ? stat f atime -> {time}") for time in ("0", "1", "-1", "-1000000000", "2147483647", "2147483648", "4294967296", "9000000000", "0.999999999")),
        # Nanoseconds in 64 bits end in April 2262; what is later becomes the last moment, as on every Linux file system;
        # ext4 ends in 2446, tmpfs later.
        ("all", "file f 644 me", "utimensat cwd f 100000000000 100000000000", "ok", "f mtime=15032385535|100000000000 ctime", FAR),
        # ---- by whom: the owner; the present also by who may write
        ("users", "file f 666", "touch f", "ok", "f touched"),
        ("users", "file f 666", "utimensat cwd f now now", "ok", "f touched"),
        ("users", "file f 444", "touch f", "EACCES"),
        ("users", "file f 444", "utimensat cwd f now now", "EACCES"),
        ("users", "file f 666", "utimensat cwd f 1 2", "EPERM"),
        ("users", "file f 666", "utimensat cwd f now omit", "EPERM"),
        ("users", "file f 666", "utimensat cwd f omit now", "EPERM"),
        ("users", "file f 444 me", "utimensat cwd f 1 2", "ok", "f mtime=2 ctime"),
        ("users", "file f 0 me", "touch f", "ok", "f touched"),
        ("root", "file f 0 alice", "utimensat cwd f 1 2", "ok", "f mtime=2 ctime"),
        ("users", "file f 666; me: x=open f O_RDWR", "futimens x 1 2", "EPERM"),
        ("users", "file f 666; me: x=open f O_RDONLY", "futimens x now now", "ok", "f touched"),
        ("users", "slink none f", "utimensat cwd f 1 2 AT_SYMLINK_NOFOLLOW", "EPERM"),
        # ---- errors
        ("all", "file f 644 me", "utimensat cwd f bad 1", "EINVAL"),
        ("all", "file f 644 me", "utimensat cwd f 1 bad", "EINVAL"),
        ("all", "file f 644 me", "utimensat cwd f 1 1 0x40", "EINVAL"),
        ("all", "", "futimens closed 1 1", "EBADF"),
        ("all", "", "utimensat closed f 1 1", "EBADF"),
        ("all", "file f 644 me; me: y=open f O_RDONLY", "utimensat y g 1 1", "ENOTDIR"),
        ("all", "dir d 755 me; file d/f 644 me; me: y=open d O_RDONLY", "utimensat y f 1 2", "ok", "d/f mtime=2 ctime"),
        ("all", "file f 644 me; me: x=open f O_RDONLY; unlink f", "futimens x 1 2", "ok", "? fstat x mtime -> 2"),
    ),
    table(
        "times",
        # Opening, reading and looking change neither mtime nor ctime.
        *(("all", "file f 644 me hello; link f g; slink none s; dir d 755 me; me: x=open f O_RDONLY", action, "ok") for action in ("read x 3", "stat f", "lstat s", "readlink s", "access f R_OK", "open f O_RDWR", "open f O_RDWR|O_CREAT 600", "list d", "list .", "statfs f", "lseek x 2 SEEK_SET", "chdir d", "fsync x", "close x", "dup x", "content f")),
        # Times that were set stay through what does not change the file.
        ("all", "file f 644 me hello; utimensat cwd f 1 2; me: x=open f O_RDWR", "close x", "ok", "? stat f mtime -> 2"),
        ("all", "file f 644 me hello; utimensat cwd f 1 2", "rename f g", "ok", "-f; +g was f; . touched; ? stat g mtime -> 2"),
        ("all", "file f 644 me hello; utimensat cwd f 1 2", "link f g", "ok", "+g was f nlink=2 ctime; f nlink=2 ctime; . touched"),
        ("all", "file f 644 me hello; utimensat cwd f 1 2", "chmod f 600", "ok", "f mode=600 ctime"),
        ("all", "file f 644 me; me: x=open f O_RDWR; me: write x hello; me: futimens x 3 4", "close x", "ok", "? stat f mtime -> 4"),
        ("all", "file f 644 me; me: x=open f O_RDWR; me: write x hello; me: utimensat cwd f 3 4", "fsync x", "ok", "? stat f mtime -> 4"),
        ("all", "dir d 777; utimensat cwd d 1 2; file e", "stat d mtime", "2"),
        ("all", "dir d 777; file d/f 666; utimensat cwd d 1 2; me: x=open d/f O_WRONLY", "write x hello", "5", "d/f size=5 written; ? stat d mtime -> 2"),
        # A write that writes nothing changes nothing.
        ("all", "file f 644 me hello; me: x=open f O_RDWR", 'write x ""', "0"),
        ("all", "file f 644 me hello; me: x=open f O_RDWR", 'pwrite x "" 100', "0"),
        ("all", "file f 644 me hello", "truncate f 5", "ok", "f touched"),
        ("all", "file f 644 me hello; me: x=open f O_RDWR", "ftruncate x 5", "ok", "f touched"),
    ),
]
