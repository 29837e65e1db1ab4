"""`fs3 mount` and `fs3 umount`."""

import pathlib
from typing import Any

import click

from fs3.cli.cluster_dir import data_option, find_running


@click.command()
@click.argument("mount_point", type=click.Path(path_type=pathlib.Path, file_okay=False))
@data_option
@click.option("--mgmtd", help="HOST:PORT[,..] of the managers, instead of the local cluster's.")
@click.option("--read-only", is_flag=True, help="Nothing can be changed through it.")
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
@click.option("--ready-fd", type=int, hidden=True)
def mount(
    mount_point: pathlib.Path,
    data: pathlib.Path | None,
    mgmtd: str | None,
    read_only: bool,
    frontend: str,
    atime: str,
    squash_root: bool,
    foreground: bool,
    cluster_id: str,
    ready_fd: int | None,
) -> None:
    """Mount the file system at MOUNT_POINT."""
    if frontend == "python" and (squash_root or atime != "relatime"):
        raise click.UsageError("--atime and --squash-root are of the native mount")
    address = mgmtd or find_running(data).known_state()["mgmtd"]
    from fs3.mount.mount_point import check_mount_point

    check_mount_point(mount_point)
    if not foreground:
        from fs3.mount.background import detach

        ready_fd = detach(mount_point)
    common: dict[str, Any] = {
        "mgmtd": address,
        "cluster_id": cluster_id,
        "read_only": read_only,
        "ready_fd": ready_fd,
    }
    if frontend == "python":
        from fs3.mount import python

        python.run(mount_point, **common)
    else:
        from fs3.mount import native

        options = native.MountOptions(atime=atime, squash_root=squash_root)
        native.run(mount_point, options=options, **common)


@click.command()
@click.argument("mount_point", type=click.Path(path_type=pathlib.Path))
@click.option("--lazy", is_flag=True, help="Detach now, finish when the last user is gone.")
def umount(mount_point: pathlib.Path, lazy: bool) -> None:
    """Unmount. When it is busy: says which processes keep it so."""
    from fs3.mount.umount import unmount

    unmount(mount_point, lazy=lazy)
