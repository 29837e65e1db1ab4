"""How a command ends: exit status and one sentence, whatever was raised; no traceback."""

import errno
import signal
import subprocess
import sys

import click
import pytest

from fs3.cli import _COMMANDS, _group, report
from fs3.cli.supervisor import ending


def raising(error: BaseException) -> int:
    def work() -> None:
        raise error

    return report(work)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (click.ClickException("not so"), 1, "fs3: not so\n"),
        (click.UsageError("not so"), 2, "not so"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), 4, "fs3: /a: No such file\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 5, "Permission denied"),
        (OSError(errno.ENOSPC, "No space left"), 1, "fs3: No space left\n"),
        (click.Abort(), 130, "interrupted"),
        (ZeroDivisionError("by zero"), 70, "internal error"),
    ],
)
def test_every_error_is_a_sentence(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == status
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text


def test_a_bug_shows_where_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FS3_DEBUG", "1")
    assert raising(KeyError("x")) == 70
    assert "Traceback" in capsys.readouterr().err


def test_the_code_of_ctx_exit_arrives() -> None:
    @click.command()
    @click.pass_context
    def unwell(ctx: click.Context) -> None:
        ctx.exit(3)

    assert report(lambda: unwell([], standalone_mode=False)) == 3


def test_a_reader_that_had_enough_is_no_error() -> None:
    script = "import sys; from fs3.cli import report; sys.exit(report(lambda: print('x' * 10**7)))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("name", [*_COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(lambda: _group([name, "--help"], prog_name="fs3", standalone_mode=False)) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: fs3 {name}")
    for parameter in _group.get_command(click.Context(_group), name).params:  # type: ignore[union-attr]
        hidden = isinstance(parameter, click.Option) and parameter.hidden
        told = isinstance(parameter, click.Argument) or getattr(parameter, "help", None)
        assert hidden or told, f"{name}: {parameter.name} has no help"


def test_endings_in_words() -> None:
    assert ending(-signal.SIGKILL) == "SIGKILL"
    assert ending(-99) == "signal 99"
    assert ending(2) == "exit status 2"
