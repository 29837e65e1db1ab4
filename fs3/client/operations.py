"""The name space, written once: each operation is a generator of calls (calls.py).

`Client` runs them blocking, `AsyncClient` suspended. Paths are walked by the metadata service
(RESOLVE); an operation that changes an entry asks for the inode of its directory and then names the
entry in it, so it acts on exactly one name.
"""

import errno
import os
import stat as stat_module
from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.client import quota as quotas
from fs3.client.attributes import DirEntry, stat_of, statvfs_of, type_of_mode
from fs3.client.calls import (
    Buffer,
    Call,
    Close,
    Handle,
    Meta,
    Native,
    Operation,
    Settle,
    SyncAll,
)
from fs3.client.identity import Identity
from fs3.client.moments import Moments
from fs3.client.paths import Path, decode, encode, naming, split
from fs3.client.quota import Owner, Quota
from fs3.errors import Fs3Error, Refused
from fs3.types import ROOT_INODE

__all__ = ["Opened", "Operations"]

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
# An open that finds the entry and then not the inode met a rename or unlink; the path is walked
# again, as the kernel does on ESTALE.
_RACES_MAX = 2
_CHATTR = (meta_pb2.IMMUTABLE, meta_pb2.APPEND_ONLY, meta_pb2.NO_DUMP, meta_pb2.NO_ATIME)
_NO_ACCESS = (errno.EACCES, errno.ENOENT, errno.ENOTDIR)

Name = str | bytes  # of an extended attribute
Kind = Callable[[int], bool]  # of a st_mode
Follow = Callable[[str], os.stat_result]


class Opened:
    """What an open gives: the native handle, and what a later truncate through it needs."""

    __slots__ = ("handle", "inode", "session", "size")

    def __init__(self, handle: Handle, inode: int, session: bytes, size: int) -> None:
        self.handle = handle
        self.inode = inode
        self.session = session
        self.size = size  # bytes, when it was opened


class Operations:
    """In the name of one identity. Stateless. Methods are generators and raise OSError with the
    path in it."""

    def __init__(self, native: Native, identity: Identity) -> None:
        self._native = native
        self._umask = identity.umask
        self._caller = identity.caller()

    def acting_as(self, identity: Identity) -> "Operations":
        """The same in another name."""
        return Operations(self._native, identity)

    def shares_connection(self, other: "Operations") -> bool:
        """Handles of the one mean something to the other."""
        return self._native is other._native

    # ---- calls ----

    def meta(self, method: int, request: Message) -> Meta:
        return Meta(method, self._caller, self._umask, request.SerializeToString())

    def _attr(self, request: meta_pb2.SetAttrRequest) -> Operation[meta_pb2.Attr]:
        reply = yield self.meta(meta_pb2.SETATTR, request)
        return meta_pb2.AttrReply.FromString(reply).attr

    def _resolve(self, path: bytes, *, follow: bool) -> Operation[meta_pb2.ResolveReply]:
        request = meta_pb2.ResolveRequest(base=ROOT_INODE, path=path, follow=follow)
        reply = yield self.meta(meta_pb2.RESOLVE, request)
        return meta_pb2.ResolveReply.FromString(reply)

    def _find(self, path: Path, *, follow: bool) -> Operation[meta_pb2.Attr]:
        raw = encode(path)
        reply = yield from self._resolve(raw, follow=follow)
        if not reply.HasField("entry"):
            raise Refused(errno.ENOENT, "client/resolve", f"no entry {reply.name!r}")
        return reply.entry.attr

    def _directory(self, path: bytes) -> Operation[int]:
        """The inode of the directory that holds an entry. The service checks that it is one."""
        if path == b"/":
            return int(ROOT_INODE)
        reply = yield from self._resolve(path, follow=True)
        if not reply.HasField("entry"):
            raise Refused(errno.ENOENT, "client/resolve", f"no entry {reply.name!r} on the way")
        return int(reply.entry.attr.inode)

    # ---- attributes ----

    def stat(self, path: Path, *, follow_symlinks: bool = True) -> Operation[os.stat_result]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            return stat_of(attr, self._native.local_size(attr.inode, attr.version))

    def attributes(self, path: Path) -> Operation[meta_pb2.Attr]:
        """The metadata service's own record, layout included."""
        with naming(path):
            return (yield from self._find(path, follow=True))

    def fstat(self, opened: Opened, path: Path) -> Operation[os.stat_result]:
        with naming(path):
            request = meta_pb2.GetAttrRequest(inode=opened.inode)
            reply = yield self.meta(meta_pb2.GETATTR, request)
            attr = meta_pb2.AttrReply.FromString(reply).attr
            return stat_of(attr, self._native.local_size(opened.inode, attr.version))

    def exists(self, path: Path, *, follow_symlinks: bool = True) -> Operation[bool]:
        return (yield from self._kind(path, lambda mode: True, follow_symlinks))

    def is_dir(self, path: Path) -> Operation[bool]:
        return (yield from self._kind(path, stat_module.S_ISDIR, True))

    def is_file(self, path: Path) -> Operation[bool]:
        return (yield from self._kind(path, stat_module.S_ISREG, True))

    def is_link(self, path: Path) -> Operation[bool]:
        return (yield from self._kind(path, stat_module.S_ISLNK, False))

    def _kind(self, path: Path, kind: Kind, follow_symlinks: bool) -> Operation[bool]:
        """Only "it is not there" is an answer; what cannot be asked is an error."""
        try:
            info = yield from self.stat(path, follow_symlinks=follow_symlinks)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return kind(info.st_mode)

    def access(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> Operation[bool]:
        with naming(path):
            try:
                attr = yield from self._find(path, follow=follow_symlinks)
                if mode != os.F_OK:
                    request = meta_pb2.AccessRequest(inode=attr.inode, mask=mode)
                    yield self.meta(meta_pb2.ACCESS, request)
            except Fs3Error as error:
                if error.errno in _NO_ACCESS:
                    return False
                raise
            return True

    def chmod(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.SetAttrRequest(inode=attr.inode, mode=mode & 0o7777)
            yield from self._attr(request)

    def chown(
        self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True
    ) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.SetAttrRequest(inode=attr.inode)
            if uid != -1:
                request.uid = uid
            if gid != -1:
                request.gid = gid
            yield from self._attr(request)

    def utime(
        self, path: Path, moments: Moments, *, follow_symlinks: bool = True
    ) -> Operation[None]:
        atime, mtime = moments
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.SetAttrRequest(
                inode=attr.inode, atime_now=atime == "now", mtime_now=mtime == "now"
            )
            if isinstance(atime, int):
                request.atime_ns = atime
            if isinstance(mtime, int):
                request.mtime_ns = mtime
            yield Settle(attr.inode)
            yield from self._attr(request)

    def chattr(self, path: Path, wanted: Sequence[bool | None]) -> Operation[None]:
        """`wanted`: in the order of _CHATTR; None leaves that flag as it is."""
        with naming(path):
            attr = yield from self._find(path, follow=True)
            flags = 0
            for flag, shall_be in zip(_CHATTR, wanted, strict=True):
                flags |= flag if shall_be or (shall_be is None and attr.flags & flag) else 0
            request = meta_pb2.SetFlagsRequest(inode=attr.inode, flags=flags)
            yield self.meta(meta_pb2.SETFLAGS, request)

    # ---- extended attributes ----

    def getxattr(self, path: Path, name: Name, *, follow_symlinks: bool = True) -> Operation[bytes]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.GetXattrRequest(inode=attr.inode, name=os.fsencode(name))
            reply = yield self.meta(meta_pb2.GETXATTR, request)
            return meta_pb2.GetXattrReply.FromString(reply).value

    def listxattr(self, path: Path, *, follow_symlinks: bool = True) -> Operation[list[str]]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.ListXattrRequest(inode=attr.inode)
            reply = yield self.meta(meta_pb2.LISTXATTR, request)
            return [decode(name) for name in meta_pb2.ListXattrReply.FromString(reply).names]

    def setxattr(
        self, path: Path, name: Name, value: Buffer, flags: int, *, follow_symlinks: bool = True
    ) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.SetXattrRequest(
                inode=attr.inode, name=os.fsencode(name), value=bytes(value), flags=flags
            )
            yield self.meta(meta_pb2.SETXATTR, request)

    def removexattr(
        self, path: Path, name: Name, *, follow_symlinks: bool = True
    ) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=follow_symlinks)
            request = meta_pb2.RemoveXattrRequest(inode=attr.inode, name=os.fsencode(name))
            yield self.meta(meta_pb2.REMOVEXATTR, request)

    # ---- length and stable storage ----

    def truncate(self, path: Path, size: int) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=True)
            yield from self._set_size(attr.inode, size, b"")

    def ftruncate(self, opened: Opened, size: int, path: Path) -> Operation[None]:
        with naming(path):
            yield from self._set_size(opened.inode, size, opened.session)

    def _set_size(self, inode: int, size: int, session: bytes) -> Operation[None]:
        yield Settle(inode)
        request = meta_pb2.SetAttrRequest(inode=inode, size=size, session=session)
        attr = yield from self._attr(request)
        self._native.note_truncated(inode, size, attr.version)

    def sync(self, path: Path) -> Operation[None]:
        with naming(path):
            attr = yield from self._find(path, follow=True)
            yield Settle(attr.inode)
            request = meta_pb2.SyncRequest(inode=attr.inode, durable=True)
            yield self.meta(meta_pb2.SYNC, request)

    def sync_all(self) -> Operation[None]:
        with naming("/"):
            yield SyncAll()

    def statvfs(self, path: Path) -> Operation[os.statvfs_result]:
        with naming(path):
            attr = yield from self._find(path, follow=True)
            reply = yield self.meta(meta_pb2.STATFS, meta_pb2.StatfsRequest(inode=attr.inode))
            return statvfs_of(meta_pb2.StatfsReply.FromString(reply))

    # ---- quotas ----

    def get_quota(self, owner: Owner) -> Operation[Quota]:
        with naming(_name(owner)):
            kind, number = yield from self._account(owner)
            request = meta_pb2.GetQuotaRequest(kind=kind, id=number)
            reply = yield self.meta(meta_pb2.GET_QUOTA, request)
            return Quota.of(meta_pb2.QuotaReply.FromString(reply).quota)

    def list_quotas(self) -> Operation[list[Quota]]:
        with naming("/"):
            reply = yield self.meta(meta_pb2.LIST_QUOTAS, meta_pb2.ListQuotasRequest())
            return [Quota.of(one) for one in meta_pb2.ListQuotasReply.FromString(reply).quotas]

    def set_quota(
        self,
        owner: Owner,
        bytes_max: int,
        inodes_max: int,
        on_counted: Callable[[int], object],
    ) -> Operation[Quota]:
        with naming(_name(owner)):
            kind, number = yield from self._account(owner)
            request = meta_pb2.SetQuotaRequest(
                kind=kind, id=number, bytes_max=bytes_max, inodes_max=inodes_max
            )
            quota = yield from self._set_quota(request)
            if quota.counting:
                yield from quotas.count(self, number, number, on_counted)
                request.counted = True
                quota = yield from self._set_quota(request)
            return quota

    def clear_quota(self, owner: Owner, on_counted: Callable[[int], object]) -> Operation[None]:
        with naming(_name(owner)):
            kind, number = yield from self._account(owner)
            request = meta_pb2.SetQuotaRequest(kind=kind, id=number, clear=True)
            yield from self._set_quota(request)
            if kind == meta_pb2.TREE_QUOTA:
                yield from quotas.count(self, number, 0, on_counted)

    def _set_quota(self, request: meta_pb2.SetQuotaRequest) -> Operation[Quota]:
        reply = yield self.meta(meta_pb2.SET_QUOTA, request)
        return Quota.of(meta_pb2.QuotaReply.FromString(reply).quota)

    def _account(self, owner: Owner) -> Operation[tuple[meta_pb2.QuotaKind, int]]:
        if isinstance(owner, int):
            return meta_pb2.USER_QUOTA, owner
        attr = yield from self._find(owner, follow=True)
        return meta_pb2.TREE_QUOTA, attr.inode

    def path_of(self, inode: int) -> Operation[str]:
        """Where a directory is, found by going up from it."""
        names: list[str] = []
        with naming(f"inode {inode}"):
            while inode != ROOT_INODE:
                request = meta_pb2.ReaddirRequest(inode=inode, limit=1)
                reply = yield self.meta(meta_pb2.READDIR, request)
                parent = meta_pb2.ReaddirReply.FromString(reply).parent
                entries = yield from self._pages(parent, attributes=False)
                names += [decode(entry.name) for entry in entries if entry.inode == inode][:1]
                inode = parent
        return "/" + "/".join(reversed(names))

    # ---- entries ----

    def mkdir(self, path: Path, mode: int = 0o777) -> Operation[None]:
        with naming(path):
            if not encode(path).strip(b"/"):
                raise Refused(errno.EEXIST, "client/mkdir", "the root directory exists")
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.MkdirRequest(parent=parent, name=name, mode=mode)
            yield self.meta(meta_pb2.MKDIR, request)

    def mknod(self, path: Path, mode: int, device: int) -> Operation[None]:
        with naming(path):
            kind = type_of_mode(mode)
            if kind in (None, meta_pb2.DIRECTORY, meta_pb2.LINK_SYMBOLIC):
                raise Refused(errno.EINVAL, "client/mknod", f"mode {mode:o} is no type of a node")
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.CreateRequest(
                parent=parent, name=name, mode=mode & 0o7777, type=kind, rdev=device, exclusive=True
            )
            yield self.meta(meta_pb2.CREATE, request)

    def makedirs(self, path: Path, mode: int = 0o777, *, exist_ok: bool = False) -> Operation[None]:
        missing: list[Path] = []
        at: bytes = encode(path).rstrip(b"/") or b"/"
        # From the leaf up to the first that exists, so an existing tree costs one call.
        while at != b"/" and not (yield from self.is_dir(at)):
            missing.append(decode(at))
            at = os.path.dirname(at)
        if not missing and not exist_ok:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        for each in reversed(missing):
            try:
                yield from self.mkdir(each, mode)
            except FileExistsError:  # somebody else was faster; a file there is an error
                if (each is missing[0] and not exist_ok) or not (yield from self.is_dir(each)):
                    raise

    def rmdir(self, path: Path) -> Operation[None]:
        with naming(path):
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.RmdirRequest(parent=parent, name=name)
            yield self.meta(meta_pb2.RMDIR, request)

    def unlink(self, path: Path) -> Operation[None]:
        with naming(path):
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.UnlinkRequest(parent=parent, name=name)
            yield self.meta(meta_pb2.UNLINK, request)

    def rename(self, source: Path, target: Path, flags: int = 0) -> Operation[None]:
        with naming(source, target):
            old_directory, old_name = split(source)
            new_directory, new_name = split(target)
            old_parent = yield from self._directory(old_directory)
            new_parent = old_parent
            if new_directory != old_directory:
                new_parent = yield from self._directory(new_directory)
            request = meta_pb2.RenameRequest(
                old_parent=old_parent,
                old_name=old_name,
                new_parent=new_parent,
                new_name=new_name,
                flags=flags,
            )
            yield self.meta(meta_pb2.RENAME, request)

    def symlink(self, target: Path, path: Path) -> Operation[None]:
        with naming(target, path):
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.SymlinkRequest(parent=parent, name=name, target=os.fsencode(target))
            yield self.meta(meta_pb2.SYMLINK, request)

    def readlink(self, path: Path) -> Operation[str]:
        with naming(path):
            attr = yield from self._find(path, follow=False)
            request = meta_pb2.ReadlinkRequest(inode=attr.inode)
            reply = yield self.meta(meta_pb2.READLINK, request)
            return decode(meta_pb2.ReadlinkReply.FromString(reply).target)

    def link(self, source: Path, path: Path) -> Operation[None]:
        """Another name for a file; a symbolic link at `source` is linked itself, as by ln -P."""
        with naming(source, path):
            attr = yield from self._find(source, follow=False)
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.LinkRequest(inode=attr.inode, parent=parent, name=name)
            yield self.meta(meta_pb2.LINK, request)

    def link_opened(self, opened: Opened, path: Path) -> Operation[None]:
        with naming(path):
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.LinkRequest(inode=opened.inode, parent=parent, name=name)
            yield self.meta(meta_pb2.LINK, request)

    # ---- directories ----

    def _pages(self, inode: int, *, attributes: bool) -> Operation[list[meta_pb2.DirEntry]]:
        entries: list[meta_pb2.DirEntry] = []
        cookie = 0
        while True:
            request = meta_pb2.ReaddirRequest(
                inode=inode,
                cookie=cookie,
                limit=limits.READDIR_ENTRIES_MAX,
                attributes=attributes,
            )
            reply = meta_pb2.ReaddirReply.FromString((yield self.meta(meta_pb2.READDIR, request)))
            entries += (entry for entry in reply.entries if entry.name not in (b".", b".."))
            if reply.end or not reply.entries:
                return entries
            cookie = reply.entries[-1].cookie

    def listdir(self, path: Path) -> Operation[list[str]]:
        with naming(path):
            attr = yield from self._find(path, follow=True)
            entries = yield from self._pages(attr.inode, attributes=False)
            return [decode(entry.name) for entry in entries]

    def scandir(self, path: Path, follow: Follow | None = None) -> Operation[list[DirEntry]]:
        with naming(path):
            attr = yield from self._find(path, follow=True)
            entries = yield from self._pages(attr.inode, attributes=True)
            where = os.fsdecode(path)
            return [
                DirEntry(where, decode(entry.name), _attr_of(entry), follow) for entry in entries
            ]

    def rmtree(self, path: Path) -> Operation[None]:
        """Removes a directory and all below it: one call, whatever its size. A symbolic link is
        refused, as by shutil.rmtree."""
        with naming(path):
            directory, name = split(path)
            parent = yield from self._directory(directory)
            request = meta_pb2.RemoveTreeRequest(parent=parent, name=name)
            yield self.meta(meta_pb2.REMOVE_TREE, request)

    # ---- files ----

    def open(self, path: Path, flags: int, mode: int = 0o666) -> Operation[Opened]:
        """`flags` are os.O_*. The service applies O_CREAT, O_EXCL and O_TRUNC."""
        with naming(path):
            for _ in range(_RACES_MAX):
                try:
                    return (yield from self._open_once(path, flags, mode))
                except Fs3Error as error:
                    raced = error.errno in (errno.ESTALE, errno.ENOENT) and flags & os.O_CREAT
                    if not raced:
                        raise
            return (yield from self._open_once(path, flags, mode))

    def _open_once(self, path: Path, flags: int, mode: int) -> Operation[Opened]:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            parent = yield from self._directory(encode(path))
            return (yield from self._create(parent, b"", flags, mode))
        if flags & os.O_CREAT and flags & os.O_EXCL:
            directory, name = split(path)
            parent = yield from self._directory(directory)
            return (yield from self._create(parent, name, flags, mode))
        found = yield from self._resolve(encode(path), follow=not flags & os.O_NOFOLLOW)
        if not found.HasField("entry"):
            if not flags & os.O_CREAT:
                raise Refused(errno.ENOENT, "client/open", f"no entry {found.name!r}")
            if encode(path).endswith(b"/"):
                raise Refused(errno.EISDIR, "client/open", "a name that ends in / is a directory")
            return (yield from self._create(found.parent, found.name, flags, mode))
        attr = found.entry.attr
        if attr.type == meta_pb2.DIRECTORY:
            raise Refused(errno.EISDIR, "client/open", "it is a directory; list it with scandir")
        if flags & os.O_TRUNC:
            yield Settle(attr.inode)
        request = meta_pb2.OpenRequest(inode=attr.inode, flags=flags & ~os.O_CREAT)
        reply = yield self.meta(meta_pb2.OPEN, request)
        return self._opened(reply, flags)

    def _create(self, parent: int, name: bytes, flags: int, mode: int) -> Operation[Opened]:
        request = meta_pb2.CreateRequest(
            parent=parent,
            name=name,
            mode=mode,
            type=meta_pb2.FILE,
            exclusive=bool(flags & os.O_EXCL),
            open=True,
            flags=flags,
        )
        reply = yield self.meta(meta_pb2.CREATE, request)
        return self._opened(reply, flags)

    def _opened(self, reply: bytes, flags: int) -> Opened:
        parsed = meta_pb2.OpenReply.FromString(reply)
        inode = parsed.attr.inode
        if flags & os.O_TRUNC and not parsed.created:
            self._native.note_truncated(inode, 0, parsed.attr.version)
        handle = self._native.open_handle(reply, flags)
        local = self._native.local_size(inode, parsed.attr.version)
        size = parsed.attr.size if local is None else local[0]
        return Opened(handle, inode, parsed.session, size)

    def close(self, opened: Opened, path: Path) -> Operation[None]:
        """The handle is dead afterwards, whatever the outcome."""
        with naming(path):
            yield Close(opened.handle)

    def one(self, call: Call, path: Path) -> Operation[object]:
        """A single call on an open file, its error named."""
        with naming(path):
            return (yield call)


def _name(owner: Owner) -> Path:
    return f"uid {owner}" if isinstance(owner, int) else owner


def _attr_of(entry: meta_pb2.DirEntry) -> meta_pb2.Attr:
    if entry.HasField("attr"):
        return entry.attr
    return meta_pb2.Attr(inode=entry.inode, type=entry.type)
