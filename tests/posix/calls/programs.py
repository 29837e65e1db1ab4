"""execve from the file system, and texts that are busy: POSIX.1-2024 exec, execve(2)."""

# fmt: off
from tests.posix.table import table

PROGRAM = "copy /bin/true f"
SLEEPS = "copy /bin/sleep f"

TABLES = [
    table(
        "exec",
        ("all", PROGRAM, "exec f", "ok"),
        ("all", f"{PROGRAM}; slink f x", "exec x", "ok"),
        ("all", "file f 755 root #!/bin/true", "exec f", "ok"),
        ("all", f"{PROGRAM}; chmod f 644", "exec f", "EACCES"),
        ("users", f"{PROGRAM}; chmod f 700", "exec f", "EACCES"),
        ("users", f"{PROGRAM}; chmod f 711", "exec f", "ok"),
        ("root", f"{PROGRAM}; chmod f 0", "exec f", "EACCES"),
        ("root", f"{PROGRAM}; chmod f 001", "exec f", "ok"),
        ("all", "dir d 777", "exec d", "EACCES"),
        ("all", "fifo f 777", "exec f", "EACCES"),
        ("all", "", "exec none", "ENOENT"),
        ("all", "file f 777", "exec f/x", "ENOTDIR"),
        ("all", "slink x x", "exec x", "ELOOP"),
        ("all", "file f 777 root nonsense", "exec f", "ENOEXEC"),
        ("all", "file f 777", "exec f", "ENOEXEC"),
        ("all", "file f 755 root #!/nonexistent/interpreter", "exec f", "ENOENT"),
        ("users", "dir d 700; copy /bin/true d/f", "exec d/f", "EACCES"),
        ("all", f"{PROGRAM}; rename f g", "exec g", "ok"),
        # ---- written and run at once
        ("all", f"{PROGRAM}; chmod f 777; me: x=open f O_WRONLY", "exec f", "ETXTBSY"),
        ("all", f"{PROGRAM}; chmod f 777; me: x=open f O_RDWR; me: close x", "exec f", "ok"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "open f O_WRONLY", "ETXTBSY"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "open f O_RDWR|O_TRUNC", "ETXTBSY"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "truncate f 0", "ETXTBSY"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "open f O_RDONLY", "ok"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "unlink f", "ok", "-f; . touched"),
        ("all", f"{SLEEPS}; chmod f 777; me: spawn f", "rename f g", "ok", "-f; +g was f; . touched"),
    ),
]
