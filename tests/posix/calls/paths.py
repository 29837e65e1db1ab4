"""Errors of finding the file, the same for every call that takes a path (POSIX.1-2024 4.16, path_resolution(7)).

Each call below meets each of the broken paths, as root and as an ordinary user.
"""

# fmt: off
from tests.posix.table import Table, table

# What a call is given instead of @, and how the name that it would otherwise find is made.
CALLS = {
    "open": "open @ O_RDONLY; open @ O_RDWR|O_CREAT 644; open @ O_RDONLY|O_DIRECTORY; open @ O_PATH",
    "creat": "creat @ 644",
    "openat": "openat cwd @ O_WRONLY",
    "openat2": "openat2 cwd @ O_RDONLY 0 0",
    "mkdir": "mkdir @ 755; mkdirat cwd @ 755",
    "rmdir": "rmdir @; unlinkat cwd @ AT_REMOVEDIR",
    "unlink": "unlink @; unlinkat cwd @ 0",
    "link": "link @ new; link plain @; linkat cwd @ cwd new 0; linkat cwd plain cwd @ 0",
    "symlink": "symlink target @; symlinkat target cwd @",
    "readlink": "readlink @; readlinkat cwd @",
    "rename": "rename @ new; rename plain @; renameat cwd @ cwd new; renameat cwd plain cwd @",
    "renameat2": "renameat2 cwd @ cwd new RENAME_NOREPLACE; renameat2 cwd @ cwd plain RENAME_EXCHANGE",
    "mknod": "mknod @ 644 S_IFREG; mknod @ 644 S_IFIFO; mknodat cwd @ 644 S_IFREG",
    "mkfifo": "mkfifo @ 644; mkfifoat cwd @ 644",
    "stat": "stat @; lstat @; fstatat cwd @ 0; statx cwd @ 0 STATX_BASIC",
    "access": "access @ F_OK; access @ R_OK; faccessat cwd @ F_OK",
    "chmod": "chmod @ 600; fchmodat cwd @ 600",
    "chown": "chown @ -1 -1; lchown @ -1 -1; fchownat cwd @ -1 -1 0",
    "utimensat": "utimensat cwd @ 1 1; touch @",
    "truncate": "truncate @ 0",
    "statfs": "statfs @",
    "chdir": "chdir @",
    "setxattr": "setxattr @ user.a 1; lsetxattr @ user.a 1",
    "getxattr": "getxattr @ user.a; lgetxattr @ user.a",
    "listxattr": "listxattr @; llistxattr @",
    "removexattr": "removexattr @ user.a; lremovexattr @ user.a",
}
MAKES = ("creat", "mkdir", "symlink", "mknod", "mkfifo")  # a missing last name is what they want

# setup, path, errno, who
BROKEN = [
    ("", "none/x", "ENOENT", "root alice"),
    ("slink none dangling", "dangling/x", "ENOENT", "root bob"),
    ("", '""', "ENOENT", "root alice"),
    ("", "plain/x", "ENOTDIR", "root alice"),
    ("slink plain to", "to/x", "ENOTDIR", "root bob"),
    ("slink loop loop", "loop/x", "ELOOP", "root alice"),
    ("slink b a; slink a b", "a/x", "ELOOP", "root bob"),
    ("", "{n*256}/x", "ENAMETOOLONG", "root alice"),
    ("", "{n*256}", "ENAMETOOLONG", "root alice"),
    ("", "{x@4096}", "ENAMETOOLONG", "root alice"),
    ("dir closed 0; file closed/x 666", "closed/x", "EACCES", "users"),
    ("dir half 666; file half/x 666", "half/x", "EACCES", "users"),
    ("dir a; dir a/b 0; dir a/b/c; file a/b/c/x 666", "a/b/c/x", "EACCES", "users"),
    ("", "{bad}", "EFAULT", "root alice"),
]


def _actions(call: str) -> list[str]:
    return [action.strip() for action in CALLS[call].split(";")]


TABLES: list[Table] = [
    table(
        f"{call} path",
        *(
            (who, f"file plain 666 {owner}; {setup}", action.replace("@", path), error)
            for action in _actions(call)
            for setup, path, error, who in BROKEN
            # A file that others own can be given a further name only by its owner.
            for owner in ["alice" if "alice" in who and "bob" not in who else "root"]
        ),
    )
    for call in CALLS
]

# A path of 4,095 bytes and a name of 255 are not too long; 40 symbolic links are not too many.
CHAIN = "; ".join(f"slink l{number + 1} l{number}" for number in range(45))
TABLES.append(
    table(
        "path limits",
        ("all", "file f", "stat {f@4095} size", "0"),
        ("all", "file {n*255}", "stat {n*255} size", "0"),
        ("all", "", "mkdir {n*255} 755", "ok", "+" + "n" * 255 + " dir 755 me; . nlink=3 touched"),
        ("all", f"{CHAIN}; file l45", "stat l5", "ok"),
        ("all", f"{CHAIN}; file l45", "stat l4", "ELOOP"),
        ("all", f"{CHAIN}; file l45", "lstat l0 type", "symlink"),
        ("all", "dir d; slink d s; file d/f", "stat s/f type", "file"),
        ("all", "dir d; slink d s", "lstat s/ type", "dir"),
        ("all", "file f; slink f s", "lstat s/", "ENOTDIR"),
        ("all", "file f", "stat f/", "ENOTDIR"),
        ("all", "file f", "stat f/.", "ENOTDIR"),
        ("all", "file f", "stat f/..", "ENOTDIR"),
        ("all", "dir d; file f", "stat d/../f type", "file"),
        ("all", "dir d; dir d/e; slink d/e s; file d/f", "stat s/../f type", "file"),
        ("all", "file f", "stat .//././/f type", "file"),
        ("all", "slink {t*4095} s", "readlink s", "t*4095"),
        ("all", "slink {n*255} s; file {n*255} 644 root hello", "content s", "hello"),
        ("all", "slink {n*256} s", "stat s", "ENAMETOOLONG"),
        ("all", "dir {ä*127}; slink {ä*127} s", "stat s type", "dir"),
    )
)
