"""A service on RocksDB is killed (SIGKILL) while it works: what it acknowledged is there, fsck is
clean, and a retry of what was in flight is applied once."""

import signal
import subprocess
import sys
import textwrap

import pytest
from meta_world import PRINCIPAL, World

from fs3._proto import meta_pb2 as pb
from fs3.kv.rocksdb import RocksStore
from fs3.meta.call import Call
from fs3.meta.fsck import fsck

CHILD = """
import sys
from meta_world import PRINCIPAL, World
from test_meta_crash import batch
from fs3.kv.rocksdb import RocksStore
from fs3.meta.call import Call
world = World(RocksStore(sys.argv[1], owner="child"))
for number in range(int(sys.argv[2]), 10**6):
    calls = [Call(token, m, body, PRINCIPAL) for token, (m, body) in enumerate(batch(number))]
    answers = world.store.run(calls)
    assert all(answer.status == 0 for answer in answers), answers
    print(number, flush=True)
"""


def batch(number: int) -> list[tuple[int, bytes]]:
    """Five requests: a directory, two files, one renamed; the other of the batch before goes."""

    def request(index: int, kind, **fields):
        header = pb.Header(client_id=b"client-aaaaaaaaa", request_id=number * 10 + index + 1)
        return kind(header=header, **fields).SerializeToString()

    old, new, doomed = b"old%d" % number, b"new%d" % number, b"doomed%d"
    requests = [
        (pb.MKDIR, request(0, pb.MkdirRequest, parent=1, name=b"d%d" % number)),
        (pb.CREATE, request(1, pb.CreateRequest, parent=1, name=old)),
        (pb.CREATE, request(2, pb.CreateRequest, parent=1, name=doomed % number)),
        (
            pb.RENAME,
            request(3, pb.RenameRequest, old_parent=1, old_name=old, new_parent=1, new_name=new),
        ),
    ]
    if number:
        name = doomed % (number - 1)
        requests.append((pb.UNLINK, request(4, pb.UnlinkRequest, parent=1, name=name)))
    return requests


def expected_names(batches: int) -> set[bytes]:
    names = {b"doomed%d" % (batches - 1)}
    for number in range(batches):
        names |= {b"d%d" % number, b"new%d" % number}
    return names


@pytest.mark.parametrize("wanted", [2, 30, 150])
def test_kill_in_the_middle(tmp_path, wanted):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    acknowledged = -1
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= wanted:
            break
    child.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
    child.wait()
    child.stdout.close()

    kv = RocksStore(tmp_path, owner="after the kill")
    assert fsck(kv) == []
    world = World(kv)
    names = set(world.names())
    assert names in (expected_names(acknowledged + 1), expected_names(acknowledged + 2))
    # The client does not know whether its last batch was applied, and repeats both.
    for number in (acknowledged, acknowledged + 1):
        requests = enumerate(batch(number))
        calls = [Call(token, method, body, PRINCIPAL) for token, (method, body) in requests]
        assert {answer.status for answer in world.store.run(calls)} == {0}
    assert set(world.names()) == expected_names(acknowledged + 2)
    assert fsck(kv) == []
    kv.close()
