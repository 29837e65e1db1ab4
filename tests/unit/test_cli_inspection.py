"""What `fs3 check` makes of chunks that no file accounts for."""

from fs3.cli.inspection import sort_references
from fs3.meta.fsck import NameSpace
from fs3.storage.checker import Difference

GONE, SWEPT_LATER = 7, 8
AFTER = NameSpace(
    findings=[],
    inodes=1,
    entries=0,
    files=[],
    ids_end=100,
    open_inodes=frozenset(),
    tombstones=frozenset({SWEPT_LATER}),
)


def leaked(inode: int) -> Difference:
    return Difference("leaked", 1, "no live file has this inode", (inode, 0))


def test_a_chunk_of_a_file_that_is_gone_is_leaked():
    found = sort_references([leaked(GONE)], AFTER, lambda difference: True)
    assert [difference.chunk for difference in found.leaked] == [(GONE, 0)]


def test_a_late_chunk_of_a_file_with_a_tombstone_is_the_business_of_gc():
    found = sort_references([leaked(SWEPT_LATER)], AFTER, lambda difference: True)
    assert (found.leaked, found.unclear) == ([], [])
