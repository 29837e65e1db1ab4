"""`fs3 quota`: limits of users and directory trees."""

import pathlib
import pwd
import re
from typing import TYPE_CHECKING, Any

import click

from fs3.cli.cluster_dir import data_option
from fs3.cli.connect import connected, inside

if TYPE_CHECKING:
    from fs3.client import Client
    from fs3.client.quota import Quota

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A number, perhaps with K, M, G, T or P: of 1024 for bytes, of 1000 for inodes."""

    name = "AMOUNT"

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no amount; write it as 500000, 20G or 1.5T", param, ctx)
        power = list(_UNITS).index(match[2].lower())
        return int(float(match[1]) * (1024 if self._binary else 1000) ** power)


@click.group()
def quota() -> None:
    """Limits of bytes and inodes, for a user or for the tree below a directory.

    \b
    fs3 quota set /team/a --bytes 10T --inodes 50M
    fs3 quota set --user alice --bytes 500G
    fs3 quota list

    A name cannot be moved into a tree with a quota or out of it; mv copies instead. df of a path
    in such a tree shows what its limits leave.
    """


def _owner(path: str | None, user: str | None, data: pathlib.Path | None) -> Any:
    if (path is None) == (user is None):
        raise click.UsageError("name either a directory or --user")
    if user is None:
        assert path is not None
        return inside(path, data)
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.UsageError(f"--user {user}: no such user here; a number will do") from None


_path = click.argument("path", required=False)
_user = click.option("--user", metavar="NAME|UID", help="Of a user, instead of a directory.")


@quota.command("set")
@_path
@_user
@click.option("--bytes", "most_bytes", type=Amount(binary=True), help="At most; 0: any number.")
@click.option("--inodes", "most_inodes", type=Amount(binary=False), help="At most; 0: any number.")
@data_option
def set_(
    path: str | None,
    user: str | None,
    most_bytes: int | None,
    most_inodes: int | None,
    data: pathlib.Path | None,
) -> None:
    """Set limits; one that is not named stays as it is."""
    owner = _owner(path, user, data)
    with connected(data) as client:
        before = client.get_quota(owner)
        mine = before.limited and (user is not None or _is_top(client, before, owner))
        quota = client.set_quota(
            owner,
            bytes_max=_chosen(most_bytes, before.bytes_max if mine else 0),
            inodes_max=_chosen(most_inodes, before.inodes_max if mine else 0),
        )
        click.echo(_line(client, quota))


def _chosen(wanted: int | None, present: int) -> int:
    return present if wanted is None else wanted


def _is_top(client: "Client", quota: "Quota", path: str) -> bool:
    return client.stat(path).st_ino == quota.inode


@quota.command()
@_path
@_user
@data_option
def get(path: str | None, user: str | None, data: pathlib.Path | None) -> None:
    """Show the limits of a user, or of the tree that a path counts for."""
    owner = _owner(path, user, data)
    with connected(data) as client:
        quota = client.get_quota(owner)
        if quota.inode == 0:
            click.echo(f"{path} counts for no tree with a quota")
            return
        click.echo(HEADER)
        click.echo(_line(client, quota))


@quota.command("list")
@data_option
def list_(data: pathlib.Path | None) -> None:
    """Show every user and tree that has limits."""
    with connected(data) as client:
        click.echo(HEADER)
        for quota in client.list_quotas():
            click.echo(_line(client, quota))


@quota.command()
@_path
@_user
@data_option
def clear(path: str | None, user: str | None, data: pathlib.Path | None) -> None:
    """Take limits away."""
    owner = _owner(path, user, data)
    with connected(data) as client:
        client.clear_quota(owner)


HEADER = f"{'OF':<28} {'BYTES':>10} {'OF AT MOST':>10} {'INODES':>10} {'OF AT MOST':>10}"


def _line(client: "Client", quota: "Quota") -> str:
    if quota.uid is not None:
        whose = f"user {quota.uid}"
    else:
        assert quota.inode is not None
        whose = client.path_of(quota.inode)
    line = (
        f"{whose:<28} {_bytes(quota.bytes):>10} {_most(_bytes, quota.bytes_max):>10} "
        f"{quota.inodes:>10} {_most(str, quota.inodes_max):>10}"
    )
    return line + ("  not enforced: counting was broken off" if quota.counting else "")


def _most(write: Any, limit: int) -> str:
    return str(write(limit)) if limit else "-"


def _bytes(size: int) -> str:
    """
    >>> _bytes(1536), _bytes(5)
    ('1.5K', '5')
    """
    amount = float(size)
    for unit in ("", "K", "M", "G", "T"):
        if abs(amount) < 1024:
            return f"{amount:.1f}{unit}".replace(".0", "")
        amount /= 1024
    return f"{amount:.1f}P"
