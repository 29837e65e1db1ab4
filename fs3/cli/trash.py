"""`fs3 trash`: what was removed and is kept for a while."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster_dir import data_option
from fs3.cli.connect import connected, inside

if TYPE_CHECKING:
    from fs3.client.trash import Trash, Trashed


@click.group()
def trash() -> None:
    """What was removed and is kept for a while.

    \b
    fs3 trash keep /projects 7d      from now on, in /projects and what is made below it
    fs3 trash ls /projects
    fs3 trash restore /projects/a/report.pdf

    Removed things are in /.trash/UID of the mount, too: mv takes them out, rm ends them.
    """


@trash.command()
@click.argument("directory")
@click.argument("duration", metavar="30m|12h|7d|0", required=False)
@click.option("-r", "recursive", is_flag=True, help="Also the directories that are below it now.")
@click.option("--clear", is_flag=True, help="As if it had never been set.")
@data_option
def keep(
    directory: str,
    duration: str | None,
    recursive: bool,
    clear: bool,
    data: pathlib.Path | None,
) -> None:
    """Keep what is removed from a directory; without a time: show how long it is kept.

    Directories made in it later begin with the same time. 0 keeps nothing.
    """
    if clear and duration is not None:
        raise click.UsageError("name either a time or --clear")
    with _trash(data) as trash:
        path = inside(directory, data)
        if clear or duration is not None:
            changed = trash.keep(path, duration, recursive=recursive)
            click.echo(f"{changed} {'directory' if changed == 1 else 'directories'} changed")
        else:
            click.echo(trash.kept(path))


@trash.command("ls")
@click.argument("path", default="/")
@data_option
def ls(path: str, data: pathlib.Path | None) -> None:
    """Show what is kept of what was at a path or below it, and until when."""
    with _trash(data) as trash:
        below = inside(path, data)
        click.echo(f"{'UNTIL (UTC)':<17} {'UID':>6} {'BYTES':>12}  PATH")
        for gone, was in sorted(_below(trash, below), key=lambda pair: pair[1]):
            until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(gone.expires_s))
            click.echo(f"{until:<17} {gone.uid:>6} {gone.size:>12}  {was}")


@trash.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--to", metavar="PATH", help="Where it shall be now, when that is another place.")
@data_option
def restore(paths: tuple[str, ...], to: str | None, data: pathlib.Path | None) -> None:
    """Bring back what was at a path, and all that was below it.

    A path that was removed more than once gets what was removed last. A path in /.trash names
    exactly one.
    """
    if to is not None and len(paths) > 1:
        raise click.UsageError("--to is for one path")
    with _trash(data) as trash:
        for path in paths:
            _restore(trash, inside(path, data), to and inside(to, data))


def _restore(trash: "Trash", path: str, to: str | None) -> None:
    wanted = list(_below(trash, path))
    exact = [gone for gone, was in wanted if path in (was, gone.place)]
    if exact:
        newest = max(exact, key=lambda gone: (gone.expires_s, gone.inode))
        click.echo(f"{newest.place} -> {trash.restore(newest, to)}")
        wanted = [] if not newest.is_directory else list(_below(trash, path))
    elif not wanted:
        raise click.ClickException(f"nothing is kept of {path}; see: fs3 trash ls")
    if to is not None:
        return  # the rest belongs to the old place
    newest_of = {was: gone for gone, was in sorted(wanted, key=lambda pair: pair[0].expires_s)}
    for was in sorted(newest_of):
        if was == path or trash.client.lexists(was):
            continue
        gone = newest_of[was]
        if trash.client.lexists(gone.place):
            click.echo(f"{gone.place} -> {trash.restore(gone)}")


@trash.command()
@click.argument("path", default="/")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@data_option
def empty(path: str, yes: bool, data: pathlib.Path | None) -> None:
    """Remove for good, now, what is kept of a path and below it."""
    with _trash(data) as trash:
        wanted = [gone for gone, _ in _below(trash, inside(path, data))]
        total = sum(gone.size for gone in wanted)
        if wanted and not yes:
            click.confirm(f"{len(wanted)} entries, {total:,} bytes, go for good?", abort=True)
        for gone in wanted:
            trash.empty(gone)
        click.echo(f"{len(wanted)} entries gone")


def _below(trash: "Trash", path: str) -> Iterator[tuple["Trashed", str]]:
    """What was at `path` or below it, or is there now, when that is in the trash; where it was."""
    for gone in trash.entries():
        was = trash.original(gone) or f"(its directory is gone)/{gone.name}"
        if any(path == "/" or at == path or at.startswith(path + "/") for at in (was, gone.place)):
            yield gone, was


@contextlib.contextmanager
def _trash(data: pathlib.Path | None) -> Iterator["Trash"]:
    from fs3.client.trash import Trash

    with connected(data) as client:
        yield Trash(client)
