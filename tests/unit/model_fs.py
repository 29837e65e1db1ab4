"""A file system as a dictionary tree: the oracle for histories of one user with all rights.

No transactions, no records, no inode numbers: a node is an object, a directory a dict of names.
Each operation returns None or a node, or raises OSError as the manual page of the system call says.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

NAME_BYTES_MAX = 255
NOREPLACE, EXCHANGE = 1, 2
XATTR_CREATE, XATTR_REPLACE = 1, 2


@dataclass(eq=False)
class Node:
    kind: str  # "file", "dir", "link"
    born: int
    size: int = 0
    target: bytes = b""
    children: dict[bytes, "Node"] = field(default_factory=dict)
    parent: "Node | None" = None  # of a directory that has a name
    names: int = 0
    mtime: int = 0
    ctime: int = 0
    removed: bool = False
    linkable: bool = False  # made without a name, and has had none yet
    attributes: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def nlink(self) -> int:
        if self.removed:
            return 0
        if self.kind == "dir":
            return 2 + sum(child.kind == "dir" for child in self.children.values())
        return self.names


def fail(number: int) -> OSError:
    return OSError(number, errno.errorcode[number])


class ModelFs:
    def __init__(self, now: int) -> None:
        self.now = now
        self.root = Node("dir", now, mtime=now, ctime=now)
        self.root.parent = self.root

    # -- checks that many calls share --------------------------------------------------------

    @staticmethod
    def _directory(node: Node) -> None:
        if node.kind != "dir":
            raise fail(errno.ENOTDIR)

    @staticmethod
    def _name(name: bytes) -> None:
        if len(name) > NAME_BYTES_MAX:
            raise fail(errno.ENAMETOOLONG)

    def _find(self, parent: Node, name: bytes) -> Node:
        self._directory(parent)
        self._name(name)
        if name not in parent.children:
            raise fail(errno.ENOENT)
        return parent.children[name]

    def _add(self, parent: Node, name: bytes, node: Node) -> Node:
        self._directory(parent)
        self._name(name)
        if name in parent.children:
            raise fail(errno.EEXIST)
        if parent.removed:
            raise fail(errno.ENOENT)
        parent.children[name] = node
        parent.mtime = parent.ctime = self.now
        return node

    def _new(self, kind: str) -> Node:
        return Node(kind, self.now, mtime=self.now, ctime=self.now, names=1)

    def _drop(self, node: Node) -> None:
        node.names -= 1
        node.ctime = self.now
        if node.kind == "dir" or node.names == 0:
            node.removed = True

    # -- system calls ------------------------------------------------------------------------

    def lookup(self, parent: Node, name: bytes) -> Node:
        return self._find(parent, name)

    def create(self, parent: Node, name: bytes) -> Node:
        return self._add(parent, name, self._new("file"))

    def mkdir(self, parent: Node, name: bytes) -> Node:
        node = self._new("dir")
        node.parent = parent
        return self._add(parent, name, node)

    def symlink(self, parent: Node, name: bytes, target: bytes) -> Node:
        node = self._new("link")
        node.target, node.size = target, len(target)
        return self._add(parent, name, node)

    def tmpfile(self, parent: Node) -> Node:
        self._directory(parent)
        if parent.removed:
            raise fail(errno.ENOENT)
        node = self._new("file")
        node.names, node.removed, node.linkable = 0, True, True
        return node

    def setxattr(self, node: Node, name: bytes, value: bytes, flags: int) -> Node:
        if node.kind == "link":
            raise fail(errno.EPERM)
        if name in node.attributes and flags & XATTR_CREATE:
            raise fail(errno.EEXIST)
        if name not in node.attributes and flags & XATTR_REPLACE:
            raise fail(errno.ENODATA)
        node.attributes[name] = value
        node.ctime = self.now
        return node

    def removexattr(self, node: Node, name: bytes) -> Node:
        if node.kind == "link":
            raise fail(errno.EPERM)
        if name not in node.attributes:
            raise fail(errno.ENODATA)
        del node.attributes[name]
        node.ctime = self.now
        return node

    def link(self, node: Node, parent: Node, name: bytes) -> Node:
        self._directory(parent)
        self._name(name)
        if name in parent.children:
            raise fail(errno.EEXIST)
        if node.kind == "dir":
            raise fail(errno.EPERM)
        if parent.removed or (node.removed and not node.linkable):
            raise fail(errno.ENOENT)
        self._add(parent, name, node)
        node.names += 1
        node.removed = node.linkable = False
        node.ctime = self.now
        return node

    def unlink(self, parent: Node, name: bytes) -> Node:
        node = self._find(parent, name)
        if node.kind == "dir":
            raise fail(errno.EISDIR)
        del parent.children[name]
        parent.mtime = parent.ctime = self.now
        self._drop(node)
        return node

    def rmdir(self, parent: Node, name: bytes) -> Node:
        node = self._find(parent, name)
        if node.kind != "dir":
            raise fail(errno.ENOTDIR)
        if node.children:
            raise fail(errno.ENOTEMPTY)
        del parent.children[name]
        parent.mtime = parent.ctime = self.now
        self._drop(node)
        return node

    def remove_tree(self, parent: Node, name: bytes) -> Node:
        node = self._find(parent, name)
        self._directory(node)
        self._empty(node)
        return self.rmdir(parent, name)

    def _empty(self, directory: Node) -> None:
        for child in directory.children.values():
            if child.kind == "dir":
                self._empty(child)
            self._drop(child)
        directory.children.clear()

    def write(self, node: Node, end: int) -> None:
        """A whole open, write up to `end`, close."""
        if node.kind == "dir":
            raise fail(errno.EISDIR)
        if node.kind == "link":
            raise fail(errno.ELOOP)
        node.size = max(node.size, end)
        node.mtime = node.ctime = self.now

    def truncate(self, node: Node, size: int) -> None:
        if node.kind == "dir":
            raise fail(errno.EISDIR)
        if node.kind == "link":
            raise fail(errno.EINVAL)
        node.size = size
        node.mtime = node.ctime = self.now

    def rename(self, old: Node, old_name: bytes, new: Node, new_name: bytes, flags: int) -> Node:
        self._directory(old)
        self._directory(new)
        self._name(old_name)
        self._name(new_name)
        source = self._find(old, old_name)
        target = new.children.get(new_name)
        if target is not None and flags & NOREPLACE:
            raise fail(errno.EEXIST)
        if target is None and flags & EXCHANGE:
            raise fail(errno.ENOENT)
        if source in self._ancestors(new):
            raise fail(errno.EINVAL)
        if target is not None and old is not new and target in self._ancestors(old):
            raise fail(errno.EINVAL if flags & EXCHANGE else errno.ENOTEMPTY)
        if target is source:
            return source
        if flags & EXCHANGE:
            old.children[old_name] = target
            new.children[new_name] = source
        else:
            self._replace(source, target, old, old_name, new, new_name)
        for moved, directory in ((source, new), (target, old)):
            if moved is not None and not moved.removed:
                moved.ctime = self.now
                if (
                    moved.kind == "dir"
                    and directory.children.get(
                        new_name if directory is new and moved is source else old_name
                    )
                    is moved
                ):
                    moved.parent = directory
        for directory in (old, new):
            directory.mtime = directory.ctime = self.now
        return source

    def _replace(self, source, target, old, old_name, new, new_name) -> None:
        if target is None:
            if new.removed:
                raise fail(errno.ENOENT)
        elif source.kind == "dir":
            if target.kind != "dir":
                raise fail(errno.ENOTDIR)
            if target.children:
                raise fail(errno.ENOTEMPTY)
        elif target.kind == "dir":
            raise fail(errno.EISDIR)
        del old.children[old_name]
        if target is not None:
            self._drop(target)
        new.children[new_name] = source

    def _ancestors(self, node: Node) -> Iterator[Node]:
        """`node` and what is above it, as far as it hangs together."""
        while True:
            yield node
            if node is self.root or node.removed or node.parent is None:
                return
            node = node.parent
