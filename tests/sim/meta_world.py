"""The whole of it: file system clients, the metadata service, and the chains under it.

    python -m tests.sim.meta_world --seeds 100
    python -m tests.sim.meta_world --seed 7 --trace

At the end: what World checks, fsck of the name space, the tree of the oracle, and the chunks on the
disks against the inodes (I17 to I23).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

from fs3.kv import keys
from fs3.kv.api import KEY_END
from fs3.meta import dirent
from fs3.meta.fsck import fsck, live_files
from tests.sim.bugs import Bugs
from tests.sim.client import Client
from tests.sim.cluster import Tips, Trace, World
from tests.sim.disk import ChunkKey, DiskFaults
from tests.sim.ledger import CELL, Operation, Violation
from tests.sim.loop import MS, Process, S
from tests.sim.meta_client import MetaClient
from tests.sim.meta_oracle import Oracle
from tests.sim.meta_server import FILE_CHUNK, MetaServer, chain_of
from tests.sim.network import Endpoint, NetworkFaults
from tests.sim.plan import Load, Plan
from tests.sim.store import FaultyStore, StoreFaults

__all__ = ["MetaWorld", "draw", "main", "simulate_meta"]

STRIKES = ("kill", "power", "pause", "partition", "restart_manager", "eio", "leave", "clog")


def draw(seed: int) -> Plan:
    """Of the storage below, little: its own simulation has that. Of messages from long ago, writes
    that their clients gave up, which may come after the file was collected."""
    random = Random(f"meta plan {seed}")
    kinds = random.sample(STRIKES, random.choice((0, 0, 1, 2)))
    return Plan(
        nodes=3,
        replicas=random.choice((1, 2, 3)),
        managers=random.choice((1, 2)),
        lease_ns=2 * S,
        load=Load(
            clients=random.randrange(1, 4),
            channels=random.randrange(1, 3),
            chains=random.choice((1, 2, 3)),
            chunks=0,
            mix=(0, 0, 0, 0),
            think_ns=random.choice((20, 100, 300)) * MS,
            deadline_ns=8 * S,
            duration_ns=random.randrange(6, 16) * S,
        ),
        network=NetworkFaults(
            loss=random.choice((0.0, 0.02, 0.1)),
            duplicate=random.choice((0.0, 0.1, 0.5)),
            slow=random.choice((0.0, 0.1)),
            slow_ns=300 * MS,
            reset=random.choice((0.0, 0.05)),
        ),
        disk=DiskFaults(),
        store=StoreFaults(
            conflict=random.choice((0.0, 0.2)), unknown=random.choice((0.0, 0.005, 0.02))
        ),
        drift=0.0,
        strikes={kind: random.randrange(1500, 5000) * MS for kind in sorted(kinds)},
    )


class MetaWorld(World):
    liveness_ns = 240 * S  # silent clients are given up after a minute

    def __init__(self, plan: Plan, seed: int, bugs: Bugs, trace: Trace | None = None) -> None:
        random = Random(f"meta {seed}")
        self.dies_before_reply = random.choice((0.0, 0.0, 0.02))
        self.meta_kill_ns = random.choice((0, 0, 1500, 4000)) * MS
        self.client_dies_ns = random.choice((0, 0, 3000)) * MS
        self.gives_up = Random(f"meta gives up {seed}").choice((0.0, 0.0, 0.3))
        self.wall_jump_ns = 0
        self.directories = [1]
        self.dead_clients = 0
        super().__init__(plan, seed, bugs, trace)
        self.oracle = Oracle(self.loop)
        self.oracle.grows = self._may_have_grown
        self.meta_kv = FaultyStore(self.loop.random, self.landed)
        self.meta_kv.observer = self.oracle.committed
        self.meta = MetaServer(self)
        self._cuts: dict[int, int] = {}  # inode -> when its last truncate ended
        self._cutting: Counter[int] = Counter()  # inode -> truncates that have not ended
        self._writes: dict[ChunkKey, list[Operation]] = {}

    def _clients(self) -> list[Client]:
        return [MetaClient(self, n + 1) for n in range(self.load.clients)]

    def chain_of(self, chunk: ChunkKey) -> int:
        return chain_of(chunk[0], chunk[1], sorted(self.state.chains))

    def everybody(self) -> Iterator[Process]:
        yield from super().everybody()
        yield self.meta

    def watchers(self) -> Iterator[Endpoint]:
        yield from super().watchers()
        yield self.meta

    def some_directory(self) -> int:
        return self.loop.random.choice(self.directories[-4:])

    # ---- what clients tell

    def truncating(self, inode: int) -> None:
        """Until it is answered - for ever, when the client dies - it may cut anything."""
        self._cutting[inode] += 1

    def truncated(self, inode: int, answered: bool) -> None:
        if answered:
            self._cutting[inode] -= 1
            self._cuts[inode] = self.loop.now_ns

    def wrote(self, inode: int, index: int, operation: Operation) -> None:
        """Before it is sent."""
        self._writes.setdefault((inode, index), []).append(operation)

    def _may_have_grown(self, inode: int, size: int, since_ns: int) -> bool:
        return any(
            index * FILE_CHUNK + (o.first + o.count) * CELL >= size
            and (not o.ok or o.ended_ns is None or o.ended_ns >= since_ns)
            for (number, index), operations in self._writes.items()
            if number == inode
            for o in operations
        )

    # ---- phases

    def _start_load(self) -> None:
        self.meta.start()
        self.meta_kv.faults = self.plan.store
        super()._start_load()
        for every_ns, strike in (
            (self.meta_kill_ns, self._kill_meta),
            (self.client_dies_ns, self._kill_client),
        ):
            if every_ns:
                self._strike_every(every_ns, strike)

    def _strike_every(self, every_ns: int, strike) -> None:  # type: ignore[no-untyped-def]
        def later() -> None:
            if self.nemesis.on:
                strike()
                self._strike_every(every_ns, strike)

        self.loop.after(int(self.loop.random.expovariate(1.0) * every_ns), later)

    def _kill_meta(self) -> None:
        if self.meta.alive:
            self.landed["meta killed"] += 1
            self.wall_jump_ns += self.loop.random.choice((0, 3600, -3600)) * S
            self.meta.end_and_come_back()

    def _kill_client(self) -> None:
        """With open sessions; it comes back only to be asked to stop."""
        alive = [c for c in self.clients if c.alive and isinstance(c, MetaClient)]
        if len(alive) > 1:
            self.landed["client dies"] += 1
            self.dead_clients += 1
            self.loop.random.choice(alive).die()

    def _lose_power(self) -> None:
        super()._lose_power()
        self.meta_kv.faults = StoreFaults()
        self.meta.crash()
        self.meta.start()

    def _stuck(self) -> str:
        self.meta_kv.faults = self.plan.store if self.nemesis.on else StoreFaults()
        below = super()._stuck()
        if below or self.nemesis.on or not self.clients[0].stopping:
            return below
        if not self.meta.alive:
            return "the metadata service is down"
        if self.meta.jobs.busy:
            return "the metadata service has jobs that wait for storage"
        for name, prefix in (
            ("gc queue", keys.GARBAGE),
            ("trees in removal", keys.TREE),
            ("tombstones", keys.TOMBSTONE),
            ("sessions", keys.SESSION),
            ("truncates", keys.INTENT),
        ):
            if self._rows(prefix):
                return f"rows are left: {name}"
        return ""

    def _rows(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        txn = self.meta_kv.inner.begin()
        try:
            return txn.get_range(prefix, keys.prefix_end(prefix) if prefix else KEY_END)
        finally:
            txn.cancel()

    # ---- checks at the end

    def _check(self) -> Tips:
        tips = super()._check()
        findings = fsck(self.meta_kv.inner)
        if findings:
            raise Violation("I28", f"fsck: {findings}")
        self._check_tree()
        self._check_chunks()
        self._check_written()
        self._check_sessions()
        return tips

    def _check_tree(self) -> None:
        stored = {}
        for key, record in self._rows(keys.DENTRY):
            parent, order, name = keys.dentry_fields(key)
            stored[parent, name] = dirent.decode(name, record, order).inode
        numbers = {id(node): inode for inode, node in self.oracle.nodes.items()}
        expected = {
            (inode, name): numbers[id(child)]
            for inode, node in self.oracle.nodes.items()
            for name, child in node.children.items()
            if not node.removed
        }
        if stored != expected:
            difference = sorted(set(stored.items()) ^ set(expected.items()))
            raise Violation("I17", f"the tree differs from the model's at {difference[:5]}")

    def _check_sessions(self) -> None:
        """The limit of open files counts those that are open. Who is silent is being forgotten."""
        if self.meta.store is None:
            return
        rows = Counter(
            keys.client_session_fields(key)[0] for key, _ in self._rows(keys.CLIENT_SESSION)
        )
        clients = self.meta.store.env.clients
        for client, entry in clients._clients.items():
            if entry.sessions != rows[client] and not clients.is_silent(client):
                raise Violation(
                    "I28",
                    f"{entry.sessions} sessions of {client!r} are counted, "
                    f"there are {rows[client]}",
                )

    def _check_chunks(self) -> None:
        """I23, and I22 from above: nothing on storage that no file explains."""
        files = {file.inode: file.size for file in live_files(self.meta_kv.inner)}
        for target, (_, chain) in self.placed.items():
            for (inode, index), chunk in self.disk(target).chunks():
                if chunk.committed is None:
                    continue
                end = index * FILE_CHUNK + len(chunk.committed.data)
                if inode not in files:
                    raise Violation("I23", f"chunk {index} of removed inode {inode} is left")
                # What a dead client had under way was measured when its sessions ended.
                writes = self._writes.get((inode, index), ())
                unknown = any(o.ended_ns is not None and not o.ok for o in writes)
                if end > files[inode] and not unknown:
                    raise Violation("I23", f"inode {inode} ends at {files[inode]}, data at {end}")
                if self.chain_of((inode, index)) != chain:
                    raise Violation("I23", f"chunk {index} of inode {inode} is on chain {chain}")
        self._check_lengths(files)

    def _check_lengths(self, files: dict[int, int]) -> None:
        if self.dead_clients:
            return  # their files have the length that storage told, which the log does not show
        for inode, size in files.items():
            node = self.oracle.nodes[inode]
            if node.size != size:
                raise Violation("I22", f"inode {inode} has length {size}, the model {node.size}")

    def _check_written(self) -> None:
        """Acknowledged bytes of files that still have a name are there, if no truncate came. An
        open waits until a truncate before it has cut what it cuts."""
        for (inode, index), operations in self._writes.items():
            node = self.oracle.nodes[inode]
            cut_ns = self.oracle.cuts.get(inode, (-1, b""))[0]
            done = [o for o in operations if o.ok and o.opened_ns > cut_ns]
            if not self._cutting[inode]:
                ended_ns = self._cuts.get(inode, -1)
                done += [o for o in operations if o.ok and o.began_ns > ended_ns]
            if node.removed or not done:
                continue
            chain = self.state.chains[self.chain_of((inode, index))]  # type: ignore[index]
            chunk = self.disk(chain.targets[0].id).chunk((inode, index))
            if chunk.committed is None:
                raise Violation("I1", f"chunk {index} of inode {inode} is gone; {done[-1]}")
            end = max((o.first + o.count) * CELL for o in done)
            if len(chunk.committed.data) < end:
                raise Violation("I1", f"chunk {index} of inode {inode} is cut; {done[-1]}")


def simulate_meta(
    seed: int,
    bugs: Bugs | None = None,
    trace: Trace | None = None,
    *,
    clients: int = 0,
    changes: Mapping[str, str] | None = None,
) -> MetaWorld:
    plan = draw(seed).changed(changes or {})
    if clients:
        plan = replace(plan, load=replace(plan.load, clients=clients))
    bugs = bugs or Bugs()
    with bugs.planted():
        world = MetaWorld(plan, seed, bugs, trace)
        world.run()
    return world


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.meta_world")
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    logging.getLogger("fs3").addHandler(logging.NullHandler())
    first, count = (options.seed, 1) if options.seed else (options.first, options.seeds)
    landed: Counter[str] = Counter()
    executed = replayed = 0
    failed = []
    begin_s = time.process_time()
    for seed in range(first, first + count):
        if options.seed:
            print(f"seed {seed}: {draw(seed)}")
        try:
            world = simulate_meta(seed, trace=print if options.trace else None)
        except Violation as violation:
            failed.append(seed)
            print(f"FAIL {violation} -> python -m tests.sim.meta_world --seed {seed} --trace")
            continue
        landed.update(world.landed)
        executed += world.oracle.executed
        replayed += world.oracle.replayed
    spent_s = time.process_time() - begin_s
    print(
        f"{count} seeds, {count / spent_s:.1f} schedules/s per core, {executed} operations of the "
        f"name space, {replayed} repeated requests recognised"
    )
    print("landed: " + ", ".join(f"{name} {n}" for name, n in landed.most_common()))
    if failed:
        print(f"{len(failed)} seeds failed: {failed}")
    return 1 if failed or not landed or not replayed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
