#!/usr/bin/env python3
"""Is a directory's file system POSIX (and Linux)? Every row of calls/ is carried out in it.

    python -m tests.posix.conformance DIR            all tables; prints assertions per call
    python -m tests.posix.conformance DIR rename     only these
    python -m tests.posix.conformance DIR --second DIR2   alice and bob work on another mount of it
    python -m tests.posix.conformance --list         the tables

Needs root: the rows are done by root and by two ordinary users. Exit status 0: every assertion
passed. What fs3 lacks today is in not_yet.py; an entry there that passes fails the run.
"""

import argparse
import contextlib
import dataclasses
import errno
import fnmatch
import os
import pathlib
import shutil
import stat
import sys
import tempfile
import time

from tests.posix import snapshot
from tests.posix.actors import Actors
from tests.posix.calls import TABLES
from tests.posix.not_yet import NOT_YET
from tests.posix.table import Case, Table, steps
from tests.posix.words import OK, Words

__all__ = ["Conformance", "Outcome", "remove", "report", "system_of"]

SECOND_PEOPLE = ("alice", "bob")
WAIT_SHOWN_S = 0.1  # who has no answer after this is waiting
SHOWN_FAILURES = 60
TOLD_CHARACTERS = 200
ERRNOS = frozenset(errno.errorcode.values()) | {"EOPNOTSUPP"}
CLOCK_REALTIME_COARSE = 5  # the clock of times in file systems; Python has no name for it


@dataclasses.dataclass
class Outcome:
    """How the assertions of a table, or of all, went."""

    cases: int = 0
    passed: int = 0
    failed: int = 0
    missing: int = 0  # failed, and known not to be there yet
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.cases += other.cases
        self.passed += other.passed
        self.failed += other.failed
        self.missing += other.missing
        self.failures += other.failures


def system_of(directory: pathlib.Path) -> str:
    """The file system's type as the rows name it."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            kind = fields[fields.index("-") + 1]
            return "fs3" if kind.startswith("fuse") else kind
    return "unknown"


class Conformance:
    """All runs take place in a new directory below `directory`."""

    def __init__(
        self,
        directory: pathlib.Path,
        actors: Actors,
        *,
        second: pathlib.Path | None = None,
        everybody: bool = True,
    ) -> None:
        """`second` shows the same as `directory`: there alice and bob work, what is prepared and
        looked at is here. Not `everybody`: each row by one of its people, in turn."""
        self.system = system_of(directory)
        self._actors = actors
        self._second = second
        self._everybody = everybody
        self._base = pathlib.Path(tempfile.mkdtemp(prefix="conformance-", dir=directory))
        self._base.chmod(0o755)
        self._number = 0
        self._stale = {pattern: True for pattern, _ in self._not_yet()}

    def close(self) -> None:
        remove(self._base)

    def run(self, table: Table) -> Outcome:
        outcome = Outcome()
        for case in self._chosen(table):
            outcome.add(self._judged(case.on(self.system)))
        return outcome

    def _chosen(self, table: Table) -> list[Case]:
        cases = [case for case in table.cases if not self._second or case.who in SECOND_PEOPLE]
        if self._everybody:
            return cases
        rows: dict[int, list[Case]] = {}
        for case in cases:
            rows.setdefault(case.row, []).append(case)
        return [row[number % len(row)] for number, row in rows.items()]

    def _place_of(self, name: str, place: pathlib.Path) -> str:
        """The same directory, as the mount of that person shows it."""
        if self._second is None or name not in SECOND_PEOPLE:
            return str(place)
        return str(self._second / self._base.name / place.name)

    def stale(self) -> list[str]:
        """Entries of not_yet.py that pass, or that no row matches."""
        return [pattern for pattern, unused in self._stale.items() if unused]

    def _not_yet(self) -> list[tuple[str, str]]:
        return NOT_YET if self.system == "fs3" else []

    def _judged(self, case: Case) -> Outcome:
        wrong = self.check(case)
        failures = [one for one in wrong if one]
        outcome = Outcome(cases=1, passed=len(wrong) - len(failures))
        patterns = [one for one, _ in self._not_yet() if fnmatch.fnmatchcase(str(case), one)]
        if failures and patterns:
            outcome.missing = len(failures)
            for pattern in patterns:
                self._stale[pattern] = False
        elif failures:
            outcome.failed = len(failures)
            outcome.failures.append(_told(case, failures))
        return outcome

    def check(self, case: Case) -> list[str]:
        """An entry per assertion, empty where it holds."""
        self._number += 1
        place = self._base / f"{self._number}"
        place.mkdir()
        place.chmod(0o777)
        used = self._people(case)
        try:
            for name in used:
                self._actors[name].reset(self._place_of(name, place))
            for step in steps(case.setup):
                words, _, expected = step.partition(" -> ")
                got = self._step(words, "root")
                if not _fits(got, expected or OK):
                    return [f"setup: {step}: {got}"]
            return self._act(case, place)
        finally:
            for name in used:
                self._actors[name].reset("/")
            remove(place)

    def _people(self, case: Case) -> list[str]:
        words = f"{case.setup} {case.action} {case.effects}".replace(":", " ").split()
        named = {word for word in words if word in ("alice2", "bob2", "root2", "alice", "bob")}
        return sorted({"root", case.who, *named})

    def _act(self, case: Case, place: pathlib.Path) -> list[str]:
        questions = [one[1:].strip() for one in steps(case.effects) if one[0] == "?"]
        effects = [one for one in steps(case.effects) if one[0] != "?"]
        before = snapshot.take(str(place))
        begin_ns = _after(max(entry.ctime for entry in before.values()))
        got = self._step(case.action, case.who)
        end_ns = time.time_ns()
        after = snapshot.take(str(place))
        fine = _fits(got, case.result)
        wrong = ["" if fine else f"got {got}, expected {case.result}"]
        wrong += snapshot.check_effects(effects, before, after, begin_ns, end_ns)
        for question in questions:
            step, _, expected = question.partition(" -> ")
            got = self._step(step, case.who)
            wrong.append("" if _fits(got, expected) else f"{step}: got {got}, expected {expected}")
        return wrong

    def _step(self, step: str, default: str) -> str:
        """The answer to `[start] [WHO:] WORDS`, `waits WHO` or `end WHO`."""
        word, _, rest = step.partition(" ")
        if word == "waits":
            return "yes" if self._actors[rest].busy(WAIT_SHOWN_S) else "no"
        if word == "end":
            return self._actors[rest].end()
        line = rest if word == "start" else step
        who, colon, words = line.partition(": ")
        if not colon:
            who, words = default, line
        actor = self._actors[who]
        if word == "start":
            actor.begin(words)
            return OK
        return actor.say(words)


def _told(case: Case, wrong: list[str]) -> str:
    lines = [str(case), f"    setup    {case.setup[:TOLD_CHARACTERS] or 'none'}"]
    lines += [f"    effects  {case.effects or 'none'}", *(f"    WRONG    {one}" for one in wrong)]
    return "\n".join(lines)


def _fits(answer: str, expected: str) -> bool:
    """ok is every value, and no errno."""
    accepted = expected.split("|")
    return answer in accepted or (OK in accepted and answer not in ERRNOS)


def _after(time_ns: int) -> int:
    """Waits until the clock of a kernel's file systems shows more than that; says what."""
    while (now := time.clock_gettime_ns(CLOCK_REALTIME_COARSE)) <= time_ns:
        time.sleep(0.001)
    return now


def remove(place: pathlib.Path) -> None:
    """The whole tree, inode flags taken off where they hold it."""
    try:
        shutil.rmtree(place)
    except OSError:
        words = Words()
        for path, directories, files in os.walk(place):
            for name in [".", *directories, *files]:
                full = os.path.join(path, name)
                if stat.S_ISREG(os.lstat(full).st_mode) or stat.S_ISDIR(os.lstat(full).st_mode):
                    words.say(f"setflags {full} 0")
        shutil.rmtree(place)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path, nargs="?")
    parser.add_argument("calls", nargs="*", help="only these tables")
    parser.add_argument("--second", type=pathlib.Path, help="another mount of the same directory")
    parser.add_argument("--quick", action="store_true", help="each row by one of its people")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    if options.list or options.directory is None:
        for table in TABLES:
            print(f"{table.call:<16} {len(table.cases)} cases")
        return 0 if options.list else 2
    if os.geteuid() != 0:
        print("this needs root: the rows are done by root and by two ordinary users")
        return 2
    unknown = set(options.calls) - {table.call for table in TABLES}
    if unknown:
        print(f"there is no table {', '.join(sorted(unknown))}; --list names them")
        return 2
    wanted = [table for table in TABLES if table.call in options.calls or not options.calls]
    with (
        Actors() as actors,
        contextlib.closing(
            Conformance(
                options.directory, actors, second=options.second, everybody=not options.quick
            )
        ) as suite,
    ):
        return report(suite, wanted, whole=not options.calls)[0]


def report(suite: Conformance, tables: list[Table], *, whole: bool) -> tuple[int, Outcome]:
    """Runs and prints; the exit status, 0 when all is well."""
    total = Outcome()
    begin_s = time.monotonic()
    for table in tables:
        outcome = suite.run(table)
        total.add(outcome)
        print(
            f"  {'FAIL' if outcome.failed else 'ok  '}  {table.call:<16}{_counts(outcome)}",
            flush=True,
        )
    for failure in total.failures[:SHOWN_FAILURES]:
        print(failure)
    if len(total.failures) > SHOWN_FAILURES:
        print(f"... and {len(total.failures) - SHOWN_FAILURES} more rows")
    stale = suite.stale() if whole else []
    for pattern in stale:
        print(f"not_yet.py: everything that {pattern!r} matches passes; take the entry out")
    print(
        f"{suite.system}: {_counts(total).strip()} in {time.monotonic() - begin_s:.0f} s"
        f" ({total.cases} cases)"
    )
    return 1 if total.failed or stale else 0, total


def _counts(outcome: Outcome) -> str:
    missing = f", {outcome.missing} not yet" if outcome.missing else ""
    return f"{outcome.passed:>6} assertions passed, {outcome.failed} failed{missing}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
