"""RESOLVE: a whole path in one call, symbolic links followed inside the file system.

A last component that does not exist is no error: the reply has parent and name, for a create. Any
other one is ENOENT.
"""

import errno

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import Inode
from fs3.meta.permission import EXECUTE, Caller, require
from fs3.types import ROOT_INODE


def resolve(
    txn: Transaction, request: meta_pb2.ResolveRequest, context: Context
) -> meta_pb2.ResolveReply:
    walk = _Walk(txn, context.caller, request.base or ROOT_INODE)
    inode = walk.run(request.path, request.follow)
    reply = meta_pb2.ResolveReply(parent=walk.parent, name=walk.name)
    if inode is not None:
        reply.entry.CopyFrom(context.entry(inode))
    return reply


class _Walk:
    """Where a walk is. After run(): the directory and name of the last component; no name when it
    was the root, "." or ".."."""

    def __init__(self, txn: Transaction, caller: Caller, base: int) -> None:
        self._txn = txn
        self._caller = caller
        self._base = base
        self._followed = 0
        self.parent = base
        self.name = b""

    def run(self, path: bytes, follow: bool) -> Inode | None:
        components, must_be_directory = self._split(path)
        at = self._load(ROOT_INODE if path.startswith(b"/") else self._base)
        while components:
            component = components.pop()
            following = self._step(at, component, last=not components)
            if following is None:
                return None
            link_counts = components or follow or must_be_directory
            if following.type == inodes.SYMLINK and link_counts:
                target = self._follow(following)
                inner, inner_directory = self._split(target)
                must_be_directory = must_be_directory or (inner_directory and not components)
                components += inner
                if target.startswith(b"/"):
                    at = self._load(ROOT_INODE)
                continue
            at = following
        if must_be_directory and not at.is_directory:
            raise refuse(errno.ENOTDIR, "resolve", f"{self.name!r} is not a directory")
        return at

    def _split(self, path: bytes) -> tuple[list[bytes], bool]:
        """Components in reverse order; True when the path ends like a directory ("a/", "a/.")."""
        if len(path) > limits.PATH_BYTES_MAX or b"\0" in path:
            number = errno.EINVAL if b"\0" in path else errno.ENAMETOOLONG
            raise refuse(number, "resolve", f"path: {len(path)} bytes, at most 4095, no NUL")
        components = [part for part in path.split(b"/") if part]
        ends_as_directory = path.endswith((b"/", b"/."))
        return components[::-1], ends_as_directory

    def _load(self, number: int) -> Inode:
        self.parent, self.name = number, b""
        return inodes.load(self._txn, number, "resolve")

    def _step(self, directory: Inode, component: bytes, *, last: bool) -> Inode | None:
        if not directory.is_directory:
            raise refuse(errno.ENOTDIR, "resolve", f"{self.name!r} is not a directory")
        require(directory, self._caller, EXECUTE, "resolve")
        if component == b".":
            return self._load(directory.number)
        if component == b"..":
            return self._load(directory.parent)
        dirent.check_name(component, "resolve")
        self.parent, self.name = directory.number, component
        found = dirent.find(self._txn, directory.number, component)
        if found is not None:
            return inodes.load(self._txn, found.inode, "resolve")
        if not last:
            raise refuse(errno.ENOENT, "resolve", f"no entry {component!r} on the way")
        return None

    def _follow(self, link: Inode) -> bytes:
        self._followed += 1
        if self._followed > limits.SYMLINKS_FOLLOWED_MAX:
            detail = f"more than {limits.SYMLINKS_FOLLOWED_MAX} symbolic links"
            raise refuse(errno.ELOOP, "resolve", detail)
        return link.target
