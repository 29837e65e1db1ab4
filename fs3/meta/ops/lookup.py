"""LOOKUP: one name in one directory."""

from fs3._proto import meta_pb2
from fs3.kv.api import Transaction
from fs3.meta import dirent
from fs3.meta import inode as inodes
from fs3.meta.context import Context
from fs3.meta.permission import EXECUTE, require


def lookup(
    txn: Transaction, request: meta_pb2.LookupRequest, context: Context
) -> meta_pb2.LookupReply:
    directory = inodes.load_directory(txn, request.parent, "lookup")
    require(directory, context.caller, EXECUTE, "lookup")
    dirent.check_name(request.name, "lookup")
    found = dirent.load(txn, request.parent, request.name, "lookup")
    inode = inodes.load(txn, found.inode, "lookup")
    return meta_pb2.LookupReply(entry=context.entry(inode))
