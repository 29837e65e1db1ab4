"""truncate, ftruncate: POSIX.1-2024, truncate(2)."""

# fmt: off
from tests.posix.table import Differs, table

SIZES = ["0", "1", "4", "5", "4095", "4096", "4097", "65536", "1048576", "1048577", "3000000"]
BIG = "file f 644 me a*5000000"

TABLES = [
    table(
        "truncate",
        *(("all", "file f 644 me hello", f"truncate f {size}", "ok", f"f{'' if size == '5' else f' size={size}'} {'touched' if size == '5' else 'written'}; ? stat f size -> {size}") for size in SIZES[:8]),
        *(("root", BIG, f"truncate f {size}", "ok", f"f size={size} touched; ? stat f size -> {size}") for size in SIZES[8:]),
        *(("root", BIG, f"truncate f {size}", "ok", f"f size={size} {'written' if int(size) <= 65536 and size != '0' else 'touched'}") for size in SIZES[:8]),
        ("all", "file f 644 me hello", "truncate f 10", "ok", "f size=10 written; ? content f -> hello+\\0*5"),
        ("all", "file f 644 me hello; truncate f 2", "truncate f 10", "ok", "f size=10 written; ? content f -> he+\\0*8"),
        ("all", "file f 644 me x*10000; truncate f 100", "truncate f 5000", "ok", "f size=5000 written; ? content f -> x*100+\\0*4900"),
        ("all", "file f 644 me x*200000; truncate f 100000; truncate f 200000; me: x=open f O_RDONLY", "pread x 4 99998", "xx\\0\\0"),
        ("root", f"{BIG}; truncate f 1500000; truncate f 4000000; x=open f O_RDONLY", "pread x 10 1499995", "a*5+\\0*5"),
        ("root", f"{BIG}; truncate f 1500000; truncate f 4000000; x=open f O_RDONLY", "pread x 10 3999995", "\\0*5"),
        ("all", "file f 644 me", "truncate f 1T", "ok", "f size=1099511627776 touched"),
        ("all", "file f 644 me; truncate f 1T; me: x=open f O_RDWR", "pread x 9 1099511627770", "\\0*6"),
        ("all", "file f 644 me hello; link f g", "truncate f 1", "ok", "f size=1 written; g size=1 written"),
        ("all", "slink f x; file f 644 me hello", "truncate x 1", "ok", "f size=1 written"),
        # ---- by descriptor
        ("all", "file f 644 me hello; me: x=open f O_RDWR", "ftruncate x 2", "ok", "f size=2 written"),
        ("all", "file f 644 me hello; me: x=open f O_WRONLY", "ftruncate x 8", "ok", "f size=8 written"),
        ("all", "file f 644 me hello; me: x=open f O_RDWR; me: chmod f 0", "ftruncate x 2", "ok", "f size=2 written"),
        ("all", "file f 644 me hello; me: x=open f O_RDWR; me: lseek x 4 SEEK_SET", "ftruncate x 2", "ok", "f size=2 written; ? lseek x 0 SEEK_CUR -> 4; ? write x Z -> 1; ? content f -> he\\0\\0Z"),
        ("all", "file f 644 me hello; me: x=open f O_RDONLY", "ftruncate x 2", "EINVAL|EBADF"),
        ("all", "file f 644 me hello; me: x=open f O_PATH", "ftruncate x 2", "EBADF"),
        ("all", "", "ftruncate closed 2", "EBADF"),
        ("all", "dir d 777; me: x=open d O_RDONLY", "ftruncate x 2", "EINVAL|EBADF"),
        ("all", "fifo f 666; me: x=open f O_RDWR", "ftruncate x 2", "EINVAL"),
        # ---- errors
        ("all", "dir d 777 me", "truncate d 0", "EISDIR"),
        ("all", "fifo f 666", "truncate f 0", "EINVAL"),
        ("all", "socket f 666", "truncate f 0", "EINVAL"),
        ("all", "file f 644 me", "truncate f -1", "EINVAL"),
        ("all", "file f 644 me; me: x=open f O_RDWR", "ftruncate x -1", "EINVAL"),
        ("all", "file f 644 me", "truncate f max", "EFBIG", Differs("tmpfs", "ok", "f size=9223372036854775807 touched", "its files have no limit")),
        ("users", "file f 644 root hello", "truncate f 0", "EACCES"),
        ("users", "file f 222 root hello", "truncate f 1", "ok", "f size=1 written"),
        ("all", "file f 644 me; me: rlimit_fsize 1000", "truncate f 1001", "EFBIG"),
        ("all", "file f 644 me; me: rlimit_fsize 1000", "truncate f 1000", "ok", "f size=1000 written"),
        # ---- setuid and setgid go, by whoever is not privileged
        ("users", "file f 6777 root hello", "truncate f 1", "ok", "f size=1 mode=777 written"),
        ("users", "file f 6755 me hello", "truncate f 1", "ok", "f size=1 mode=755 written"),
        ("users", "file f 6755 me hello; me: x=open f O_RDWR", "ftruncate x 1", "ok", "f size=1 mode=755 written"),
        ("root", "file f 6755 alice hello", "truncate f 1", "ok", "f size=1 written"),
    ),
]
