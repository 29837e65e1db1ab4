"""`fs3 mount` and `fs3 umount`."""

import pathlib

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
@click.option("--foreground", is_flag=True, help="Stay in the foreground until unmounted.")
@click.option("--cluster-id", default="", metavar="HEX", help="32 hex digits; refuses others.")
@click.option("--ready-fd", type=int, hidden=True)
def mount(
    mount_point: pathlib.Path,
    data: pathlib.Path | None,
    mgmtd: str | None,
    read_only: bool,
    frontend: str,
    foreground: bool,
    cluster_id: str,
    ready_fd: int | None,
) -> None:
    """Mount the file system at MOUNT_POINT."""
    address = mgmtd or find_running(data).known_state()["mgmtd"]
    from fs3.mount.mount_point import check_mount_point

    check_mount_point(mount_point)
    if not foreground:
        from fs3.mount.background import detach

        ready_fd = detach(mount_point)
    if frontend == "python":
        from fs3.mount.python import run
    else:
        from fs3.mount.native import run

    run(
        mount_point,
        mgmtd=address,
        cluster_id=cluster_id,
        read_only=read_only,
        ready_fd=ready_fd,
    )


@click.command()
@click.argument("mount_point", type=click.Path(path_type=pathlib.Path))
@click.option("--lazy", is_flag=True, help="Detach now, finish when the last user is gone.")
def umount(mount_point: pathlib.Path, lazy: bool) -> None:
    """Unmount. When it is busy: says which processes keep it so."""
    from fs3.mount.umount import unmount

    unmount(mount_point, lazy=lazy)
