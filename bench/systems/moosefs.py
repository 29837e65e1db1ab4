"""MooseFS, from Debian: one master, three chunk servers, goal 3, FUSE mount."""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess

from bench.systems.base import Unavailable, drop_caches, end, free_port, run, wait_for

__all__ = ["MooseFs"]

PROGRAMS = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal")
SERVERS = 3


class MooseFs:
    """Three copies, which it does not flush."""

    name = "moosefs"
    description = "MooseFS, three chunk servers, goal 3, not flushed"

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._mount = root / "mount"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._client_port = 0
        self._address = ""

    def start(self) -> pathlib.Path:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            packages = "moosefs-master moosefs-chunkserver moosefs-client"
            raise Unavailable(f"{missing[0]} is not installed: apt-get install {packages}")
        self._address = own_address()
        self._mount.mkdir(parents=True)
        server_port = self._start_master()
        for number in range(1, SERVERS + 1):
            self._start_chunk_server(number, server_port)
        self._do_mount()
        run("mfssetgoal", str(SERVERS), str(self._mount))
        wait_for(self._writable, "MooseFS takes a file")
        return self._mount

    def _start_master(self) -> int:
        """The port for chunk servers."""
        home = self._root / "master"
        home.mkdir()
        source = pathlib.Path("/var/lib/mfs/metadata.mfs.empty")
        empty = source.read_bytes() if source.exists() else b"MFSM NEW"
        (home / "metadata.mfs").write_bytes(empty)
        (home / "exports.cfg").write_text("* / rw,alldirs,admin,maproot=0:0\n* . rw\n")
        self._client_port, server_port = free_port(), free_port()
        self._daemon(
            "mfsmaster",
            home,
            EXPORTS_FILENAME=str(home / "exports.cfg"),
            MATOML_LISTEN_PORT=free_port(),
            MATOCS_LISTEN_PORT=server_port,
            MATOCL_LISTEN_PORT=self._client_port,
        )
        return server_port

    def _start_chunk_server(self, number: int, master_port: int) -> None:
        home = self._root / f"chunks{number}"
        (home / "disk").mkdir(parents=True)
        (home / "hdd.cfg").write_text(f"{home}/disk\n")
        self._daemon(
            "mfschunkserver",
            home,
            HDD_CONF_FILENAME=str(home / "hdd.cfg"),
            MASTER_HOST=self._address,
            MASTER_PORT=master_port,
            CSSERV_LISTEN_HOST=self._address,
            CSSERV_LISTEN_PORT=free_port(),
            HDD_LEAVE_SPACE_DEFAULT="256MiB",
        )

    def _daemon(self, program: str, home: pathlib.Path, **settings: object) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        own = {"WORKING_USER": user, "WORKING_GROUP": "", "DATA_PATH": home, **settings}
        config = home / f"{program}.cfg"
        config.write_text("".join(f"{key} = {value}\n" for key, value in own.items() if value))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-f", "-c", str(config), "start"], stdout=log, stderr=log
            )
        self._processes.append(process)

    def _do_mount(self) -> None:
        def mounted() -> bool:
            with contextlib.suppress(Unavailable):
                run("mfsmount", str(self._mount), "-H", self._address, "-P", str(self._client_port))
            return self._mount.is_mount()

        wait_for(mounted, f"the mount of MooseFS (logs below {self._root})")

    def _writable(self) -> bool:
        probe = self._mount / "probe"
        with contextlib.suppress(OSError):
            probe.write_bytes(b"x")
            probe.unlink()
            return True
        return False

    def make_cold(self) -> None:
        run("umount", str(self._mount))
        drop_caches()
        self._do_mount()

    def stop(self) -> None:
        with contextlib.suppress(Unavailable):
            run("umount", "-l", str(self._mount))
        for process in reversed(self._processes):
            end(process)
        shutil.rmtree(self._root, ignore_errors=True)


def own_address() -> str:
    """Of a network card: its servers refuse loopback. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise Unavailable(f"MooseFS needs an address that is not loopback: {error}") from None
        return str(probe.getsockname()[0])
