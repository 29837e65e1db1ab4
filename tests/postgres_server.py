"""A PostgreSQL server for the tests: private directory, Unix socket, own user, gone afterwards.

Uses only the binaries of Debian's package; whatever clusters the machine runs are left alone. The
server refuses to run as root, so root runs it as the user `postgres` (or `nobody`).
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

import psycopg

START_S = 60.0


def binaries() -> pathlib.Path:
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, "the package postgresql is missing: deploy/setup --dev installs it"
    return found[-1].parent


class PostgresServer:
    """start() again after kill(): what a crash leaves is recovered."""

    def __init__(self) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="fs3-pg-"))
        self._data = self.directory / "data"
        self._identity: dict[str, object] = {}
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            user = _unprivileged()
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        initdb = [str(binaries() / "initdb"), "-D", str(self._data), "-U", "fs3", "-A", "trust"]
        self._run(*initdb, "--no-sync", "-E", "UTF8", "--locale", "C")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",  # a killed process has written all; only a power loss takes more
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        self._options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]

    def start(self) -> "PostgresServer":
        command = [str(binaries() / "postgres"), "-D", str(self._data), *self._options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                **self._identity,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def new_database(self) -> str:
        """Its URL."""
        self._databases += 1
        name = f"db{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str = "postgres") -> str:
        return f"postgres://fs3@/{database}?host={self.directory}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """SIGKILL to the server and every process of it; returns when none is left. Each has a
        process group of its own, so they are known by their working directory."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def _processes(self) -> list[int]:
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "cwd").readlink() == self._data:
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # immediate: nothing is wanted of it
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-5000:]

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            check=False,
            **self._identity,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
