"""Attributes of the metadata service as os.stat_result and friends."""

import os
import stat as stat_module
from collections.abc import Callable

from fs3._proto import meta_pb2

__all__ = ["DirEntry", "stat_of", "statvfs_of", "type_of_mode"]

_NS = 1_000_000_000
_BLOCK_BYTES = 128 << 10  # st_blksize: large enough that one request is worth its round trip

_TYPE_BITS = {
    meta_pb2.FILE: stat_module.S_IFREG,
    meta_pb2.DIRECTORY: stat_module.S_IFDIR,
    meta_pb2.LINK_SYMBOLIC: stat_module.S_IFLNK,
    meta_pb2.FIFO: stat_module.S_IFIFO,
    meta_pb2.SOCKET: stat_module.S_IFSOCK,
    meta_pb2.CHAR_DEVICE: stat_module.S_IFCHR,
    meta_pb2.BLOCK_DEVICE: stat_module.S_IFBLK,
}


_TYPES = {bits: kind for kind, bits in _TYPE_BITS.items()}


def type_of_mode(mode: int) -> "meta_pb2.FileType | None":
    """The fs3.meta.FileType of a st_mode; 0 means a file, as in mknod(2). None: there is none."""
    return _TYPES.get(stat_module.S_IFMT(mode) or stat_module.S_IFREG)


def stat_of(attr: meta_pb2.Attr, local: tuple[int, int] | None = None) -> os.stat_result:
    """`local`: (size in bytes, mtime in ns) as this client wrote it, while that is not settled."""
    size, mtime_ns = attr.size, attr.mtime_ns
    if local is not None:
        size, mtime_ns = local[0], local[1] or attr.mtime_ns
    times_ns = (attr.atime_ns, mtime_ns, attr.ctime_ns)
    numbers = (
        _TYPE_BITS.get(attr.type, 0) | attr.mode,
        attr.inode,
        0,
        attr.nlink,
        attr.uid,
        attr.gid,
        size,
        *(time_ns // _NS for time_ns in times_ns),
    )
    named = {
        "st_atime": times_ns[0] / _NS,
        "st_mtime": times_ns[1] / _NS,
        "st_ctime": times_ns[2] / _NS,
        "st_atime_ns": times_ns[0],
        "st_mtime_ns": times_ns[1],
        "st_ctime_ns": times_ns[2],
        "st_blksize": _BLOCK_BYTES,
        "st_blocks": attr.blocks + (max(size - attr.size, 0) + 511) // 512,
        "st_rdev": attr.rdev,
    }
    return os.stat_result(numbers, named)


def statvfs_of(reply: meta_pb2.StatfsReply) -> os.statvfs_result:
    block = reply.block_size or 4096
    blocks, free = reply.capacity_bytes // block, reply.free_bytes // block
    inodes = (reply.inodes, reply.inodes_free, reply.inodes_free)
    fsid = 0
    return os.statvfs_result((block, block, blocks, free, free, *inodes, 0, reply.name_max, fsid))


class DirEntry:
    """As os.DirEntry: a name of a directory with the attributes it had when it was listed.

    Only following a symbolic link needs another call; entries of an AsyncClient cannot make it and
    raise ValueError then.
    """

    __slots__ = ("_attr", "_follow", "name", "path")

    def __init__(
        self,
        directory: str,
        name: str,
        attr: meta_pb2.Attr,
        follow: Callable[[str], os.stat_result] | None = None,
    ) -> None:
        self.name = name
        self.path = directory.rstrip("/") + "/" + name if directory else name
        self._attr = attr
        self._follow = follow

    def inode(self) -> int:
        return int(self._attr.inode)

    def is_symlink(self) -> bool:
        return bool(self._attr.type == meta_pb2.LINK_SYMBOLIC)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat_module.S_ISDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat_module.S_ISREG, follow_symlinks)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if not follow_symlinks or not self.is_symlink():
            return stat_of(self._attr)
        if self._follow is None:
            raise ValueError(f"{self.path} is a symbolic link: await client.stat(entry.path)")
        return self._follow(self.path)

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def _is(self, kind: Callable[[int], bool], follow_symlinks: bool) -> bool:
        try:
            return kind(self.stat(follow_symlinks=follow_symlinks).st_mode)
        except FileNotFoundError:
            return False  # a link to nowhere, as in os
