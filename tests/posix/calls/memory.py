"""mmap, msync, mprotect on files: POSIX.1-2024, mmap(2), msync(2)."""

# fmt: off
from tests.posix.table import table

RW = "file f 666 root hello+x*8187; me: x=open f O_RDWR"
MAPPED = f"{RW}; me: m=mmap x 8192 PROT_READ|PROT_WRITE MAP_SHARED"

TABLES = [
    table(
        "mmap",
        ("all", f"{RW}; me: m=mmap x 8192 PROT_READ MAP_SHARED", "peek m 0 7", "helloxx"),
        ("all", f"{RW}; me: m=mmap x 8192 PROT_READ MAP_PRIVATE", "peek m 0 7", "helloxx"),
        ("all", f"{RW}; me: m=mmap x 4096 PROT_READ MAP_SHARED 4096", "peek m 0 4", "x*4"),
        # ---- one content, whichever way
        ("all", MAPPED, "poke m 0 HELLO", "ok", "f content mtime? ctime?; ? pread x 7 0 -> HELLOxx; ? content f -> HELLO+x*8187"),
        ("all", f"{MAPPED}; me: pwrite x WRITE 0", "peek m 0 7", "WRITExx"),
        ("all", f"{MAPPED}; root2: y=open f O_RDWR; root2: n=mmap y 8192 PROT_READ MAP_SHARED; me: poke m 5000 ABC", "root2: peek n 4999 5", "xABCx"),
        ("all", f"{MAPPED}; me: poke m 0 HELLO", "msync m MS_SYNC", "ok", "f mtime? ctime?; ? content f -> HELLO+x*8187"),
        ("all", f"{MAPPED}; me: poke m 0 HELLO; me: msync m MS_SYNC", "munmap m", "ok", "? content f -> HELLO+x*8187"),
        ("all", f"{MAPPED}; me: poke m 0 HELLO; me: munmap m; me: close x", "content f", "HELLO+x*8187"),
        ("all", f"{MAPPED}; me: close x; me: poke m 0 HELLO", "content f", "HELLO+x*8187"),
        ("all", f"{MAPPED}; unlink f; me: poke m 0 HELLO", "pread x 7 0", "HELLOxx"),
        # Private changes stay private.
        ("all", f"{RW}; me: m=mmap x 8192 PROT_READ|PROT_WRITE MAP_PRIVATE", "poke m 0 HELLO", "ok", "? peek m 0 5 -> HELLO; ? content f -> hello+x*8187"),
        # mtime moves with a write through the mapping, by msync at the latest.
        ("all", f"{MAPPED}; utimensat cwd f 1 1; me: poke m 0 H", "msync m MS_SYNC", "ok", "f mtime? ctime?; ? content f -> Hello+x*8187"),
        # ---- the end of the file: zeros in its last page, SIGBUS beyond
        ("all", "file f 666 root hello; me: x=open f O_RDWR; me: m=mmap x 8192 PROT_READ MAP_SHARED", "peek m 0 10", "hello+\\0*5"),
        ("all", "file f 666 root hello; me: x=open f O_RDWR; me: m=mmap x 8192 PROT_READ MAP_SHARED", "touches m 4095", "ok"),
        ("all", "file f 666 root hello; me: x=open f O_RDWR; me: m=mmap x 8192 PROT_READ MAP_SHARED", "touches m 4096", "SIGBUS"),
        ("all", f"{MAPPED}; me: peek m 5000 1; me: ftruncate x 100", "touches m 5000", "SIGBUS"),
        ("all", f"{MAPPED}; me: ftruncate x 100; me: ftruncate x 8192", "peek m 98 5", "xx\\0\\0\\0"),
        ("all", "file f 666 root hello; me: x=open f O_RDWR; me: m=mmap x 8192 PROT_READ|PROT_WRITE MAP_SHARED; me: ftruncate x 8192", "poke m 5000 abc", "ok", "f content mtime? ctime?; ? pread x 3 5000 -> abc"),
        ("all", "file f 666 root hello; me: x=open f O_RDWR; me: m=mmap x 4096 PROT_READ|PROT_WRITE MAP_SHARED; me: poke m 10 abc; me: msync m MS_SYNC", "content f", "hello"),
        ("all", "file f 666; truncate f 100000; me: x=open f O_RDWR; me: m=mmap x 100000 PROT_READ|PROT_WRITE MAP_SHARED; me: poke m 50000 abc; me: munmap m", "content f", "\\0*50000+abc+\\0*49997"),
        # ---- errors
        ("all", "file f 666 root hello; me: x=open f O_WRONLY", "mmap x 4096 PROT_READ MAP_SHARED", "EACCES"),
        ("all", "file f 666 root hello; me: x=open f O_WRONLY", "mmap x 4096 PROT_WRITE MAP_PRIVATE", "EACCES"),
        ("all", "file f 666 root hello; me: x=open f O_RDONLY", "mmap x 4096 PROT_READ|PROT_WRITE MAP_SHARED", "EACCES"),
        ("all", "file f 666 root hello; me: x=open f O_RDONLY", "mmap x 4096 PROT_READ|PROT_WRITE MAP_PRIVATE", "ok"),
        ("all", "file f 666 root hello; me: x=open f O_RDONLY; me: m=mmap x 4096 PROT_READ MAP_SHARED", "mprotect m PROT_READ|PROT_WRITE", "EACCES"),
        ("all", RW, "mmap x 0 PROT_READ MAP_SHARED", "EINVAL"),
        ("all", RW, "mmap x 4096 PROT_READ MAP_SHARED 100", "EINVAL"),
        ("all", RW, "mmap x 4096 PROT_READ 0", "EINVAL"),
        ("all", "", "mmap closed 4096 PROT_READ MAP_SHARED", "EBADF"),
        ("all", "file f 666; me: x=open f O_PATH", "mmap x 4096 PROT_READ MAP_SHARED", "EBADF"),
        ("all", "dir d 777; me: x=open d O_RDONLY", "mmap x 4096 PROT_READ MAP_SHARED", "ENODEV|EACCES"),
        ("all", "fifo f 666; me: x=open f O_RDWR", "mmap x 4096 PROT_READ MAP_SHARED", "ENODEV"),
        ("all", MAPPED, "msync m 0x40", "EINVAL"),
        ("all", MAPPED, "msync m MS_SYNC|MS_ASYNC", "EINVAL"),
        ("all", MAPPED, "msync m MS_ASYNC", "ok", "f mtime? ctime?"),
    ),
]
