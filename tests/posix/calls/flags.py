"""Inode flags by FS_IOC_GETFLAGS and FS_IOC_SETFLAGS: ioctl_iflags(2)."""

# fmt: off
from tests.posix.table import Differs, table

KERNEL = Differs("fs3", "ok", "", "the kernel decides by itself and does not know the flags of a FUSE file system")
FIXED = "file f 666 root hello; setflags f FS_IMMUTABLE_FL"
GROWS = "file f 666 root hello; setflags f FS_APPEND_FL"

TABLES = [
    table(
        "immutable",
        ("root", "file f", "setflags f FS_IMMUTABLE_FL", "ok", "f ctime; ? getflags f -> 16"),
        ("root", FIXED, "setflags f 0", "ok", "f ctime; ? getflags f -> 0; ? truncate f 0 -> ok"),
        ("all", "file f 644", "getflags f", "0"),
        ("users", "file f 644 me", "setflags f FS_IMMUTABLE_FL", "EPERM"),
        ("users", FIXED, "getflags f", "16"),
        ("users", FIXED, "setflags f 0", "EPERM"),
        ("all", FIXED, "open f O_RDONLY", "ok"),
        ("all", FIXED, "content f", "hello"),
        ("all", FIXED, "open f O_WRONLY", "EPERM"),
        ("all", FIXED, "open f O_RDWR", "EPERM"),
        ("all", FIXED, "open f O_WRONLY|O_TRUNC", "EPERM"),
        ("all", FIXED, "truncate f 0", "EPERM"),
        ("root", FIXED, "chmod f 600", "EPERM"),
        ("root", FIXED, "chown f alice -1", "EPERM"),
        ("all", FIXED, "touch f", "EPERM"),
        ("root", FIXED, "utimensat cwd f 1 1", "EPERM"),
        ("root", FIXED, "link f g", "EPERM"),
        ("all", FIXED, "unlink f", "EPERM"),
        ("all", FIXED, "rename f g", "EPERM"),
        ("all", f"{FIXED}; file g 666 me", "rename g f", "EPERM"),
        ("root", FIXED, "setxattr f user.a x", "EPERM"),
        ("all", FIXED, "access f W_OK", "EPERM|EACCES", KERNEL),
        ("all", FIXED, "access f R_OK", "ok"),
        ("all", "dir d 777; file d/f 666; setflags d FS_IMMUTABLE_FL", "open d/g O_RDWR|O_CREAT 644", "EPERM|EACCES"),
        ("all", "dir d 777; file d/f 666; setflags d FS_IMMUTABLE_FL", "unlink d/f", "EPERM|EACCES"),
        ("all", "dir d 777; file d/f 666; setflags d FS_IMMUTABLE_FL", "rename d/f d/g", "EPERM|EACCES"),
        ("all", "dir d 777; setflags d FS_IMMUTABLE_FL", "mkdir d/e 755", "EPERM|EACCES"),
        ("all", "dir d 777; setflags d FS_IMMUTABLE_FL", "rmdir d", "EPERM"),
        ("all", "dir d 777; file d/f 666; setflags d FS_IMMUTABLE_FL; me: x=open d/f O_WRONLY", "write x a", "1", "d/f size=1 written"),
        ("all", "dir d 777; file d/f; setflags d FS_IMMUTABLE_FL", "list d", "f"),
    ),
    table(
        "append only",
        ("root", "file f", "setflags f FS_APPEND_FL", "ok", "f ctime; ? getflags f -> 32"),
        ("users", "file f 644 me", "setflags f FS_APPEND_FL", "EPERM"),
        ("all", f"{GROWS}; me: x=open f O_WRONLY|O_APPEND", "write x AB", "2", "f size=7 written; ? content f -> helloAB"),
        ("all", GROWS, "open f O_RDONLY", "ok"),
        ("all", GROWS, "open f O_WRONLY", "EPERM"),
        ("all", GROWS, "open f O_RDWR", "EPERM"),
        ("all", GROWS, "open f O_WRONLY|O_APPEND|O_TRUNC", "EPERM"),
        ("all", GROWS, "truncate f 0", "EPERM"),
        ("all", f"{GROWS}; me: x=open f O_RDWR|O_APPEND", "ftruncate x 0", "EPERM"),
        ("all", f"{GROWS}; me: x=open f O_RDWR|O_APPEND", "setfl x 0", "EPERM", KERNEL),
        ("all", f"{GROWS}; me: x=open f O_RDWR|O_APPEND; me: setfl x 0 -> ok|EPERM", "pwrite x AB 0", "2|EPERM", "f size? content? mtime? ctime?; ? content f -> hello|helloAB"),
        ("root", GROWS, "chmod f 600", "EPERM"),
        ("root", GROWS, "link f g", "EPERM"),
        ("all", GROWS, "unlink f", "EPERM"),
        ("all", GROWS, "rename f g", "EPERM"),
        ("all", "dir d 777; setflags d FS_APPEND_FL", "open d/f O_RDWR|O_CREAT 644", "ok", "+d/f file 644 me; d touched"),
        ("all", "dir d 777; file d/f 666; setflags d FS_APPEND_FL", "unlink d/f", "EPERM"),
        ("all", "dir d 777; file d/f 666; setflags d FS_APPEND_FL", "rename d/f g", "EPERM"),
    ),
    table(
        "nodump",
        ("all", "file f 644 me", "setflags f FS_NODUMP_FL", "ok", "f ctime; ? getflags f -> 64"),
        ("all", "dir f 755 me", "setflags f FS_NODUMP_FL", "ok", "f ctime; ? getflags f -> 64"),
        ("users", "file f 666", "setflags f FS_NODUMP_FL", "EACCES|EPERM"),
    ),
]
