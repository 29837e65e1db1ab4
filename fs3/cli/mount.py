"""`fs3 mount` and `fs3 umount`."""

import pathlib
import sys
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster_dir import data_option, find_running

if TYPE_CHECKING:
    from fs3.mount.options import MountOptions

PROGRAM = (sys.executable, "-P", "-m", "fs3.cli")


@click.command()
@click.argument("mount_point", type=pathlib.Path)  # click's own type would look at a mount
@data_option
@click.option("--mgmtd", help="HOST:PORT[,..] of the managers, instead of the local cluster's.")
@click.option("--subdir", default="", metavar="/PATH", help="Mount only what is below it.")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTION,..",
    help="As for mount(8): ro, sync (every write waits for its chains), suid, dev, nosurvive, ..",
)
@click.option("--read-only", is_flag=True, help="Nothing can be changed through it; also -o ro.")
@click.option(
    "--frontend",
    type=click.Choice(["native", "python"]),
    default="native",
    show_default=True,
    help="native: C++, fast. python: fusepy over the Python client, the reference in tests.",
)
@click.option(
    "--atime",
    type=click.Choice(["relatime", "noatime", "strictatime"]),
    default="relatime",
    show_default=True,
    help="Which reads are noted, as mount(8) says. strictatime: every one, so nothing is read from "
    "the page cache.",
)
@click.option("--squash-root", is_flag=True, help="The root of this host is nobody (65534).")
@click.option("--foreground", is_flag=True, help="Stay in the foreground until unmounted.")
@click.option("--cluster-id", default="", metavar="HEX", help="32 hex digits; refuses others.")
@click.option(
    "--survive/--no-survive",
    default=None,
    help="Goes on when its process dies or is upgraded; the default, unless FUSE over io_uring is "
    "enabled on this machine, which cannot do it.",
)
@click.option("--upgrade", is_flag=True, help="Serve an existing mount with this version of fs3.")
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--keeper-fd", type=int, hidden=True)
@click.option("--inherited", default="", hidden=True)
@click.option("--rings", type=int, hidden=True)
def mount(
    mount_point: pathlib.Path,
    data: pathlib.Path | None,
    mgmtd: str | None,
    subdir: str,
    options: tuple[str, ...],
    read_only: bool,
    frontend: str,
    atime: str,
    squash_root: bool,
    foreground: bool,
    cluster_id: str,
    survive: bool | None,
    upgrade: bool,
    ready_fd: int | None,
    keeper_fd: int | None,
    inherited: str,
    rings: int | None,
) -> None:
    """Mount the file system at MOUNT_POINT."""
    if upgrade:
        from fs3.mount import keeper

        pid = keeper.upgrade(mount_point, PROGRAM)
        click.echo(f"{mount_point} is served by process {pid} now")
        return
    from fs3.mount.options import MountOptions, parse

    flags = {"ro": read_only, "squash_root": squash_root, atime: atime != "relatime"}
    text = ",".join([*options, *(name for name, given in flags.items() if given)])
    chosen = parse(text, MountOptions(subdir=subdir or "/", survive=survive))
    if frontend == "python" and (chosen.squash_root or chosen.atime != "relatime"):
        raise click.UsageError("--atime and --squash-root are of the native mount")
    address = mgmtd or find_running(data).known_state()["mgmtd"]
    if keeper_fd is not None:
        _serve(mount_point, address, cluster_id, chosen, keeper_fd, inherited, rings)
        return
    from fs3.mount.mount_point import check_mount_point, uring_enabled

    check_mount_point(mount_point)
    if frontend == "python" and chosen.subdir != "/":
        raise click.UsageError("--frontend python mounts the whole file system only")
    if not foreground:
        from fs3.mount.background import detach

        ready_fd = detach(mount_point)
    if frontend == "python":
        from fs3.mount.python import run as run_python

        run_python(
            mount_point,
            mgmtd=address,
            cluster_id=cluster_id,
            read_only=chosen.read_only,
            ready_fd=ready_fd,
        )
    elif chosen.survive or (chosen.survive is None and not uring_enabled()):
        arguments = ["mount", str(mount_point), "--mgmtd", address, "--cluster-id", cluster_id]
        _keep(mount_point, [*arguments, "--subdir", chosen.subdir, "-o", text], ready_fd)
    else:
        from fs3.mount.native import run

        run(mount_point, mgmtd=address, cluster_id=cluster_id, options=chosen, ready_fd=ready_fd)


def _keep(mount_point: pathlib.Path, arguments: list[str], ready_fd: int | None) -> None:
    """Stays as the keeper of the mount; another process serves it."""
    from fs3.mount.keeper import Keeper
    from fs3.runtime.clock import RealClock
    from fs3.runtime.telemetry import setup_logging

    setup_logging("mount")
    keeper = Keeper(mount_point, PROGRAM, arguments, RealClock())
    click.get_current_context().exit(keeper.run(ready_fd))


def _serve(
    mount_point: pathlib.Path,
    mgmtd: str,
    cluster_id: str,
    options: "MountOptions",
    keeper_fd: int,
    inherited: str,
    rings: int | None,
) -> None:
    from fs3.mount.keeper import Link, read_rings
    from fs3.mount.native import run

    run(
        mount_point,
        mgmtd=mgmtd,
        cluster_id=cluster_id,
        options=options,
        keeper=Link(keeper_fd),
        inherited=[int(part) for part in inherited.split(",") if part],
        kept_rings=read_rings(rings) if rings is not None else (),
    )


@click.command()
@click.argument("mount_point", type=pathlib.Path)
@click.option("--lazy", is_flag=True, help="Detach now, finish when the last user is gone.")
def umount(mount_point: pathlib.Path, lazy: bool) -> None:
    """Unmount. When it is busy: says which processes keep it so."""
    from fs3.mount.umount import unmount

    unmount(mount_point, lazy=lazy)
