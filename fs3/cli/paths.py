"""Commands on paths: ls cat cp put get mv rm stat. They speak to the file system directly, with or
without a mount."""

import os
import pathlib
import stat as stat_module
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster_dir import data_option
from fs3.cli.connect import connected, inside
from fs3.cli.progress import Progress, progress

if TYPE_CHECKING:
    from fs3.client import Client

BLOCK_BYTES = 4 << 20


@click.command()
@click.argument("path", default="/")
@click.option("-l", "long", is_flag=True, help="Mode, links, owner, size and time.")
@click.option("-a", "show_all", is_flag=True, help="Also names that begin with a dot.")
@data_option
def ls(path: str, long: bool, show_all: bool, data: pathlib.Path | None) -> None:
    """List a directory, or show a file."""
    with connected(data) as client:
        target = inside(path, data)
        info = client.lstat(target)
        if not stat_module.S_ISDIR(info.st_mode):
            click.echo(_long_line(client, target, path, info) if long else path)
            return
        for entry in sorted(client.scandir(target), key=lambda entry: entry.name):
            if entry.name.startswith(".") and not show_all:
                continue
            if long:
                where = target.rstrip("/") + "/" + entry.name
                info = entry.stat(follow_symlinks=False)
                click.echo(_long_line(client, where, entry.name, info))
            else:
                click.echo(entry.name)


def _long_line(client: "Client", where: str, name: str, info: os.stat_result) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.st_mtime))
    arrow = f" -> {client.readlink(where)}" if stat_module.S_ISLNK(info.st_mode) else ""
    return (
        f"{stat_module.filemode(info.st_mode)} {info.st_nlink:>3} {info.st_uid:>5} "
        f"{info.st_gid:>5} "
        f"{info.st_size:>12} {when} {name}{arrow}"
    )


@click.command()
@click.argument("paths", nargs=-1, required=True)
@data_option
def cat(paths: tuple[str, ...], data: pathlib.Path | None) -> None:
    """Write files to standard output."""
    with connected(data) as client:
        for path in paths:
            with client.open(inside(path, data), "rb") as file:
                while block := file.read(BLOCK_BYTES):
                    sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("source")
@click.argument("destination")
@data_option
def cp(source: str, destination: str, data: pathlib.Path | None) -> None:
    """Copy a file inside the file system."""
    with connected(data) as client:
        source_path = inside(source, data)
        target = _into(client, inside(destination, data), os.path.basename(source_path))
        size = client.stat(source_path).st_size
        with (
            progress(f"cp {source}", size) as bar,
            client.open(source_path, "rb") as reader,
            client.open(target, "wb") as writer,
        ):
            while block := reader.read(BLOCK_BYTES):
                writer.write(block)
                bar.advance(len(block))
            writer.fsync()
        client.chmod(target, stat_module.S_IMODE(client.stat(source_path).st_mode))


def _into(client: "Client", destination: str, name: str) -> str:
    """`destination`, or `destination/name` when it is a directory."""
    if client.isdir(destination):
        return destination.rstrip("/") + "/" + name
    return destination


@click.command()
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=pathlib.Path)
)
@click.argument("destination")
@click.option("-r", "recursive", is_flag=True, help="Also directories, with all that is in them.")
@data_option
def put(
    sources: tuple[pathlib.Path, ...], destination: str, recursive: bool, data: pathlib.Path | None
) -> None:
    """Copy local files (or trees, with -r) into the file system."""
    with connected(data) as client:
        target = inside(destination, data)
        if len(sources) > 1 and not client.isdir(target):
            raise click.UsageError(
                f"{destination} is not a directory, and there are several sources"
            )
        total = sum(_local_bytes(source, recursive) for source in sources)
        with progress("put", total) as bar:
            for source in sources:
                _put_tree(client, source, _into(client, target, source.name), bar)


def _local_bytes(source: pathlib.Path, recursive: bool) -> int:
    if source.is_dir() and not source.is_symlink():
        if not recursive:
            raise click.UsageError(f"{source} is a directory; copy it with -r")
        return sum(entry.lstat().st_size for entry in source.rglob("*") if entry.is_file())
    return source.lstat().st_size


def _put_tree(client: "Client", source: pathlib.Path, target: str, bar: Progress) -> None:
    info = source.lstat()
    if stat_module.S_ISLNK(info.st_mode):
        client.symlink(os.readlink(source), target)
        return
    if stat_module.S_ISDIR(info.st_mode):
        client.makedirs(target, exist_ok=True)
        for entry in sorted(source.iterdir()):
            _put_tree(client, entry, f"{target}/{entry.name}", bar)
    elif stat_module.S_ISREG(info.st_mode):
        client.put(source, target, on_bytes=bar.advance)
    else:
        raise click.ClickException(f"{source} is neither file, directory nor symbolic link")
    client.chmod(target, stat_module.S_IMODE(info.st_mode))
    client.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("destination", type=click.Path(path_type=pathlib.Path))
@click.option("-r", "recursive", is_flag=True, help="Also directories, with all that is in them.")
@data_option
def get(
    sources: tuple[str, ...], destination: pathlib.Path, recursive: bool, data: pathlib.Path | None
) -> None:
    """Copy files (or trees, with -r) out of the file system."""
    if len(sources) > 1 and not destination.is_dir():
        raise click.UsageError(f"{destination} is not a directory, and there are several sources")
    with connected(data) as client:
        paths = [inside(source, data) for source in sources]
        total = sum(_remote_bytes(client, path, recursive) for path in paths)
        with progress("get", total) as bar:
            for path in paths:
                name = os.path.basename(path)
                target = destination / name if destination.is_dir() else destination
                _get_tree(client, path, target, bar)


def _remote_bytes(client: "Client", path: str, recursive: bool) -> int:
    info = client.lstat(path)
    if not stat_module.S_ISDIR(info.st_mode):
        return info.st_size
    if not recursive:
        raise click.UsageError(f"{path} is a directory; copy it with -r")
    return sum(client.lstat(file).st_size for file in _remote_files(client, path))


def _remote_files(client: "Client", path: str) -> Iterator[str]:
    for directory, _, names in client.walk(path):
        for name in names:
            yield f"{directory.rstrip('/')}/{name}"


def _get_tree(client: "Client", path: str, target: pathlib.Path, bar: Progress) -> None:
    info = client.lstat(path)
    if stat_module.S_ISLNK(info.st_mode):
        target.symlink_to(client.readlink(path))
        return
    if stat_module.S_ISDIR(info.st_mode):
        target.mkdir(exist_ok=True)
        for entry in client.scandir(path):
            _get_tree(client, f"{path.rstrip('/')}/{entry.name}", target / entry.name, bar)
    else:
        client.get(path, target, on_bytes=bar.advance)
    os.chmod(target, stat_module.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


@click.command()
@click.argument("source")
@click.argument("destination")
@data_option
def mv(source: str, destination: str, data: pathlib.Path | None) -> None:
    """Rename a file or directory; an existing file at the destination is replaced."""
    with connected(data) as client:
        source_path = inside(source, data)
        target = _into(client, inside(destination, data), os.path.basename(source_path))
        client.rename(source_path, target)


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "force", is_flag=True, help="No error when a path does not exist.")
@data_option
def rm(paths: tuple[str, ...], recursive: bool, force: bool, data: pathlib.Path | None) -> None:
    """Remove files, or trees with -r."""
    with connected(data) as client:
        for path in paths:
            target = inside(path, data)
            if target == "/":
                raise click.UsageError("refusing to remove the root directory")
            try:
                _remove(client, target, recursive)
            except FileNotFoundError:
                if not force:
                    raise


def _remove(client: "Client", path: str, recursive: bool) -> None:
    if stat_module.S_ISDIR(client.lstat(path).st_mode):
        if not recursive:
            raise click.UsageError(f"{path} is a directory; remove it with -r")
        client.rmtree(path)
    else:
        client.unlink(path)


@click.command()
@click.argument("paths", nargs=-1, required=True)
@data_option
def stat(paths: tuple[str, ...], data: pathlib.Path | None) -> None:
    """Show the attributes of paths (symbolic links are not followed)."""
    with connected(data) as client:
        for path in paths:
            info = client.lstat(inside(path, data))
            click.echo(f"  Path: {path}")
            click.echo(
                f" Inode: {info.st_ino}   Links: {info.st_nlink}   Size: {info.st_size} bytes"
            )
            click.echo(
                f"  Mode: {stat_module.filemode(info.st_mode)} "
                f"({stat_module.S_IMODE(info.st_mode):04o})"
                f"   Uid: {info.st_uid}   Gid: {info.st_gid}"
            )
            for name, value in (
                ("Access", info.st_atime),
                ("Modify", info.st_mtime),
                ("Change", info.st_ctime),
            ):
                click.echo(f"{name}: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(value))}")
