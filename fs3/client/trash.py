"""What was removed and is kept, as applications and commands see it (how it works:
fs3/meta/trash.py).

trash = Trash(client)
for gone in trash.entries():
    print(trash.original(gone), gone.expires_s)
trash.restore(gone)
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fs3.errors import error_for
from fs3.trash import KEEPS, REMOVED_FROM, ROOT_NAME, Bucket

if TYPE_CHECKING:
    from fs3.client.attributes import DirEntry
    from fs3.client.client import Client

__all__ = ["Trash", "Trashed"]

ROOT = "/" + os.fsdecode(ROOT_NAME)
MAY_NOT_LOOK = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Trashed:
    """One removed entry. `parent` and `name`: where it was."""

    place: str  # its path now
    uid: int  # who removed it
    expires_s: int  # since the epoch: it goes for good then
    inode: int
    size: int  # bytes; of a directory 0
    is_directory: bool
    parent: int  # inode of the directory
    name: str


@dataclass
class Trash:
    """A view of one client: what it may see and move."""

    client: "Client"
    _paths: dict[int, str | None] = field(default_factory=dict)

    def keep(self, directory: str, duration: str | None, *, recursive: bool = False) -> int:
        """From now on what is removed from `directory`, and from directories made in it later, is
        kept so long ("7d", "12h", "30m"; "0": not at all; None: as if nobody had said anything).
        `recursive`: so do the directories that are below it now. How many were changed."""
        changed = self._keep(directory, duration)
        if recursive:
            for top, names, _ in self.client.walk(directory):
                changed += sum(self._keep(f"{top.rstrip('/')}/{name}", duration) for name in names)
        return changed

    def _keep(self, directory: str, duration: str | None) -> int:
        if duration is not None:
            self.client.setxattr(directory, KEEPS, duration.encode())
            return 1
        try:
            self.client.removexattr(directory, KEEPS)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return 0
        return 1

    def kept(self, directory: str) -> str:
        """How long `directory` keeps what is removed from it; "0": not at all."""
        try:
            return self.client.getxattr(directory, KEEPS).decode()
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return "0"

    def entries(self) -> Iterator[Trashed]:
        """Everything that this client may look at: root everybody's, others their own."""
        for own in self._listed(ROOT):
            if not own.name.isdecimal():
                continue
            for entry in self._listed(own.path):
                bucket = Bucket.parse(os.fsencode(entry.name))
                if bucket is not None and entry.is_dir(follow_symlinks=False):
                    yield from self._bucket(entry.path, int(own.name), bucket.expires_s)

    def _bucket(self, path: str, uid: int, expires_s: int) -> Iterator[Trashed]:
        for entry in self._listed(path):
            info = entry.stat(follow_symlinks=False)
            try:
                where = self.client.getxattr(entry.path, REMOVED_FROM, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENODATA, errno.ENOENT):
                    continue  # somebody put it there by hand, or it is gone
                raise
            parent, _, name = where.partition(b" ")
            yield Trashed(
                place=entry.path,
                uid=uid,
                expires_s=expires_s,
                inode=info.st_ino,
                size=info.st_size if stat.S_ISREG(info.st_mode) else 0,
                is_directory=stat.S_ISDIR(info.st_mode),
                parent=int(parent),
                name=os.fsdecode(name),
            )

    def _listed(self, path: str) -> list["DirEntry"]:
        try:
            return sorted(self.client.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            if error.errno in (*MAY_NOT_LOOK, errno.ENOENT):
                return []
            raise

    def original(self, gone: Trashed) -> str | None:
        """The path it had, by the names that its directories have now, or had last; None: one of
        them is gone for good."""
        parent = self._directory(gone.parent)
        return None if parent is None else f"{parent.rstrip('/')}/{gone.name}"

    def _directory(self, inode: int) -> str | None:
        if inode not in self._paths:
            self._paths[inode] = self._find_directory(inode)
        return self._paths[inode]

    def _find_directory(self, inode: int) -> str | None:
        try:
            path = self.client.path_of(inode)
            inside = _inside_trash(path)
            if inside is None:
                return path
            top, below = inside
            where = self.client.getxattr(top, REMOVED_FROM, follow_symlinks=False)
        except OSError:
            return None
        parent, _, name = where.partition(b" ")
        above = self._directory(int(parent))
        return None if above is None else f"{above.rstrip('/')}/{os.fsdecode(name)}{below}"

    def restore(self, gone: Trashed, to: str | None = None) -> str:
        """Moves it back to where it was, or to the path `to`; directories that are in the trash as
        well come back before it. Nothing is replaced (FileExistsError). The path it has then."""
        target = to
        if target is None:
            target = f"{self._restored_directory(gone).rstrip('/')}/{gone.name}"
        self.client.rename(gone.place, target, replace=False)
        self._paths.clear()
        return target

    def _restored_directory(self, gone: Trashed) -> str:
        try:
            path = self.client.path_of(gone.parent)
        except OSError:
            raise error_for(
                errno.ENOENT,
                "trash",
                f"{gone.name!r}: the directory that it was in is gone for good; "
                "say where it shall go (--to)",
            ) from None
        inside = _inside_trash(path)
        if inside is None:
            return path
        top, below = inside
        for above in self.entries():
            if above.place == top:
                return self.restore(above) + below
        raise error_for(
            errno.ENOENT, "trash", f"{path}: its place is not known; say where it shall go (--to)"
        )

    def empty(self, gone: Trashed) -> None:
        """It goes for good, now."""
        if gone.is_directory:
            self.client.rmtree(gone.place)
        else:
            self.client.unlink(gone.place)


def _inside_trash(path: str) -> tuple[str, str] | None:
    """The entry of the trash that `path` is or lies in, and the rest of the path.

    >>> _inside_trash("/.trash/1000/20261205T18/a#7/b/c")
    ('/.trash/1000/20261205T18/a#7', '/b/c')
    >>> _inside_trash("/a/.trash/b")
    """
    parts = path.split("/")
    if "/" + parts[1] != ROOT or len(parts) < 5:
        return None
    return "/".join(parts[:5]), "".join(f"/{part}" for part in parts[5:])
