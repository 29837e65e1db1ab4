"""Histories of one chunk for the tests of the simulator's checkers: made by a real atomic row of
cells under random delays, so they are linearizable until somebody damages them."""

from random import Random

from tests.sim.ledger import CELL, CELLS, Operation
from tests.sim.witness import Applied

CHUNK = (1, 0)


def atomic_history(
    seed: int, *, clients: int, operations: int, unknown: float = 0.0, mix=(5, 5, 1, 0)
) -> tuple[list[Operation], list[Applied]]:
    """`operations` of each of `clients`; a share `unknown` of the updates is never answered, and
    half of those never happens."""
    random = Random(seed)
    made: list[tuple[int, Operation, bool]] = []  # when it takes effect
    for client in range(clients):
        now = random.randrange(10)
        for sequence in range(1, operations + 1):
            kind = random.choices(("write", "read", "truncate", "remove"), mix)[0]
            first = random.randrange(CELLS)
            operation = Operation(
                number=len(made) + 1,
                kind=kind,
                chunk=CHUNK,
                identity=None if kind == "read" else (bytes([client + 1]) * 16, 0, sequence),
                began_ns=now,
                first=first,
                count=random.randrange(1, CELLS - first + 1),
            )
            effect = now + random.randrange(1, 20)
            operation.ended_ns = effect + random.randrange(1, 20)
            operation.ok = kind == "read" or random.random() >= unknown
            happens = operation.ok or random.random() < 0.5
            if not operation.ok:
                effect += random.randrange(200)
            made.append((effect, operation, happens))
            now = operation.ended_ns + random.randrange(1, 8)
    return _replayed(made)


def _replayed(made) -> tuple[list[Operation], list[Applied]]:
    history: list[Applied] = []
    content, position = b"", None
    for _, operation, happens in sorted(made, key=lambda item: (item[0], item[1].number)):
        if operation.kind == "read":
            operation.data, operation.position = content, position
        elif happens:
            content = operation.applied_to(content)
            position = 1, len(history) + 1
            operation.version = position[1]
            stored = None if operation.kind == "remove" else content
            history.append(Applied(position, operation.identity, stored))
    return [operation for _, operation, _ in made], history


def stale_read(operations: list[Operation], random: Random) -> bool:
    """One read sees what another read saw long before. False: no place for it."""
    reads = [o for o in operations if o.kind == "read" and o.ok]
    pairs = [
        (old, new)
        for old in reads
        for new in reads
        if old.ended_ns < new.began_ns and old.position != new.position
    ]
    far = [(a, b) for a, b in pairs if (b.position or (1, 0))[1] - (a.position or (1, 0))[1] > 12]
    if not far:
        return False
    old, new = random.choice(far)
    new.data, new.position = old.data, old.position
    return True


def mixed_read(operations: list[Operation], random: Random) -> bool:
    """One read sees half of one version and half of another, far older one."""
    reads = [o for o in operations if o.kind == "read" and len(o.data) == CELL * CELLS]
    if len(reads) < 2:
        return False
    new, old = max(reads, key=lambda o: o.position), min(reads, key=lambda o: o.position)
    half = CELL * CELLS // 2
    if old.data[half:] == new.data[half:] or old.data[:half] == new.data[:half]:
        return False
    new.data = old.data[:half] + new.data[half:]
    return True
