"""The first of the two transactions of a truncate (intent.py): new length, and what has to be
cut."""

import errno

from fs3 import limits
from fs3.kv import keys
from fs3.kv.api import Transaction
from fs3.meta import intent, session
from fs3.meta.context import Context, IntentPending
from fs3.meta.faults import refuse
from fs3.meta.inode import Inode
from fs3.meta.intent import TruncateIntent
from fs3.meta.privileges import drop_privileges


def wait_for_intent(txn: Transaction, inode: Inode) -> None:
    if txn.get(keys.intent(inode.number)) is not None:
        raise IntentPending(inode.number)


def truncate(txn: Transaction, inode: Inode, size: int, context: Context, where: str) -> None:
    """Changes `inode` (the caller stores it). Permission is the caller's business.

    Chunks are cut when some may lie beyond `size`: the file has data beyond it, or somebody has it
    open for writing, whose bytes the service has not heard of yet. A file that nobody ever wrote
    costs storage nothing.
    """
    if size > limits.FILE_BYTES_MAX:
        raise refuse(errno.EFBIG, where, f"size: {size}, at most {limits.FILE_BYTES_MAX}")
    wait_for_intent(txn, inode)
    open_for_write = session.is_open_for_write(txn, inode.number)
    if open_for_write or (inode.has_data and size < inode.size):
        inode.truncate_epoch += 1
        wanted = TruncateIntent(
            inode.number,
            open_for_write,
            inode.size,
            size,
            inode.truncate_epoch,
            context.env.service,
        )
        intent.store(txn, wanted)
        context.hold = inode.number
        if open_for_write:
            _refresh_own_sessions(txn, inode, context.client)
    inode.resize(size)
    inode.data_version += 1
    inode.mtime_ns = inode.ctime_ns = context.now_ns
    inode.mtime_set_ns = 0
    drop_privileges(txn, inode, context.caller, root_keeps_mode=True)


def _refresh_own_sessions(txn: Transaction, inode: Inode, client: bytes) -> None:
    """The client that truncates flushed before and forgets what it wrote beyond: what it says
    about its later writes can be believed. Sessions of others stay behind, and will have to
    measure."""
    for key, record in txn.get_range(*keys.sessions(inode.number)):
        held = session.decode(*keys.session_fields(key), record)
        if held.client == client:
            held.truncate_epoch = inode.truncate_epoch
            session.store(txn, held)
