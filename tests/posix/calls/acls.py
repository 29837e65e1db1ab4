"""POSIX access control lists (1003.1e draft 17, withdrawn): acl(5)."""

# fmt: off
from tests.posix.table import table

ALICE = "u::rw-,u:alice:rw-,g::r--,m::rw-,o::---"
NO_ALICE = "u::rw-,u:alice:---,g::rwx,m::rwx,o::rwx"
TEAM = "u::rw-,g::---,g:team:rw-,m::rw-,o::---"
DEFAULT = "u::rwx,u:alice:rwx,g::r-x,m::rwx,o::---"


def given(acl: str, mode: str = "600") -> str:
    return f"file f {mode}; setacl f access {acl}"


TABLES = [
    table(
        "acl",
        ("all", "file f 640 me", f"setacl f access {ALICE}", "ok", f"f mode=660 ctime; ? getacl f access -> {ALICE}; ? listxattr f -> system.posix_acl_access"),
        # Three entries are a mode.
        ("all", "file f 640 me", "setacl f access u::rw-,g::r-x,o::--x", "ok", "f mode=651 ctime; ? getacl f access -> ENODATA"),
        ("all", "file f 640 me", "getacl f access", "ENODATA"),
        ("all", "file f 640 me", "getacl f default", "ENODATA|EACCES|EOPNOTSUPP"),
        ("all", f"file f 640 me; me: setacl f access {ALICE}", "removeacl f access", "ok", "f ctime; ? getacl f access -> ENODATA"),
        # ---- what the entries allow
        ("alice", given(ALICE), "open f O_RDWR", "ok"),
        ("bob", given(ALICE), "open f O_RDONLY", "EACCES"),
        ("alice", given(ALICE), "access f R_OK|W_OK", "ok"),
        ("alice", given(ALICE), "access f X_OK", "EACCES"),
        ("alice", given(NO_ALICE), "open f O_RDONLY", "EACCES"),
        ("bob", given(NO_ALICE), "open f O_RDWR", "ok"),
        ("alice", given(TEAM), "open f O_RDWR", "ok"),
        ("bob", given(TEAM), "open f O_RDONLY", "EACCES"),
        ("root", given(NO_ALICE), "open f O_RDWR", "ok"),
        # The mask limits named users and all groups, not the owner and not the others.
        ("alice", given("u::rw-,u:alice:rw-,g::rw-,m::r--,o::---"), "open f O_RDONLY", "ok"),
        ("alice", given("u::rw-,u:alice:rw-,g::rw-,m::r--,o::---"), "open f O_WRONLY", "EACCES"),
        ("alice", "file f 600 alice; setacl f access u::rw-,g::rw-,m::---,o::---", "open f O_RDWR", "ok"),
        ("alice", "file f 600 root:team; setacl f access u::rw-,u:bob:rw-,g::rw-,m::r--,o::rw-", "open f O_WRONLY", "EACCES"),
        ("bob", given("u::rw-,u:alice:rw-,g::---,m::---,o::rw-"), "open f O_RDWR", "ok"),
        # A group that fits and does not allow keeps from the others' rights.
        ("alice", given("u::rw-,g::---,g:team:---,m::rwx,o::rwx"), "open f O_RDONLY", "EACCES"),
        ("alice", given("u::rw-,g::---,g:team:r--,g:staff:-w-,m::rwx,o::---"), "open f O_RDONLY", "ok"),
        ("alice", given("u::rw-,g::---,g:team:r--,g:staff:-w-,m::rwx,o::---"), "open f O_WRONLY", "ok"),
        ("alice", given("u::rw-,g::---,g:team:r--,g:staff:-w-,m::rwx,o::---"), "open f O_RDWR", "EACCES"),
        ("alice", "dir d 700; setacl d access u::rwx,u:alice:rwx,g::---,m::rwx,o::---", "open d/f O_RDWR|O_CREAT 644", "ok", "+d/f file 644 alice; d touched"),
        ("bob", "dir d 700; setacl d access u::rwx,u:alice:rwx,g::---,m::rwx,o::---", "open d/f O_RDWR|O_CREAT 644", "EACCES"),
        ("alice", "dir d 700; file d/f 666; setacl d access u::rwx,u:alice:--x,g::---,m::rwx,o::---", "stat d/f type", "file"),
        ("alice", "dir d 700; file d/f 666; setacl d access u::rwx,u:alice:--x,g::---,m::rwx,o::---", "list d", "EACCES"),
        # ---- chmod works on the mask
        ("root", given(ALICE), "chmod f 640", "ok", "f mode=640 ctime; ? getacl f access -> u::rw-,u:alice:rw-,g::r--,m::r--,o::---"),
        ("root", given(ALICE), "chmod f 600", "ok", "f mode=600 ctime; ? alice: open f O_RDONLY -> EACCES"),
        ("root", given(ALICE), "chmod f 777", "ok", "f mode=777 ctime; ? getacl f access -> u::rwx,u:alice:rw-,g::r--,m::rwx,o::rwx"),
        # ---- inheritance
        ("all", "dir d 755 me", f"setacl d default {DEFAULT}", "ok", f"d ctime; ? getacl d default -> {DEFAULT}; ? listxattr d -> system.posix_acl_default"),
        ("all", f"dir d 777; setacl d default {DEFAULT}", "open d/f O_RDWR|O_CREAT 666", "ok", "+d/f file 660 me; d touched; ? getacl d/f access -> u::rw-,u:alice:rwx,g::r-x,m::rw-,o::---; ? getacl d/f default -> ENODATA|EACCES|EOPNOTSUPP"),
        ("all", f"dir d 777; setacl d default {DEFAULT}; me: umask 077", "open d/f O_RDWR|O_CREAT 666", "ok", "+d/f file 660 me; d touched"),
        ("all", f"dir d 777; setacl d default {DEFAULT}", "open d/f O_RDWR|O_CREAT 600", "ok", "+d/f file 600 me; d touched; ? getacl d/f access -> u::rw-,u:alice:rwx,g::r-x,m::---,o::---"),
        ("all", f"dir d 777; setacl d default {DEFAULT}", "mkdir d/e 777", "ok", f"+d/e dir 770 me; d nlink=3 touched; ? getacl d/e access -> {DEFAULT}; ? getacl d/e default -> {DEFAULT}"),
        ("all", f"dir d 777; setacl d default {DEFAULT}", "symlink x d/s", "ok", "+d/s symlink 777 me target=x; d touched"),
        ("all", f"dir d 777; setacl d default {DEFAULT}", "mkfifo d/p 666", "ok", "+d/p fifo 660 me; d touched"),
        ("all", "dir d 777; setacl d default u::rwx,g::r-x,o::---", "open d/f O_RDWR|O_CREAT 666", "ok", "+d/f file 640 me; d touched; ? getacl d/f access -> ENODATA"),
        ("all", f"dir d 777; setacl d default {DEFAULT}; removeacl d default; me: umask 022", "open d/f O_RDWR|O_CREAT 666", "ok", "+d/f file 644 me; d touched"),
        # ---- errors
        ("users", "file f 666", f"setacl f access {ALICE}", "EPERM"),
        ("users", "dir f 777", f"setacl f default {DEFAULT}", "EPERM"),
        ("all", "file f 644 me", f"setacl f default {DEFAULT}", "EACCES"),
        ("all", "file f 644 me", "setacl f access u::rw-,u:alice:rw-,g::r--,o::---", "EINVAL"),
        ("all", "file f 644 me", "setacl f access g::r--,o::---", "EINVAL"),
        ("all", "file f 644 me", "setacl f access u::rw-,o::---", "EINVAL"),
        ("all", "file f 644 me", "setacl f access u::rw-,g::r--", "EINVAL"),
        ("all", "file f 644 me", "setacl f access u::rw-,u::rw-,g::r--,o::---", "EINVAL"),
        ("all", "fifo f 644 me", f"setacl f access {ALICE}", "ok", "f mode=660 ctime"),
        ("users", "dir d 700; file d/f 666", "getacl d/f access", "EACCES"),
    ),
]
