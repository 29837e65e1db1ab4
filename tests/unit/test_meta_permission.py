"""Every permission decision against the oracle: 10,000 drawn cases, each asked of all rules."""

import errno

from hypothesis import given, settings
from hypothesis import strategies as st
from permission_oracle import (
    File,
    User,
    child,
    may,
    may_chown,
    may_link,
    mode_after_chmod,
    mode_after_write,
    remove_errno,
)

from fs3.meta import permission
from fs3.meta.inode import DIRECTORY, FILE, SYMLINK, Inode
from fs3.meta.permission import Caller

KINDS = {"file": FILE, "dir": DIRECTORY, "link": SYMLINK}
IDS = st.sampled_from([0, 1, 2, 3])
MODES = st.one_of(
    st.integers(0, 0o7777), st.sampled_from([0o755, 0o2770, 0o1777, 0o4711, 0o2755, 0o700])
)
FILES = st.builds(File, st.sampled_from(sorted(KINDS)), MODES, IDS, IDS)
DIRECTORIES = st.builds(File, st.just("dir"), MODES, IDS, IDS)
USERS = st.builds(User, IDS, st.lists(IDS, min_size=1, max_size=3).map(tuple))


def inode(file: File) -> Inode:
    kind = KINDS[file.kind]
    return Inode(5, kind, file.mode, 1, file.uid, file.gid, parent=1 if kind == DIRECTORY else 0)


def caller(user: User) -> Caller:
    return Caller(user.uid, user.groups[0], frozenset(user.groups[1:]))


def errno_name(call) -> str | None:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


@settings(max_examples=10_000, deadline=None)
@given(
    file=FILES,
    directory=DIRECTORIES,
    user=USERS,
    mode=MODES,
    uid=st.none() | IDS,
    gid=st.none() | IDS,
)
def test_every_rule_equals_the_oracle(file, directory, user, mode, uid, gid):
    target, parent, who = inode(file), inode(directory), caller(user)
    for want, letters in enumerate(["", "x", "w", "wx", "r", "rx", "rw", "rwx"]):
        expected = all(may(file, user, letter) for letter in letters)
        assert permission.allowed(target, who, want) == expected, letters
    removal = errno_name(lambda: permission.require_removal(parent, target, who, "test"))
    assert removal == remove_errno(directory, file, user)
    owner = errno_name(lambda: permission.require_owner(target, who, "test"))
    chmod = mode_after_chmod(file, user, mode)
    assert (owner == "EPERM") == (chmod is None)
    if chmod is not None:
        assert permission.mode_after_chmod(target, who, mode) == chmod
    if (uid, gid) != (None, None):
        assert permission.may_chown(target, who, uid, gid) == may_chown(file, user, uid, gid)
    assert permission.mode_without_privileges(target, who) == mode_after_write(file, user)
    for kind in ("file", "dir"):
        found = permission.inherited(parent, who, mode, is_directory=kind == "dir")
        assert found == child(directory, user, mode, kind)
    assert permission.may_link(target, who) == may_link(file, user)
