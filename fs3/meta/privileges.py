"""What a file loses when somebody changes its content or its owner: setuid, setgid, and the
capabilities that running it gives."""

from fs3.kv.api import Transaction
from fs3.meta import xattr
from fs3.meta.inode import Inode
from fs3.meta.permission import Caller, mode_without_privileges

__all__ = ["drop_privileges"]


def drop_privileges(
    txn: Transaction, inode: Inode, caller: Caller, *, root_keeps_mode: bool = False
) -> None:
    """Changes `inode` (the caller of this stores it). `root_keeps_mode`: a write by root leaves
    setuid and setgid; the capabilities go whoever it was."""
    if not (root_keeps_mode and caller.is_root):
        inode.mode = mode_without_privileges(inode, caller)
    if not inode.is_directory:
        xattr.drop_capability(txn, inode)
