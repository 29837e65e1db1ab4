"""Random histories of the name space against the tree of model_fs.py, with restarts and gc between.

After each step the touched nodes are compared; at the end the whole tree, fsck, and that storage
holds exactly what the files imply.
"""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from meta_world import World
from model_fs import EXCHANGE, NOREPLACE, ModelFs, Node

from fs3._proto import meta_pb2 as pb
from fs3.meta.fsck import fsck, live_files

KINDS = {"file": pb.FILE, "dir": pb.DIRECTORY, "link": pb.LINK_SYMBOLIC}
NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"x" * 255, b"y" * 256])
SIZES = st.integers(0, 5 << 20)


class NameSpace(RuleBasedStateMachine):
    nodes = Bundle("nodes")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model = ModelFs(self.world.clock.wall_ns())
        self.inodes: dict[Node, int] = {self.model.root: 1}
        self.directories = [self.model.root]
        self.held: dict[Node, bytes] = {}  # files open for writing

    def both(self, expect, method: int, **fields) -> tuple[Node | None, object]:
        """Runs it on the model and on the service; same errno, or (node, reply)."""
        self.world.clock.advance(1)
        self.model.now = self.world.clock.wall_ns()
        try:
            node = expect()
        except OSError as error:
            self.world.fails(error.errno, method, **fields)
            return None, None
        return node, self.world.call(method, **fields)

    def directory(self, data) -> Node:
        return data.draw(st.sampled_from([*self.directories[-6:], self.model.root]))

    def node(self, data) -> Node:
        return data.draw(st.sampled_from(list(self.inodes)[-10:]))

    def compare(self, *nodes: Node | None) -> None:
        for node in nodes:
            if node is None or (node.removed and node not in self.held):
                continue
            attr = self.world.attr(self.inodes[node])
            assert attr.type == KINDS[node.kind]
            assert (attr.nlink, attr.size) == (node.nlink, node.size)
            assert (attr.mtime_ns, attr.ctime_ns) == (node.mtime, node.ctime)
            names = self.world.call(pb.LISTXATTR, inode=self.inodes[node]).names
            assert list(names) == sorted(node.attributes)
            for name, value in node.attributes.items():
                fields = {"inode": self.inodes[node], "name": name}
                assert self.world.call(pb.GETXATTR, **fields).value == value

    def adopt(self, node: Node | None, inode: int) -> None:
        if node is not None:
            assert inode not in self.inodes.values(), "an inode id was used again"
            self.inodes[node] = inode
            if node.kind == "dir":
                self.directories.append(node)

    @rule(data=st.data(), name=NAMES, kind=st.sampled_from(["create", "mkdir", "symlink"]))
    def make(self, data, name, kind):
        parent = self.directory(data)
        fields = {"parent": self.inodes[parent], "name": name}
        if kind == "create":
            node, reply = self.both(
                lambda: self.model.create(parent, name), pb.CREATE, mode=0o644, **fields
            )
            inode = reply.attr.inode if reply else 0
        elif kind == "mkdir":
            node, reply = self.both(
                lambda: self.model.mkdir(parent, name), pb.MKDIR, mode=0o755, **fields
            )
            inode = reply.entry.attr.inode if reply else 0
        else:
            target = data.draw(st.sampled_from([b"a", b"../b", b"t" * 300]))
            node, reply = self.both(
                lambda: self.model.symlink(parent, name, target),
                pb.SYMLINK,
                target=target,
                **fields,
            )
            inode = reply.entry.attr.inode if reply else 0
        self.adopt(node, inode)
        self.compare(node, parent)

    @rule(data=st.data())
    def make_without_name(self, data):
        parent = self.directory(data)
        flags = os.O_RDWR | os.O_TMPFILE
        fields = {"parent": self.inodes[parent], "mode": 0o644, "open": True, "flags": flags}
        node, reply = self.both(lambda: self.model.tmpfile(parent), pb.CREATE, **fields)
        if node is not None:
            self.adopt(node, reply.attr.inode)
            self.held[node] = reply.session
        self.compare(node, parent)

    @rule(
        data=st.data(),
        name=st.sampled_from([b"user.a", b"user.b"]),
        value=st.sampled_from([b"", b"1", b"x" * 1000]),
        flags=st.integers(0, 3),
    )
    def set_attribute(self, data, name, value, flags):
        node = self.node(data)
        if node.removed and node not in self.held:
            return
        fields = {"inode": self.inodes[node], "name": name}
        self.both(
            lambda: self.model.setxattr(node, name, value, flags),
            pb.SETXATTR,
            value=value,
            flags=flags,
            **fields,
        )
        self.compare(node)

    @rule(data=st.data(), name=st.sampled_from([b"user.a", b"user.b"]))
    def remove_attribute(self, data, name):
        node = self.node(data)
        if node.removed and node not in self.held:
            return
        fields = {"inode": self.inodes[node], "name": name}
        self.both(lambda: self.model.removexattr(node, name), pb.REMOVEXATTR, **fields)
        self.compare(node)

    @rule(data=st.data(), name=NAMES)
    def link(self, data, name):
        parent, node = self.directory(data), self.node(data)
        if node.removed and node not in self.held:
            return  # gc may have taken it
        self.both(
            lambda: self.model.link(node, parent, name),
            pb.LINK,
            inode=self.inodes[node],
            parent=self.inodes[parent],
            name=name,
        )
        self.compare(node, parent)

    @rule(data=st.data(), name=NAMES, kind=st.sampled_from(["unlink", "rmdir"]))
    def remove(self, data, name, kind):
        parent = self.directory(data)
        method = pb.UNLINK if kind == "unlink" else pb.RMDIR
        node, reply = self.both(
            lambda: getattr(self.model, kind)(parent, name),
            method,
            parent=self.inodes[parent],
            name=name,
        )
        if node is not None:
            assert (reply.inode, reply.last) == (self.inodes[node], node.removed)
        self.compare(node, parent)

    @rule(data=st.data(), name=NAMES)
    def remove_tree(self, data, name):
        parent = self.directory(data)
        node, _ = self.both(
            lambda: self.model.remove_tree(parent, name),
            pb.REMOVE_TREE,
            parent=self.inodes[parent],
            name=name,
        )
        while self.world.gc.empty_trees():
            pass
        self.compare(node, parent)

    @rule(
        data=st.data(),
        old_name=NAMES,
        new_name=NAMES,
        flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE]),
    )
    def rename(self, data, old_name, new_name, flags):
        old, new = self.directory(data), self.directory(data)
        source, target = old.children.get(old_name), new.children.get(new_name)
        self.both(
            lambda: self.model.rename(old, old_name, new, new_name, flags),
            pb.RENAME,
            old_parent=self.inodes[old],
            old_name=old_name,
            new_parent=self.inodes[new],
            new_name=new_name,
            flags=flags,
        )
        self.compare(old, new, source, target)

    @rule(data=st.data(), end=SIZES)
    def write(self, data, end):
        node = self.node(data)
        if node.kind != "file" or (node.removed and node not in self.held):
            return
        self.world.clock.advance(1)
        self.model.now = self.world.clock.wall_ns()
        inode = self.inodes[node]
        session = self.held.get(node) or self.world.open(inode).session
        self.world.chunks.write(inode, end)
        method = pb.SYNC if node in self.held else pb.CLOSE
        self.world.call(method, inode=inode, session=session, written_end=end, wrote=True)
        self.model.write(node, end)
        self.compare(node)

    @rule(data=st.data(), size=SIZES)
    def truncate(self, data, size):
        node = self.node(data)
        if node.removed and node not in self.held:
            return
        self.both(
            lambda: self.model.truncate(node, size),
            pb.SETATTR,
            inode=self.inodes[node],
            size=size,
        )
        self.compare(node)
        if node.kind == "file":
            assert self.world.chunks.lengths.get(self.inodes[node], 0) <= size

    @rule(data=st.data())
    def hold(self, data):
        node = self.node(data)
        if node.kind == "file" and not node.removed and node not in self.held:
            self.held[node] = self.world.open(self.inodes[node], os.O_RDWR).session

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            node = data.draw(st.sampled_from(list(self.held)))
            session = self.held.pop(node)
            self.world.call(pb.CLOSE, inode=self.inodes[node], session=session)

    @rule()
    def collect(self):
        self.world.collect()
        self.directories = [d for d in self.directories if not d.removed]

    @rule()
    def restart(self):
        self.world.restart()

    @invariant()
    def storage_holds_nothing_of_unknown_files(self):
        assert set(self.world.chunks.lengths) <= set(self.inodes.values())

    def teardown(self):
        for node, session in self.held.items():
            self.world.call(pb.CLOSE, inode=self.inodes[node], session=session)
        self.held.clear()
        self.world.collect()
        self.compare_tree(self.model.root)
        assert fsck(self.world.kv) == []
        files = {file.inode: file.size for file in live_files(self.world.kv)}
        for inode, length in self.world.chunks.lengths.items():
            assert length <= files[inode], "storage holds bytes beyond the file, or a removed file"

    def compare_tree(self, directory: Node) -> None:
        inode = self.inodes[directory]
        assert sorted(self.world.names(inode, limit=2)) == sorted(directory.children)
        parent = self.world.call(pb.READDIR, inode=inode).parent
        assert parent == self.inodes[directory.parent]
        for name, child in directory.children.items():
            assert self.world.lookup(name, inode).inode == self.inodes[child]
            self.compare(child)
            if child.kind == "dir":
                self.compare_tree(child)


TestNameSpace = NameSpace.TestCase
TestNameSpace.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_model_itself_refuses_what_it_should():
    model = ModelFs(0)
    directory = model.mkdir(model.root, b"d")
    with pytest.raises(OSError, match="EINVAL"):
        model.rename(model.root, b"d", directory, b"x", 0)
