"""READDIR: one page of a directory. "." and ".." are the client's to make; `parent` tells "..".

Cookies are a function of the name (fs3/kv/keys.py): they stay valid for ever, across restarts and
changes.
"""

from fs3 import limits
from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.permission import EXECUTE, READ, allowed, require

COOKIE_MAX = (1 << 63) - 1


def readdir(
    txn: Transaction, request: meta_pb2.ReaddirRequest, context: Context
) -> meta_pb2.ReaddirReply:
    directory = inodes.load_directory(txn, request.inode, "readdir")
    require(directory, context.caller, READ, "readdir")
    reply = meta_pb2.ReaddirReply(parent=directory.parent, lease=context.lease(directory.number))
    if request.cookie >= COOKIE_MAX:
        reply.end = True
        return reply
    limit = min(request.limit or limits.READDIR_ENTRIES_MAX, limits.READDIR_ENTRIES_MAX)
    page = dirent.listing(txn, directory.number, request.cookie, limit)
    # Attributes are what lookup would tell, so they need the right to search.
    attributes = request.attributes and allowed(directory, context.caller, EXECUTE)
    for found in page:
        inode = inodes.find(txn, found.inode) if attributes else None
        reply.entries.add(
            name=found.name,
            inode=found.inode,
            type=found.type,
            cookie=found.order,
            attr=inode.attr() if inode is not None else None,
        )
    reply.end = len(page) < limit
    return reply
