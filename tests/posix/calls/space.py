"""fallocate, posix_fallocate, SEEK_DATA, SEEK_HOLE, copy_file_range: POSIX.1-2024, fallocate(2), lseek(2), copy_file_range(2)."""

# fmt: off
from tests.posix.table import Differs, table

NO_ZERO = Differs("tmpfs", "EOPNOTSUPP", "", "its fallocate has no ZERO_RANGE")
EMPTY = "file f 666; me: x=open f O_RDWR"
BYTES = "file f 666 root a*40000; me: x=open f O_RDWR"
HOLES = "file f 666; truncate f 8M; me: x=open f O_RDWR; me: pwrite x a*4096 4M; me: fsync x"
SOURCE = "file f 666 root 0123456789; me: x=open f O_RDWR; me: y=open g O_RDWR|O_CREAT 644"

TABLES = [
    table(
        "fallocate",
        ("all", EMPTY, "fallocate x 0 0 10000", "ok", "f size=10000 written; ? content f -> \\0*10000"),
        ("all", EMPTY, "fallocate x 0 5000 5000", "ok", "f size=10000 written"),
        ("all", BYTES, "fallocate x 0 0 10000", "ok", "f mtime? ctime?; ? content f -> a*40000"),
        ("all", BYTES, "fallocate x 0 30000 20000", "ok", "f size=50000 written; ? content f -> a*40000+\\0*10000"),
        ("all", EMPTY, "fallocate x KEEP_SIZE 0 100000", "ok", "f mtime? ctime?; ? stat f size -> 0"),
        ("all", BYTES, "fallocate x KEEP_SIZE 0 100000", "ok", "f mtime? ctime?; ? stat f size -> 40000"),
        ("all", BYTES, "fallocate x PUNCH_HOLE|KEEP_SIZE 8192 8192", "ok", "f written; ? content f -> a*8192+\\0*8192+a*23616"),
        ("all", BYTES, "fallocate x PUNCH_HOLE|KEEP_SIZE 100 10", "ok", "f written; ? content f -> a*100+\\0*10+a*39890"),
        ("all", BYTES, "fallocate x PUNCH_HOLE|KEEP_SIZE 30000 50000", "ok", "f written; ? content f -> a*30000+\\0*10000"),
        ("all", BYTES, "fallocate x PUNCH_HOLE|KEEP_SIZE 50000 50000", "ok", "f mtime? ctime?; ? stat f size -> 40000"),
        ("all", BYTES, "fallocate x ZERO_RANGE 100 1000", "ok", "f written; ? content f -> a*100+\\0*1000+a*38900", NO_ZERO),
        ("all", BYTES, "fallocate x ZERO_RANGE 30000 20000", "ok", "f size=50000 written; ? content f -> a*30000+\\0*20000", NO_ZERO),
        ("all", BYTES, "fallocate x ZERO_RANGE|KEEP_SIZE 30000 20000", "ok", "f written; ? content f -> a*30000+\\0*10000", NO_ZERO),
        ("users", "file f 6777 root hello; me: x=open f O_RDWR", "fallocate x 0 0 100", "ok", "f size=100 mode=777 written"),
        # ---- errors
        ("all", "", "fallocate closed 0 0 1", "EBADF"),
        ("all", "file f 666; me: x=open f O_RDONLY", "fallocate x 0 0 1", "EBADF"),
        ("all", "file f 666; me: x=open f O_PATH", "fallocate x 0 0 1", "EBADF"),
        ("all", EMPTY, "fallocate x 0 0 0", "EINVAL"),
        ("all", EMPTY, "fallocate x 0 -1 1", "EINVAL"),
        ("all", EMPTY, "fallocate x 0 0 -1", "EINVAL"),
        ("all", EMPTY, "fallocate x 0 max 1", "EFBIG"),
        ("all", EMPTY, "fallocate x PUNCH_HOLE 0 1", "EOPNOTSUPP"),
        ("all", EMPTY, "fallocate x PUNCH_HOLE|ZERO_RANGE|KEEP_SIZE 0 1", "EOPNOTSUPP|EINVAL"),
        ("all", EMPTY, "fallocate x 0x40000000 0 1", "EOPNOTSUPP"),
        ("all", "dir d 777; me: x=open d O_RDONLY", "fallocate x 0 0 1", "EBADF|EISDIR"),
        ("all", "fifo f 666; me: x=open f O_RDWR", "fallocate x 0 0 1", "ESPIPE"),
        ("all", f"{EMPTY}; me: rlimit_fsize 1000", "fallocate x 0 0 1001", "EFBIG", "f mtime? ctime?"),
        ("all", f"{EMPTY}; unlink f", "fallocate x 0 0 1000", "ok", "? fstat x size -> 1000"),
    ),
    table(
        "posix_fallocate",
        ("all", EMPTY, "posix_fallocate x 0 10000", "ok", "f size=10000 written"),
        ("all", BYTES, "posix_fallocate x 0 10000", "ok", "f mtime? ctime?; ? content f -> a*40000"),
        ("all", EMPTY, "posix_fallocate x 0 0", "EINVAL"),
        ("all", EMPTY, "posix_fallocate x -1 1", "EINVAL"),
        ("all", "", "posix_fallocate closed 0 1", "EBADF"),
        ("all", "file f 666; me: x=open f O_RDONLY", "posix_fallocate x 0 1", "EBADF"),
        ("all", "fifo f 666; me: x=open f O_RDWR", "posix_fallocate x 0 1", "ESPIPE"),
        ("all", EMPTY, "posix_fallocate x max 1", "EFBIG"),
    ),
    table(
        "SEEK_HOLE",
        ("all", BYTES, "lseek x 0 SEEK_DATA", "0"),
        ("all", BYTES, "lseek x 39999 SEEK_DATA", "39999"),
        ("all", BYTES, "lseek x 0 SEEK_HOLE", "40000"),
        ("all", BYTES, "lseek x 40000 SEEK_HOLE", "ENXIO"),
        ("all", BYTES, "lseek x 40000 SEEK_DATA", "ENXIO"),
        ("all", BYTES, "lseek x -1 SEEK_DATA", "ENXIO"),
        ("all", BYTES, "lseek x -1 SEEK_HOLE", "ENXIO"),
        ("all", EMPTY, "lseek x 0 SEEK_DATA", "ENXIO"),
        ("all", EMPTY, "lseek x 0 SEEK_HOLE", "ENXIO"),
        # Whole chunks that nobody wrote are holes.
        ("all", HOLES, "lseek x 0 SEEK_HOLE", "0"),
        ("all", HOLES, "lseek x 0 SEEK_DATA", "4194304"),
        ("all", HOLES, "lseek x 4194304 SEEK_DATA", "4194304"),
        ("all", HOLES, "lseek x 4194306 SEEK_DATA", "4194306"),
        ("all", HOLES, "lseek x 6M SEEK_DATA", "ENXIO"),
        ("all", HOLES, "lseek x 6M SEEK_HOLE", "6291456"),
        ("all", "file f 666; truncate f 8M; me: x=open f O_RDWR", "lseek x 0 SEEK_DATA", "ENXIO"),
        ("all", "file f 666; truncate f 8M; me: x=open f O_RDWR", "lseek x 100 SEEK_HOLE", "100"),
        ("all", "", "lseek closed 0 SEEK_DATA", "EBADF"),
        ("all", "fifo f 666; me: x=open f O_RDWR", "lseek x 0 SEEK_DATA", "ESPIPE"),
        ("root", "file f 666 root a*4194304; x=open f O_RDWR; fallocate x PUNCH_HOLE|KEEP_SIZE 1M 2M", "lseek x 1M SEEK_DATA", "3145728"),
        ("root", "file f 666 root a*4194304; x=open f O_RDWR; fallocate x PUNCH_HOLE|KEEP_SIZE 1M 2M", "lseek x 0 SEEK_HOLE", "1048576"),
    ),
    table(
        "copy_file_range",
        ("all", SOURCE, "copy_file_range x - y - 10", "10", "g size=10 written; ? content g -> 0123456789; ? lseek x 0 SEEK_CUR -> 10; ? lseek y 0 SEEK_CUR -> 10"),
        ("all", SOURCE, "copy_file_range x 2 y 4 3", "3", "g size=7 written; ? content g -> \\0*4+234; ? lseek x 0 SEEK_CUR -> 0; ? lseek y 0 SEEK_CUR -> 0"),
        ("all", SOURCE, "copy_file_range x - y - 100", "10", "g size=10 written"),
        ("all", SOURCE, "copy_file_range x 10 y - 5", "0"),
        ("all", SOURCE, "copy_file_range x 100 y - 5", "0"),
        ("all", SOURCE, "copy_file_range x - y - 0", "0"),
        ("root", "file f 666 root a*3000000; x=open f O_RDWR; y=open g O_RDWR|O_CREAT 644", "copy_file_range x - y - 3000000", "3000000", "g size=3000000 touched; ? pread y 9 2999996 -> a*4"),
        # In one file: apart is fine, over itself is not.
        ("all", SOURCE, "copy_file_range x 0 x 5 3", "3", "f written; ? content f -> 0123401289"),
        ("all", SOURCE, "copy_file_range x 0 x 2 3", "EINVAL"),
        ("all", SOURCE, "copy_file_range x 0 x 10 5", "5", "f size=15 written"),
        ("users", "file f 666 root 0123456789; me: x=open f O_RDWR; file g 6777; me: y=open g O_RDWR", "copy_file_range x 0 y 0 3", "3", "g size=3 mode=777 written"),
        # ---- errors
        ("all", SOURCE, "copy_file_range closed - y - 5", "EBADF"),
        ("all", SOURCE, "copy_file_range x - closed - 5", "EBADF"),
        ("all", "file f 666 root abc; me: x=open f O_WRONLY; me: y=open g O_RDWR|O_CREAT 644", "copy_file_range x - y - 5", "EBADF"),
        ("all", "file f 666 root abc; me: x=open f O_RDONLY; file g 666; me: y=open g O_RDONLY", "copy_file_range x - y - 5", "EBADF"),
        ("all", "file f 666 root abc; me: x=open f O_RDONLY; file g 666; me: y=open g O_WRONLY|O_APPEND", "copy_file_range x - y - 5", "EBADF"),
        ("all", SOURCE, "copy_file_range x - y - 5 1", "EINVAL"),
        ("all", f"{SOURCE}; dir d 777; me: z=open d O_RDONLY", "copy_file_range z - y - 5", "EISDIR"),
        ("all", f"{SOURCE}; fifo p 666; me: z=open p O_RDWR", "copy_file_range z - y - 5", "EINVAL"),
    ),
]
