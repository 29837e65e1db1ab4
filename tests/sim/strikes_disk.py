"""The kinds of faults that strike disks: F4 full, F5 errors, F6 and F9 damage, F10 slow, F25
disks that come back old, blank, or in the wrong server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fs3.kv.api import transact
from fs3.mgmtd.state import TargetReport
from fs3.mgmtd.store import read_all
from fs3.mgmtd.transitions import Public
from fs3.types import ChainId, ChainVersion, TargetId
from tests.sim.loop import MS, S

if TYPE_CHECKING:
    from tests.sim.disk import Chunk, ChunkKey, Disk
    from tests.sim.faults import Nemesis
    from tests.sim.node import StorageNode

__all__ = ["KINDS"]


def _some_disk(n: Nemesis) -> tuple[StorageNode, int, Disk] | None:
    node = n.some_node()
    if node is None or not node.disks:
        return None
    target = n.random.choice(list(node.disks))
    return node, target, node.disks[target]


def eio(n: Nemesis) -> None:
    """A disk fails for good; later somebody replaces the cable and restarts the server."""
    found = _some_disk(n)
    if found is None:
        return
    node, _, disk = found
    n.landed["disk fails"] += 1
    disk.failing = True
    n.soon(
        n.random.randrange(S, 5 * S),
        lambda: disk.failing and n.crash(node, False, 100 * MS, "disk replaced"),
    )


def eio_once(n: Nemesis) -> None:
    """One read, write or sync fails, and then the disk works again. A failed write or sync is
    final all the same; later somebody restarts the server."""
    found = _some_disk(n)
    if found is None:
        return
    node, _, disk = found
    disk.fail_once.add(n.random.choice(("read", "write", "sync")))
    n.soon(
        n.random.randrange(S, 4 * S),
        lambda: node.disk_failed() and n.crash(node, False, 100 * MS, "disk restarted"),
    )


def disk_full(n: Nemesis) -> None:
    """No room beyond what is there; later there is again."""
    found = _some_disk(n)
    if found is None:
        return
    disk = found[2]
    disk.set_capacity(n.random.randrange(3000))

    def free() -> None:
        disk.set_capacity(None)

    n.later(n.random.randrange(3 * S), free)


def slow_disk(n: Nemesis) -> None:
    """A hundred times slower, on one target."""
    found = _some_disk(n)
    if found is None:
        return
    disk = found[2]
    n.landed["slow disk"] += 1
    disk.slowness = 100

    def recover() -> None:
        disk.slowness = 1

    n.later(n.random.randrange(3 * S), recover)


def bit_flip(n: Nemesis) -> None:
    """Bytes rot where they lie, or were never written though the device said so. The promise needs
    a sound copy: another target that serves has one."""
    found = _some_disk(n)
    if found is None:
        return
    _, target, disk = found
    keys = [key for key, chunk in disk.chunks() if _sound_elsewhere(n, target, key, chunk)]
    if keys and disk.damage(n.random.choice(keys)):
        n.landed["bit flip"] += 1


def _sound_elsewhere(n: Nemesis, target: int, key: ChunkKey, chunk: Chunk) -> bool:
    if chunk.committed is None:
        return False
    chain = n.world.state.chains[ChainId(n.world.placed[target][1])]
    for other in chain.targets:
        disk = n.world.disk(other.id)
        held = disk.chunk(key).committed
        same = held is not None and held.position == chunk.committed.position
        serves = other.id != target and other.public is Public.SERVING
        if serves and same and not disk.is_damaged(key, held):
            return True
    return False


def old_disk(n: Nemesis) -> None:
    """A disk that was taken out a while ago comes back, as it was then."""
    found = _some_disk(n)
    if found is None:
        return
    node, target, disk = found
    image = disk.image()
    n.soon(
        n.random.randrange(S, 4 * S),
        lambda: _while_out(n, node, target, lambda: disk.replace_with(image), "old disk"),
    )


def blank_disk(n: Nemesis) -> None:
    """A disk is replaced by a blank one, or somebody formatted it."""
    found = _some_disk(n)
    if found is not None:
        node, target, disk = found
        _while_out(n, node, target, lambda: disk.replace_with(None), "blank disk")


def _while_out(
    n: Nemesis, node: StorageNode, target: int, act: Callable[[], None], kind: str
) -> None:
    """Kills the server, and acts on its disk once mgmtd counts on the target no more. The promise
    needs one replica whose disk is whole: nobody touches the last one."""
    if not node.alive:
        return
    incarnation = node.incarnation
    node.crash(power_loss=False)
    n.report_exit_now(node, incarnation)
    stored = transact(n.world.store.inner, read_all)  # what is published may be behind it
    assert stored is not None
    chain = stored.chains[ChainId(n.world.placed[target][1])]
    public = next(t.public for t in chain.targets if t.id == target)
    others = {t.id for t in chain.targets if t.id != target}
    whole = public not in (Public.SERVING, Public.LASTSRV) and not others & n.world.replaced
    whole = whole and not any(n.world.disk(other).damaged() for other in others)
    if whole and not chain.forming:
        n.world.replaced.add(target)
        n.landed[kind] += 1
        n.world.loop.note(kind, target)
        act()
    n.restart(node, n.random.randrange(2 * S))


def strange_disk(n: Nemesis) -> None:
    """A copy of another server's disk is put in: one target id twice. The server is refused until
    it is taken out."""
    node = n.some_node()
    foreign = [t for t, (holder, _) in n.world.placed.items() if node and holder != node.id]
    if node is None or not foreign:
        return
    target = n.random.choice(foreign)
    chain = n.world.placed[target][1]
    version = n.world.state.chains[ChainId(chain)].version
    n.landed["same target twice"] += 1
    node.strange = TargetReport(TargetId(target), 1, ChainId(chain), ChainVersion(version), 1)

    def take_out() -> None:
        node.strange = None

    n.later(n.random.randrange(2 * S), take_out)


KINDS = (
    eio,
    eio_once,
    disk_full,
    slow_disk,
    bit_flip,
    old_disk,
    blank_disk,
    strange_disk,
)
