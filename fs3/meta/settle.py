"""What close, sync and the pruning of a dead client do with the writes of a session.

The length rule: size = max(size, written_end), as long as no truncate came after the session was
opened. If one did, `written_end` may name bytes from before it; then storage is asked where the
data really ends (the truncate removed what it cut before it was answered), and the smaller of the
two counts.
"""

import errno

from fs3 import limits
from fs3.kv.api import Transaction
from fs3.meta.context import Context
from fs3.meta.faults import refuse
from fs3.meta.inode import HAS_DATA, SPARSE, Inode
from fs3.meta.permission import Caller
from fs3.meta.privileges import drop_privileges
from fs3.meta.session import Session
from fs3.meta.truncate import wait_for_intent


def settle(
    txn: Transaction,
    inode: Inode,
    session: Session | None,
    context: Context,
    *,
    written_end: int,
    mtime_ns: int | None,
    measure: bool,
    where: str,
) -> None:
    """`measure`: holes may have come or gone, so storage is asked how much there is. Changes
    `inode` (the caller stores it). `session` is None when it was pruned. `mtime_ns` is the time of
    the last write by the client's clock, None = now."""
    if written_end > limits.FILE_BYTES_MAX:
        raise refuse(errno.EFBIG, where, f"written_end: {written_end} is beyond the largest file")
    wait_for_intent(txn, inode)
    behind = session is None or session.truncate_epoch != inode.truncate_epoch
    dense = not inode.flags & SPARSE
    if written_end > inode.size:
        if behind:
            written_end = min(written_end, context.measure(inode).length)
            measure = True
        inode.size = max(inode.size, written_end)
    if measure or not dense:
        inode.note_stored(context.measure(inode).stored)
    writer = Caller(session.uid, session.gid) if session is not None else context.caller
    drop_privileges(txn, inode, writer, root_keeps_mode=True)
    _content_changed(inode, context, mtime_ns)


def _content_changed(inode: Inode, context: Context, mtime_ns: int | None) -> None:
    inode.flags |= HAS_DATA
    inode.data_version += 1
    written_ns = min(mtime_ns, context.now_ns) if mtime_ns is not None else context.now_ns
    # Whoever looked between write and sync has seen the time of the write: it does not move again.
    inode.ctime_ns = max(inode.ctime_ns, written_ns)
    if inode.mtime_set_ns == 0:
        inode.mtime_ns = max(inode.mtime_ns, written_ns)
    elif written_ns > inode.mtime_set_ns:
        # Written after mtime was set explicitly. The other way round (cp -p sets the time of a
        # file it has written and not yet closed) the explicit time stays.
        inode.mtime_ns = written_ns
        inode.mtime_set_ns = 0
