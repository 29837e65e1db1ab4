"""A program that uses a mount without a pause, and checks everything: run by test_takeover.py.

python -m tests.cluster.takeover_user DIRECTORY: until a line comes on standard input. Any error of
any call, and any wrong byte, ends it with a traceback. Prints how many rounds it made.
"""

import os
import pathlib
import select
import sys

BLOCK = 64 << 10


def block(number: int) -> bytes:
    return number.to_bytes(8, "little") * (BLOCK // 8)


def asked_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main(directory: pathlib.Path) -> None:
    directory.mkdir()
    # Every write waits for its chains: what was answered is there, whoever was killed since.
    data = os.open(directory / "data", os.O_RDWR | os.O_CREAT | os.O_SYNC)
    unlinked = os.open(directory / "unlinked", os.O_RDWR | os.O_CREAT | os.O_SYNC)
    os.pwrite(unlinked, block(77), 0)
    os.unlink(directory / "unlinked")
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC)
    rounds = 0
    while not asked_to_stop():
        assert os.pwrite(data, block(rounds), rounds % 64 * BLOCK) == BLOCK
        assert os.pread(data, BLOCK, rounds % 64 * BLOCK) == block(rounds)
        os.write(log, b"%08d\n" % rounds)
        assert os.pread(unlinked, BLOCK, 0) == block(77)
        names(directory, rounds)
        rounds += 1
    os.close(log)
    lines = (directory / "log").read_bytes().split()
    assert lines == [b"%08d" % number for number in range(rounds)]
    assert os.fstat(data).st_size == min(rounds, 64) * BLOCK
    os.close(data)
    print(rounds)


def names(directory: pathlib.Path, number: int) -> None:
    """Each of these succeeds exactly once, or fails in the program."""
    one, two = directory / f"a{number}", directory / f"b{number}"
    # A write that was answered and not sent yet dies with the server, and close(2) says so.
    file = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_SYNC)
    os.write(file, b"x")
    os.close(file)
    os.link(one, directory / "link")
    os.rename(one, two)
    os.mkdir(directory / "d")
    os.symlink("x", directory / "d" / "s")
    assert sorted(os.listdir(directory / "d")) == ["s"]
    os.unlink(directory / "d" / "s")
    os.rmdir(directory / "d")
    os.unlink(directory / "link")
    assert two.read_bytes() == b"x"
    os.unlink(two)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
