"""The verbs: one operation, one file, one pure function (txn, request, context) -> reply.

Pure: what it reads comes from the arguments, what it changes goes into the transaction, and the
rest it leaves in the context for the store. So it can be run again from the start at any time, and
in any order with others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import Message

from fs3._proto import meta_pb2 as pb
from fs3.kv.api import Transaction
from fs3.meta.context import Context
from fs3.meta.ops.access import access
from fs3.meta.ops.accessed import accessed
from fs3.meta.ops.allocate import allocate
from fs3.meta.ops.append import append
from fs3.meta.ops.close import close
from fs3.meta.ops.create import create
from fs3.meta.ops.get_quota import get_quota, list_quotas
from fs3.meta.ops.getattr import getattr_
from fs3.meta.ops.getxattr import getxattr
from fs3.meta.ops.keepalive import keepalive
from fs3.meta.ops.link import link
from fs3.meta.ops.listxattr import listxattr
from fs3.meta.ops.lookup import lookup
from fs3.meta.ops.mkdir import mkdir
from fs3.meta.ops.open import open_, writes
from fs3.meta.ops.readdir import readdir
from fs3.meta.ops.readlink import readlink
from fs3.meta.ops.remove_tree import remove_tree
from fs3.meta.ops.removexattr import removexattr
from fs3.meta.ops.rename import rename
from fs3.meta.ops.resolve import resolve
from fs3.meta.ops.rmdir import rmdir
from fs3.meta.ops.routing import get_routing
from fs3.meta.ops.set_quota import count_quota, set_quota
from fs3.meta.ops.setattr import setattr_
from fs3.meta.ops.setflags import setflags
from fs3.meta.ops.setxattr import setxattr
from fs3.meta.ops.statfs import statfs
from fs3.meta.ops.symlink import symlink
from fs3.meta.ops.sync import changes, sync
from fs3.meta.ops.unlink import unlink
from fs3.meta.trash import NEW_DIRECTORIES

__all__ = ["VERBS", "Verb"]


class Verb(NamedTuple):
    method: int  # fs3.meta.Method
    name: str
    request: type[Message]
    reply: type[Message]
    run: Callable[[Transaction, Any, Context], Message]
    mutates: Callable[[Any], bool]  # has to be applied exactly once
    creates: int = 0  # so many inode ids it may take
    has_header: bool = True
    may_be_durable: bool = False  # the request has a field `durable`


def _always(request: Message) -> bool:
    return True


def _never(request: Message) -> bool:
    return False


def _opens_for_write(request: pb.OpenRequest) -> bool:
    return writes(request.flags)


_TO_TRASH = NEW_DIRECTORIES

VERBS: dict[int, Verb] = {
    verb.method: verb
    for verb in (
        Verb(pb.LOOKUP, "lookup", pb.LookupRequest, pb.LookupReply, lookup, _never),
        Verb(pb.GETATTR, "getattr", pb.GetAttrRequest, pb.AttrReply, getattr_, _never),
        Verb(pb.SETATTR, "setattr", pb.SetAttrRequest, pb.AttrReply, setattr_, _always),
        Verb(pb.CREATE, "create", pb.CreateRequest, pb.OpenReply, create, _always, 1),
        Verb(pb.MKDIR, "mkdir", pb.MkdirRequest, pb.EntryReply, mkdir, _always, 1),
        Verb(pb.SYMLINK, "symlink", pb.SymlinkRequest, pb.EntryReply, symlink, _always, 1),
        Verb(pb.READLINK, "readlink", pb.ReadlinkRequest, pb.ReadlinkReply, readlink, _never),
        Verb(pb.LINK, "link", pb.LinkRequest, pb.EntryReply, link, _always),
        Verb(pb.UNLINK, "unlink", pb.UnlinkRequest, pb.RemoveReply, unlink, _always, _TO_TRASH),
        Verb(pb.RMDIR, "rmdir", pb.RmdirRequest, pb.RemoveReply, rmdir, _always, _TO_TRASH),
        Verb(
            pb.REMOVE_TREE,
            "remove_tree",
            pb.RemoveTreeRequest,
            pb.RemoveReply,
            remove_tree,
            _always,
            _TO_TRASH,
        ),
        Verb(pb.SET_QUOTA, "set_quota", pb.SetQuotaRequest, pb.QuotaReply, set_quota, _always),
        Verb(pb.GET_QUOTA, "get_quota", pb.GetQuotaRequest, pb.QuotaReply, get_quota, _never),
        Verb(
            pb.LIST_QUOTAS,
            "list_quotas",
            pb.ListQuotasRequest,
            pb.ListQuotasReply,
            list_quotas,
            _never,
        ),
        Verb(
            pb.COUNT_QUOTA,
            "count_quota",
            pb.CountQuotaRequest,
            pb.CountQuotaReply,
            count_quota,
            _always,
        ),
        Verb(pb.RENAME, "rename", pb.RenameRequest, pb.RenameReply, rename, _always, _TO_TRASH + 1),
        Verb(pb.OPEN, "open", pb.OpenRequest, pb.OpenReply, open_, _opens_for_write),
        Verb(pb.CLOSE, "close", pb.CloseRequest, pb.AttrReply, close, _always),
        Verb(pb.SYNC, "sync", pb.SyncRequest, pb.OpenReply, sync, changes, may_be_durable=True),
        Verb(pb.READDIR, "readdir", pb.ReaddirRequest, pb.ReaddirReply, readdir, _never),
        Verb(pb.STATFS, "statfs", pb.StatfsRequest, pb.StatfsReply, statfs, _never),
        Verb(pb.KEEPALIVE, "keepalive", pb.KeepaliveRequest, pb.KeepaliveReply, keepalive, _never),
        Verb(
            pb.GET_ROUTING,
            "routing",
            pb.GetRoutingRequest,
            pb.GetRoutingReply,
            get_routing,
            _never,
            has_header=False,
        ),
        Verb(pb.RESOLVE, "resolve", pb.ResolveRequest, pb.ResolveReply, resolve, _never),
        Verb(pb.ACCESS, "access", pb.AccessRequest, pb.AttrReply, access, _never),
        Verb(pb.ACCESSED, "accessed", pb.AccessedRequest, pb.AccessedReply, accessed, _never),
        Verb(pb.APPEND, "append", pb.AppendRequest, pb.AppendReply, append, _always),
        Verb(pb.ALLOCATE, "allocate", pb.AllocateRequest, pb.AttrReply, allocate, _always),
        Verb(pb.SETXATTR, "setxattr", pb.SetXattrRequest, pb.AttrReply, setxattr, _always),
        Verb(pb.GETXATTR, "getxattr", pb.GetXattrRequest, pb.GetXattrReply, getxattr, _never),
        Verb(pb.LISTXATTR, "listxattr", pb.ListXattrRequest, pb.ListXattrReply, listxattr, _never),
        Verb(
            pb.REMOVEXATTR,
            "removexattr",
            pb.RemoveXattrRequest,
            pb.AttrReply,
            removexattr,
            _always,
        ),
        Verb(pb.SETFLAGS, "setflags", pb.SetFlagsRequest, pb.AttrReply, setflags, _always),
    )
}
