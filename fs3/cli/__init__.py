"""The command `fs3`. Each command group lives in a file of its own and is imported when it is used,
so that `fs3 ls` does not pay for gRPC or rich."""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import click

_COMMANDS = {
    "up": ("fs3.cli.up", "Set up and run a whole cluster on this machine."),
    "down": ("fs3.cli.local", "Stop the local cluster (--erase: and forget its data)."),
    "ps": ("fs3.cli.local", "Processes of the local cluster."),
    "kill": ("fs3.cli.local", "Kill one process of the local cluster with SIGKILL; it comes back."),
    "status": ("fs3.cli.status", "Health, nodes, chains and capacity on one screen."),
    "mount": ("fs3.cli.mount", "Mount the file system."),
    "umount": ("fs3.cli.mount", "Unmount; says who keeps it busy."),
    "ls": ("fs3.cli.paths", "List a directory."),
    "cat": ("fs3.cli.paths", "Write files to standard output."),
    "cp": ("fs3.cli.paths", "Copy inside the file system."),
    "put": ("fs3.cli.paths", "Copy local files or trees into the file system."),
    "get": ("fs3.cli.paths", "Copy files or trees out of the file system."),
    "mv": ("fs3.cli.paths", "Rename."),
    "rm": ("fs3.cli.paths", "Remove files, or trees with -r."),
    "trash": ("fs3.cli.trash", "What was removed and is kept for a while."),
    "quota": ("fs3.cli.quota", "Limits of users and directory trees."),
    "stat": ("fs3.cli.paths", "Show the attributes of a path."),
    "info": ("fs3.cli.info", "Path to layout, chains and replicas."),
    "check": ("fs3.cli.check", "Compare all replicas and the name space with each other."),
    "selftest": ("fs3.cli.selftest", "Prove that the cluster works: real programs, and a kill."),
    "serve": ("fs3.cli.serve", "One daemon in the foreground: mgmtd, meta or storage."),
    "cluster": ("fs3.cli.cluster", "Make a new cluster."),
}


class LazyGroup(click.Group):
    """Commands by name, their modules imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option("0.1.0", prog_name="fs3")
def _group() -> None:
    """A distributed file system for training clusters.

    \b
    fs3 up                  a mounted, three-way replicated cluster on this machine
    fs3 status              is it well?
    fs3 kill storage-2      what happens when a node dies
    fs3 down                stop it; the data stays

    Paths inside the file system are /a/b; below the mount point its own paths will do. Commands
    find the cluster by --data, $FS3_DATA, ./fs3-data, or because it is the only one that runs.

    \b
    Exit status: 0 done, 1 failed, 2 wrong use, 3 not well (status, check),
    4 no such file, 5 not allowed, 6 mended (check), 130 interrupted.
    """


def main() -> NoReturn:
    """Entry point; the exit codes are in the help text."""
    # Without standalone mode click returns the code of `ctx.exit` instead of leaving with it.
    sys.exit(report(lambda: _group(prog_name="fs3", standalone_mode=False)))


def report(work: Callable[[], int | None]) -> int:
    """The exit status of `work`, which returns it or raises; an error is told in a sentence."""
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except click.Abort:
        _complain("interrupted")
        return 130
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except BrokenPipeError:  # the reader had enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        _complain(_sentence(error))
        return 4 if isinstance(error, FileNotFoundError) else _denied(error)
    except Exception as error:
        _complain_about_bug(error)
        return 70  # EX_SOFTWARE of sysexits.h


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens: the terminal was closed
        click.echo(f"fs3: {text}", err=True)


def _complain_about_bug(error: Exception) -> None:
    """One sentence; the traceback is for those who ask for it."""
    if os.environ.get("FS3_DEBUG"):
        traceback.print_exception(error)
    _complain(
        f"internal error, please report it: {type(error).__name__}: {error} "
        "(FS3_DEBUG=1 shows where it happened)"
    )


def _denied(error: OSError) -> int:
    return 5 if isinstance(error, PermissionError) else 1


def _sentence(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"
