"""Programs that people use, on the mounts; what they leave is read back through the other mount.

`fs3 selftest` (tests/cluster/test_proof.py) has cp, git, SQLite, fio and mmap on one mount under
failures; here are two mounts at once, and what needs attributes, locks and times.
"""

import concurrent.futures
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

import pytest

from tests.posix.conftest import Mounts

pytestmark = pytest.mark.timeout(3600)
COMMAND_TIMEOUT_S = 1800
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}
FILE_SYSTEM_STRESSORS = {  # stress-ng's, by what they do; with how many operations each is quick
    "access": 50,
    "chdir": 50,
    "chmod": 50,
    "chown": 50,
    "copy-file": 5,
    "dentry": 100,
    "dir": 50,
    "fallocate": 5,
    "fcntl": 50,
    "fiemap": 5,
    "file-ioctl": 50,
    "filename": 50,
    "flock": 200,
    "fpunch": 2,
    "fstat": 50,
    "getdent": 50,
    "hdd": 5,
    "io": 5,
    "lease": 20,
    "link": 20,
    "locka": 200,
    "lockf": 200,
    "lockofd": 200,
    "mknod": 10,
    "open": 100,
    "rename": 200,
    "seek": 50,
    "symlink": 20,
    "touch": 100,
    "unlink": 2,
    "utime": 200,
    "xattr": 10,
}
QUICK_STRESSORS = ("dentry", "flock", "lockf", "rename", "utime", "xattr")


def run(*command: str | pathlib.Path, where: pathlib.Path | None = None, expect: int = 0) -> str:
    """Output of a program, errors included."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        cwd=where,
        env={**os.environ, **GIT, "PYTHONDONTWRITEBYTECODE": ""},
    )
    assert done.returncode == expect, f"{' '.join(map(str, command))}:\n{done.stdout[-3000:]}"
    return done.stdout


@pytest.fixture
def both(
    mounts: Mounts, request: pytest.FixtureRequest
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A new directory on the first mount, and the same on the second."""
    name = request.node.name.replace("[", "-").rstrip("]")
    (mounts.first / name).mkdir()
    yield mounts.first / name, mounts.second / name
    shutil.rmtree(mounts.first / name)


def source_tree(place: pathlib.Path, *, deep: bool) -> pathlib.Path:
    """Files of the interpreter's library with links, times, holes and attributes of every kind."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    parts = [library / "email", library / "json", library / "asyncio"]
    for part in [library / "test"] if deep and (library / "test").exists() else parts:
        shutil.copytree(part, place / part.name, symlinks=True)
    files = sorted(path for path in place.rglob("*.py"))
    draw = random.Random(1)
    for number, path in enumerate(draw.sample(files, 20)):
        os.setxattr(path, "user.number", b"%d" % number)
        os.utime(path, ns=(number, 10**18 + number))
        os.link(path, place / f"link-{number}")
        os.symlink(path.name, place / f"symlink-{number}")
        path.chmod(draw.choice([0o400, 0o644, 0o751]))
        if shutil.which("setfacl"):
            run("setfacl", "-m", "u:1234:rw,g:99:r", path)
    os.mkfifo(place / "fifo")
    with (place / "sparse").open("wb") as file:
        file.seek(9 << 20)
        file.write(b"end")
    return place


def test_rsync_keeps_links_attributes_lists_and_times(
    both: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path, deep: bool
) -> None:
    first, second = both
    (tmp_path / "tree").mkdir()
    source = source_tree(tmp_path / "tree", deep=deep)
    keep = "-aHAX" if os.geteuid() == 0 else "-rlptHX"
    run("rsync", keep, "--sparse", f"{source}/", first / "copy/")
    # Nothing is left to do, whichever way one looks: by size and time, and by every byte.
    for further in ([], ["--checksum"]):
        left = run("rsync", keep, "-n", "-i", "--delete", *further, f"{source}/", second / "copy/")
        assert left == ""
    # A change on either side is found and carried over.
    changed = sorted(source.rglob("*.py"))[7]
    changed.write_text("changed")
    (second / "copy" / "sparse").unlink()
    run("rsync", keep, "--delete", f"{source}/", second / "copy/")
    assert run("rsync", keep, "-n", "-i", "--checksum", f"{source}/", first / "copy/") == ""


def test_tar_keeps_links_attributes_lists_and_times(
    both: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path, deep: bool
) -> None:
    first, second = both
    (tmp_path / "tree").mkdir()
    source = source_tree(tmp_path / "tree", deep=deep)
    kept = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner"]
    run("tar", *kept, "-cf", first / "packed.tar", "-C", source, ".")
    (first / "unpacked").mkdir()
    run("tar", *kept, "-xpf", second / "packed.tar", "-C", first / "unpacked")
    assert run("tar", *kept, "-df", first / "packed.tar", "-C", second / "unpacked") == ""
    # What tar -d does not compare.
    keep = "-aHAX" if os.geteuid() == 0 else "-rlptHX"
    assert run("rsync", keep, "-n", "-i", f"{source}/", second / "unpacked/") == ""


def test_make_and_gcc_build_what_runs(both: tuple[pathlib.Path, pathlib.Path], deep: bool) -> None:
    first, second = both
    modules = 60 if deep else 8
    objects = " ".join(f"m{number}.o" for number in range(modules))
    (first / "Makefile").write_text(
        f"program: main.o {objects}\n\tgcc -o $@ $^\n%.o: %.c all.h\n\tgcc -g -c -o $@ $<\n"
    )
    declared = "".join(f"int f{number}(void);\n" for number in range(modules))
    (first / "all.h").write_text(declared)
    for number in range(modules):
        text = f'#include "all.h"\nint f{number}(void) {{ return {number}; }}\n'
        (first / f"m{number}.c").write_text(text)
    total = " + ".join(f"f{number}()" for number in range(modules))
    main = f'int main() {{ printf("%d\\n", {total}); return 0; }}'
    (first / "main.c").write_text(f'#include <stdio.h>\n#include "all.h"\n{main}\n')
    run("make", "-j2", where=first)
    wanted = f"{sum(range(modules))}\n"
    assert run(first / "program") == run(second / "program") == wanted
    # Times tell make that nothing is to be done, on either mount, and what is after a change.
    assert "up to date" in run("make", where=second)
    (first / "m0.c").write_text('#include "all.h"\nint f0(void) { return 1000; }\n')
    again = run("make", where=second)
    assert "m0.c" in again
    assert "m1.c" not in again
    assert run(second / "program") == f"{sum(range(modules)) + 1000}\n"


def test_a_virtual_environment_of_python(
    both: tuple[pathlib.Path, pathlib.Path], deep: bool
) -> None:
    first, second = both
    pip = [] if deep else ["--without-pip"]
    run(sys.executable, "-m", "venv", *pip, first / "venv")
    library = next((first / "venv" / "lib").glob("python*/site-packages"))
    shutil.copytree(pathlib.Path(sysconfig.get_path("stdlib")) / "json", library / "ours")
    (library / "ours" / "number.py").write_text("VALUE = 41 + 1\n")
    say = "import sys, ours.number, ours.decoder; print(ours.number.VALUE, ours.__file__)"
    for mount in (first, second):  # the second finds what the first has compiled
        said = run(mount / "venv/bin/python", "-c", say)
        assert said.split() == ["42", str(mount / library.relative_to(first) / "ours/__init__.py")]
    assert list((library / "ours" / "__pycache__").glob("number.*.pyc"))
    if deep:
        run(first / "venv/bin/python", "-m", "pip", "--version")


def test_git_on_two_mounts(both: tuple[pathlib.Path, pathlib.Path], deep: bool) -> None:
    """Two people push to one repository, each on a mount; nothing is lost and fsck is clean."""
    first, second = both
    commits = 40 if deep else 5
    run("git", "init", "-q", "--bare", "-b", "main", first / "shared.git")
    run("git", "clone", "-q", first / "shared.git", first / "one")
    (first / "one" / "start").write_text("start")
    run("git", "add", ".", where=first / "one")
    run("git", "commit", "-qm", "start", where=first / "one")
    run("git", "push", "-q", "origin", "HEAD:main", where=first / "one")
    run("git", "clone", "-q", second / "shared.git", second / "two")

    def work(clone: pathlib.Path) -> None:
        for number in range(commits):
            (clone / f"{clone.name}-{number}").write_text(f"{clone.name} {number}\n" * 50)
            run("git", "add", ".", where=clone)
            run("git", "commit", "-qm", f"{clone.name} {number}", where=clone)
            for _ in range(1000):  # somebody was faster
                pushed = subprocess.run(
                    ["git", "push", "-q", "origin", "HEAD:main"],
                    cwd=clone,
                    capture_output=True,
                    timeout=COMMAND_TIMEOUT_S,
                    check=False,
                    env={**os.environ, **GIT},
                )
                if pushed.returncode == 0:
                    break
                run("git", "pull", "-q", "--rebase", "origin", "main", where=clone)
            else:
                raise AssertionError(pushed.stderr.decode())

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for future in [pool.submit(work, first / "one"), pool.submit(work, second / "two")]:
            future.result()
    for mount in (first, second):
        run("git", "fsck", "--strict", where=mount / "shared.git")
        counted = run("git", "rev-list", "--count", "main", where=mount / "shared.git")
        assert int(counted) == 2 * commits + 1
    run("git", "gc", "-q", where=second / "shared.git")
    run("git", "clone", "-q", first / "shared.git", first / "three")
    names = {path.name for path in (second / "three").iterdir()} - {".git", "start"}
    wanted = {f"{who}-{number}" for who in ("one", "two") for number in range(commits)}
    assert names == wanted


SQLITE_WRITER = """
import sqlite3, sys
path, journal, name, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
for number in range(count):
    with sqlite3.connect(path, timeout=300, isolation_level=None) as database:
        if journal == "wal":  # on two mounts there is no shared memory for its index
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute("BEGIN IMMEDIATE")
        total, = database.execute("SELECT value FROM total").fetchone()
        database.execute("INSERT INTO made VALUES (?, ?, ?)", (name, number, total))
        database.execute("UPDATE total SET value = ?", (total + 1,))
        database.execute("COMMIT")
    database.close()
"""


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_written_from_two_mounts(
    both: tuple[pathlib.Path, pathlib.Path], deep: bool, journal: str
) -> None:
    """A counter that only locks keep right."""
    first, second = both
    count = 200 if deep else 12
    database = sqlite3.connect(first / "db", isolation_level=None)
    database.execute("CREATE TABLE total (value INTEGER)")
    database.execute("INSERT INTO total VALUES (0)")
    database.execute("CREATE TABLE made (name TEXT, number INTEGER, total INTEGER UNIQUE)")
    database.close()

    def write(mount: pathlib.Path, name: str) -> None:
        run(sys.executable, "-c", SQLITE_WRITER, mount / "db", journal, name, str(count))

    writers = [(first, "a"), (second, "b"), (first, "c"), (second, "d")]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for future in [pool.submit(write, *writer) for writer in writers]:
            future.result()
    for mount in (first, second):
        found = sqlite3.connect(mount / "db")
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert found.execute("SELECT value FROM total").fetchone() == (4 * count,)
        assert found.execute("SELECT count(*) FROM made").fetchone() == (4 * count,)
        found.close()


@pytest.mark.parametrize("engine", ["mmap", "psync", "libaio"])
def test_fio_verifies_what_it_wrote(
    both: tuple[pathlib.Path, pathlib.Path], deep: bool, engine: str
) -> None:
    first, second = both
    size = "256M" if deep else "16M"
    job = ["--name=verify", f"--size={size}", "--rw=randwrite", "--bs=4k-64k", "--bsrange=4k-64k"]
    job += ["--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--filename=verify.data"]
    job += [f"--ioengine={engine}", "--fallocate=none", "--end_fsync=1"]
    job += ["--direct=1", "--iodepth=8"] if engine == "libaio" else []
    run("fio", *job, f"--directory={first}", "--do_verify=1", where=first)
    run("fio", *job, f"--directory={second}", "--verify_only", where=second)


def test_dbench(both: tuple[pathlib.Path, pathlib.Path], deep: bool) -> None:
    first, second = both
    seconds = "120" if deep else "4"
    load = ["dbench", "-t", seconds, "--skip-cleanup"]
    said = [run(*load, "-D", place, "2") for place in (first,)]
    if deep:
        said.append(run(*load, "-D", second, "8"))
    assert all("Throughput" in one for one in said)


@pytest.mark.parametrize("stressor", sorted(FILE_SYSTEM_STRESSORS))
def test_stressors_of_file_systems(
    both: tuple[pathlib.Path, pathlib.Path], deep: bool, stressor: str
) -> None:
    if not deep and stressor not in QUICK_STRESSORS:
        pytest.skip("in the deep run")
    first, _ = both
    operations = FILE_SYSTEM_STRESSORS[stressor] * (20 if deep else 1)
    said = run(
        *("stress-ng", f"--{stressor}", "2", f"--{stressor}-ops", str(operations)),
        *("--temp-path", first, "--verify", "--timeout", "300", "--no-rand-seed", "-q"),
        where=first,
    )
    assert "fail" not in said
