"""rename, renameat, renameat2: POSIX.1-2024, rename(2)."""

# fmt: off
from tests.posix.table import table

KINDS = ["file a 644 me", "fifo a 644 me", "socket a 644 me", "slink none a me"]
OVER = ["file b 644 me hello", "fifo b 644 me", "socket b 644 me", "slink none b me"]
MOVED = "-a; +b was a; . touched"

TABLES = [
    table(
        "rename",
        *(("all", kind, "rename a b", "ok", MOVED) for kind in KINDS),
        *(("all", f"{kind}; {over}", "rename a b", "ok", MOVED) for kind in KINDS for over in OVER),
        ("root", "char a", "rename a b", "ok", MOVED),
        ("root", "block a", "rename a b", "ok", MOVED),
        ("all", "dir a 755 me", "rename a b", "ok", MOVED),
        ("all", "dir a 755 me; dir b", "rename a b", "ok", "-a; +b was a; . nlink=3 touched"),
        ("all", "dir a 755 me; file a/f", "rename a b", "ok", "-a; +b was a; -a/f; +b/f was a/f; . touched"),
        ("all", "dir a 755 me", "rename a/ b/", "ok", MOVED),
        ("all", "dir a 755 me", "renameat cwd a cwd b", "ok", MOVED),
        ("all", "file a 644 me", "renameat2 cwd a cwd b 0", "ok", MOVED),
        ("all", "file a 644 me; dir d 777", "rename a d/b", "ok", "-a; +d/b was a; . touched; d touched"),
        # The parent of a moved directory changes, and with it two link counts.
        ("all", "dir a 755 me; dir d 777", "rename a d/b", "ok", "-a; +d/b was a; . nlink=3 touched; d nlink=3 touched; ? dots d/b -> ok"),
        ("all", "dir a 755 me; dir d 777; dir d/b", "rename a d/b", "ok", "-a; +d/b was a; . nlink=3 touched; d touched; ? dots d/b -> ok"),
        ("all", "dir d 777; dir d/a 755 me", "rename d/a b", "ok", "-d/a; +b was d/a; . nlink=4 touched; d nlink=2 touched; ? dots b -> ok"),
        ("all", "dir a 755 me; dir a/x; dir d 777", "rename a d/b", "ok", "-a; -a/x; +d/b was a; +d/b/x was a/x; . nlink=3 touched; d nlink=3 touched"),
        # The replaced file loses a link; its other names show that.
        ("all", "file a 644 me; file b; link b c", "rename a b", "ok", "-a; +b was a; c nlink=1 ctime; . touched"),
        ("all", "file a 644 me; file b 666; me: x=open b O_RDWR", "rename a b", "ok", f"{MOVED}; ? fstat x nlink -> 0; ? write x hello -> 5; ? pread x 9 0 -> hello"),
        ("all", "file a 644 me hello; me: x=open a O_RDONLY", "rename a b", "ok", f"{MOVED}; ? read x 9 -> hello; ? content b -> hello"),
        ("all", "dir a 777 me; dir b 777; me: x=open b O_RDONLY", "rename a b", "ok", "-a; +b was a; . nlink=3 touched; ? fstat x nlink -> 0; ? mkdirat x e 755 -> ENOENT"),
        # Two names of one file: nothing happens, both stay.
        ("all", "file a 644 me; link a b", "rename a b", "ok", ""),
        ("all", "file a 644 me", "rename a a", "ok", ""),
        ("all", "dir a 755 me", "rename a a", "ok", ""),
        ("all", "fifo a 644 me; link a b", "rename a b", "ok", ""),
        ("all", "slink none a me; link a b", "rename a b", "ok", ""),
        # A symbolic link is renamed or replaced, never followed.
        ("all", "slink f a me; file f", "rename a b", "ok", MOVED),
        ("all", "file a 644 me; file f; slink f b", "rename a b", "ok", MOVED),
        ("all", "slink d a me; dir d", "rename a b", "ok", MOVED),
        # ---- what may not replace what
        ("all", "dir a 755 me; file b", "rename a b", "ENOTDIR"),
        ("all", "dir a 755 me; fifo b", "rename a b", "ENOTDIR"),
        ("all", "dir a 755 me; slink d b; dir d", "rename a b", "ENOTDIR"),
        *(("all", f"{kind}; dir b 755 me", "rename a b", "EISDIR") for kind in KINDS),
        *(("all", f"{kind}; dir b 755 me; file b/f", "rename a b", "EISDIR|ENOTEMPTY|EEXIST") for kind in KINDS),
        ("all", "dir a 755 me; dir b; file b/f", "rename a b", "ENOTEMPTY|EEXIST"),
        ("all", "dir a 755 me; dir b; dir b/d", "rename a b", "ENOTEMPTY|EEXIST"),
        # ---- loops
        ("all", "dir a 777 me", "rename a a/b", "EINVAL"),
        ("all", "dir a 777 me; dir a/b 777 me", "rename a a/b/c", "EINVAL"),
        ("all", "dir a 777 me; dir a/b 777 me", "rename a a/b", "EINVAL"),
        ("all", "dir a 777 me; dir a/b 777 me; dir a/b/c 777 me", "rename a/b a/b/c/d", "EINVAL"),
        ("all", "dir a 777 me; dir a/b 777 me", "rename a/b a", "ENOTEMPTY|EEXIST"),
        ("all", "dir a 777 me; file a/f 644 me", "rename a/f a", "ENOTEMPTY|EISDIR|EEXIST"),
        # ---- names that are none
        ("all", "dir a 777 me", "rename a/. b", "EINVAL|EBUSY"),
        ("all", "dir a 777 me; dir a/d", "rename a/d/.. b", "EINVAL|EBUSY"),
        ("all", "dir a 777 me; dir b", "rename a b/.", "EINVAL|EBUSY"),
        ("all", "dir a 777 me; dir b", "rename a b/..", "EINVAL|EBUSY|ENOTEMPTY|EEXIST"),
        ("all", "", "rename . b", "EINVAL|EBUSY"),
        ("all", "", "rename none b", "ENOENT"),
        ("all", "file b 644 me", "rename none b", "ENOENT"),
        ("all", "file a 644 me", "rename a none/b", "ENOENT"),
        ("all", "file a 644 me", "rename a/ b", "ENOTDIR"),
        ("all", "file a 644 me", "rename a b/", "ENOTDIR"),
        ("all", "file a 644 me; dir b", "rename a b/", "ENOTDIR|EISDIR"),
        ("all", "dir d; slink d a", "rename a/ b", "ENOTDIR"),
        ("all", "file a 644 me", "rename a {n*255}", "ok", "-a; +" + "n" * 255 + " was a; . touched"),
        # ---- rights
        ("users", "dir d 755; file d/a 666 me", "rename d/a b", "EACCES"),
        ("users", "dir d 755; file a 666 me", "rename a d/b", "EACCES"),
        ("users", "dir d 766; file d/a 666 me", "rename d/a b", "EACCES"),
        ("users", "dir d 755; file d/a 666 me", "rename d/a d/b", "EACCES"),
        ("users", "file a 0", "rename a b", "ok", MOVED),
        # A directory that gets another parent must be writable: its .. changes.
        ("users", "dir d 777; dir a 755", "rename a d/b", "EACCES"),
        ("users", "dir a 755", "rename a b", "ok", MOVED),
        ("users", "dir d 777; dir a 777", "rename a d/b", "ok", "-a; +d/b was a; . nlink=3 touched; d nlink=3 touched"),
        # The sticky bit, of either directory.
        ("users", "dir d 1777; file d/a 666", "rename d/a b", "EPERM"),
        ("users", "dir d 1777; file d/a 666 me", "rename d/a b", "ok", "-d/a; +b was d/a; . touched; d touched"),
        ("users", "dir d 1777 me; file d/a 666", "rename d/a b", "ok", "-d/a; +b was d/a; . touched; d touched"),
        ("users", "dir d 1777; file a 666 me; file d/b 666", "rename a d/b", "EPERM"),
        ("users", "dir d 1777; file a 666 me; file d/b 666 me", "rename a d/b", "ok", "-a; +d/b was a; . touched; d touched"),
        ("users", "dir d 1777 me; file a 666 me; file d/b 666", "rename a d/b", "ok", "-a; +d/b was a; . touched; d touched"),
        ("users", "dir d 1777; dir a 777 me; dir d/b 777", "rename a d/b", "EPERM"),
        ("alice", "dir d 1777; file d/a 666 alice; file d/b 666 bob", "rename d/a d/b", "EPERM"),
        ("root", "dir d 1777 bob; file d/a 666 alice; file d/b 666 bob", "rename d/a d/b", "ok", "-d/a; +d/b was d/a; d touched"),
        # ---- directories by descriptor
        ("all", "dir d 777; dir e 777; file d/a 644 me; me: y=open d O_RDONLY; me: z=open e O_RDONLY", "renameat y a z b", "ok", "-d/a; +e/b was d/a; d touched; e touched"),
        ("all", "file a 644 me", "renameat closed a cwd b", "EBADF"),
        ("all", "file a 644 me", "renameat cwd a closed b", "EBADF"),
        ("all", "file a 644 me; me: y=open a O_RDONLY", "renameat y a cwd b", "ENOTDIR"),
        ("all", "file a 644 me; me: y=open a O_RDONLY", "renameat cwd a y b", "ENOTDIR"),
        ("all", "file a 644 me; dir d 777; me: y=open d O_RDONLY; rmdir d", "renameat cwd a y b", "ENOENT"),
    ),
    table(
        "renameat2",
        ("all", "file a 644 me", "renameat2 cwd a cwd b RENAME_NOREPLACE", "ok", MOVED),
        ("all", "dir a 755 me", "renameat2 cwd a cwd b RENAME_NOREPLACE", "ok", MOVED),
        ("all", "file a 644 me; file b", "renameat2 cwd a cwd b RENAME_NOREPLACE", "EEXIST"),
        ("all", "dir a 755 me; dir b", "renameat2 cwd a cwd b RENAME_NOREPLACE", "EEXIST"),
        ("all", "file a 644 me; slink none b", "renameat2 cwd a cwd b RENAME_NOREPLACE", "EEXIST"),
        ("all", "file a 644 me; link a b", "renameat2 cwd a cwd b RENAME_NOREPLACE", "EEXIST"),
        ("all", "file a 644 me", "renameat2 cwd a cwd a RENAME_NOREPLACE", "EEXIST"),
        ("all", "", "renameat2 cwd none cwd b RENAME_NOREPLACE", "ENOENT"),
        # ---- both change places
        ("all", "file a 644 me hello; file b 600 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ok", "+b was a; +a was b; . touched"),
        ("all", "file a 644 me; dir b 755 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ok", "+b was a; +a was b; . touched"),
        ("all", "dir a 755 me; file a/f; dir b 755 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ok", "+b was a; +a was b; -a/f; +b/f was a/f; . touched"),
        ("all", "slink none a me; fifo b 644 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ok", "+b was a; +a was b; . touched"),
        ("all", "file a 644 me; dir d 777; dir d/b 755 me", "renameat2 cwd a cwd d/b RENAME_EXCHANGE", "ok", "+d/b was a; +a was d/b; . nlink=4 touched; d nlink=2 touched; ? dots a -> ok"),
        ("all", "dir a 755 me; dir d 777; dir d/b 755 me", "renameat2 cwd a cwd d/b RENAME_EXCHANGE", "ok", "+d/b was a; +a was d/b; . touched; d touched; ? dots a -> ok; ? dots d/b -> ok"),
        ("all", "file a 644 me; link a b", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ok", ""),
        ("all", "file a 644 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ENOENT"),
        ("all", "file b 644 me", "renameat2 cwd a cwd b RENAME_EXCHANGE", "ENOENT"),
        ("all", "dir a 777 me; dir a/b 777 me", "renameat2 cwd a cwd a/b RENAME_EXCHANGE", "EINVAL"),
        ("all", "dir a 777 me; dir a/b 777 me", "renameat2 cwd a/b cwd a RENAME_EXCHANGE", "EINVAL|ENOTEMPTY"),
        ("users", "dir d 755; file d/a 666 me; file b 666 me", "renameat2 cwd d/a cwd b RENAME_EXCHANGE", "EACCES"),
        ("users", "dir d 1777; file d/a 666 me; file d/b 666", "renameat2 cwd d/a cwd d/b RENAME_EXCHANGE", "EPERM"),
        ("users", "dir d 777; dir a 777 me; dir d/b 755", "renameat2 cwd a cwd d/b RENAME_EXCHANGE", "EACCES"),
        # ---- a whiteout is a character device 0:0 (Linux 6.0 lets everybody make one)
        ("root", "file a", "renameat2 cwd a cwd b RENAME_WHITEOUT", "ok", "+b was a; +a char 0 root; . touched; ? lstat a rdev -> 0:0"),
        # ---- flags
        ("all", "file a 644 me; file b 644 me", "renameat2 cwd a cwd b RENAME_NOREPLACE|RENAME_EXCHANGE", "EINVAL"),
        ("all", "file a 644 me; file b 644 me", "renameat2 cwd a cwd b RENAME_WHITEOUT|RENAME_EXCHANGE", "EINVAL"),
        ("all", "file a 644 me", "renameat2 cwd a cwd b 0x80", "EINVAL"),
    ),
]
