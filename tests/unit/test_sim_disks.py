"""The two disks of the simulator keep the same promises: one sequence of calls, one result."""

from collections import Counter
from random import Random

import pytest

from fs3.errors import Status
from tests.sim.disk import REMOVE, REPLACE, TRUNCATE, WRITE, Chunk, Disk, Version
from tests.sim.engine_disk import EngineDisk, Shape
from tests.sim.loop import Loop, Process, S
from tests.sim.model_disk import ModelDisk

WHO = b"client of 16 byt"
KEYS = [(7, index) for index in range(3)]


class Bench:
    """One disk, and a process that has it."""

    def __init__(self, seed: int, shape: Shape | None) -> None:
        self.loop = Loop(seed)
        self.process = Process(self.loop, "server")
        self.landed: Counter[str] = Counter()
        self.disk: Disk
        if shape is None:
            self.disk = ModelDisk(self.process, self.landed)
        else:
            self.disk = EngineDisk(self.process, self.landed, frozenset(), shape, f"test {seed}")
        self.process.begin_life()
        self.sequence = 0

    def wait(self) -> None:
        self.loop.after(11 * S, lambda: None)  # an empty queue is an error
        self.loop.run(self.loop.now_ns + 10 * S)

    def stage(
        self, key: tuple[int, int], kind: int, offset: int, length: int, data: bytes, commit: bool
    ) -> int:
        held = self.disk.chunk(key).committed
        self.sequence += 1
        answers: list[int] = []

        def told(code: int, _made: Version) -> None:
            answers.append(code)

        self.disk.stage(
            key,
            kind,
            (1, held.position[1] + 1 if held else 1),
            offset,
            length,
            data,
            (WHO, 1, self.sequence),
            commit,
            False,
            told,
        )
        assert not answers, "never answered from inside the call"
        self.wait()
        (code,) = answers
        return code

    def read(self, key: tuple[int, int]) -> tuple[int, bytes | None]:
        answers: list[tuple[int, bytes | None]] = []
        self.disk.read(key, False, lambda code, v, _: answers.append((code, v and v.data)))
        self.wait()
        (answer,) = answers
        return answer

    def commit(self, key: tuple[int, int], version: int) -> int:
        answers: list[int] = []
        self.disk.commit(key, version, self.sequence % 2 == 0, answers.append)
        self.wait()
        (code,) = answers
        return code

    def restart(self, power_loss: bool) -> None:
        self.disk.crash(power_loss)
        self.process.end_life()
        self.process.begin_life()
        self.disk.open()

    def state(self) -> object:
        rows = [row[:4] for row in sorted(self.disk.rows())]
        reads = [self.read(key) for key in KEYS]
        chunks = [(key, chunk) for key, chunk in self.disk.chunks() if chunk != Chunk()]
        return chunks, rows, reads


def turn(bench: Bench, random: Random) -> None:
    """One call that both must accept."""
    key = random.choice(KEYS)
    held = bench.disk.chunk(key)
    if held.pending is not None:
        if random.random() < 0.7:
            assert bench.commit(key, held.pending.position[1]) == 0
        else:
            bench.disk.discard(key)
            bench.wait()
        return
    kind = random.choice((WRITE, WRITE, WRITE, TRUNCATE, REPLACE, REMOVE))
    if kind == REMOVE and held.committed is None:
        return
    size = random.randrange(1, 30)
    data = random.randbytes(size) if kind in (WRITE, REPLACE) else b""
    offset = random.randrange(20) if kind == WRITE else 0
    length = 0 if kind == REMOVE else size
    assert bench.stage(key, kind, offset, length, data, random.random() < 0.6) == 0


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_same_calls_lead_to_the_same_disk(seed: int) -> None:
    shape = Shape.draw(seed)
    model, engine = Bench(seed, None), Bench(seed, shape)
    draws = Random(seed), Random(seed)
    for _ in range(60):
        for bench, random in zip((model, engine), draws, strict=True):
            turn(bench, random)
            if random.random() < 0.05:
                bench.restart(power_loss=False)
        assert model.state() == engine.state()
    engine.disk.verify()


def test_damage_is_reported_and_gone_with_new_bytes() -> None:
    shape = Shape(1000, 0, 0, 4096, 65536)
    for bench in (Bench(1, None), Bench(1, shape)):
        key = KEYS[0]
        assert bench.stage(key, WRITE, 0, 30, bytes(range(1, 31)), True) == 0
        held = bench.disk.chunk(key).committed
        assert bench.disk.damage(key)
        assert bench.disk.is_damaged(key, held)
        assert bench.read(key)[0] == Status.CHECKSUM_MISMATCH
        assert bench.disk.found_damaged(key, held)
        assert bench.stage(key, WRITE, 0, 30, bytes(range(1, 31)), True) == 0
        assert not bench.disk.is_damaged(key, bench.disk.chunk(key).committed)
        assert bench.read(key) == (0, bytes(range(1, 31)))


def test_an_image_is_what_was_durable_then() -> None:
    for bench in (Bench(1, None), Bench(1, Shape.draw(2))):
        key = KEYS[0]
        assert bench.stage(key, WRITE, 0, 3, b"old", True) == 0
        image = bench.disk.image()
        assert bench.stage(key, WRITE, 0, 3, b"new", True) == 0
        bench.disk.crash(False)
        bench.process.end_life()
        bench.disk.replace_with(image)
        bench.process.begin_life()
        bench.disk.open()
        assert bench.read(key) == (0, b"old")


def test_a_failing_disk_fails_for_good() -> None:
    for bench in (Bench(1, None), Bench(1, Shape.draw(3))):
        bench.disk.fail_once.add("sync")
        assert bench.stage(KEYS[0], WRITE, 0, 3, b"abc", True) == 5
        assert not bench.disk.fail_once
        bench.restart(power_loss=False)
        assert bench.stage(KEYS[1], WRITE, 0, 3, b"abc", True) == 0
