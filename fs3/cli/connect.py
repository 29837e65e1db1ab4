"""A client for the path commands, and what a path on the command line means."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fs3.cli.cluster_dir import ClusterDir, find_running

if TYPE_CHECKING:
    from fs3.client import Client


@contextlib.contextmanager
def connected(data: pathlib.Path | None) -> Iterator["Client"]:
    """A client of the running local cluster, closed at the end."""
    from fs3.client import Client

    with Client(meta_addresses=meta_addresses(find_running(data))) as client:
        yield client


def meta_addresses(cluster: ClusterDir) -> list[str]:
    """Native RPC addresses of the metadata services. Raises ClickException while none is ready."""
    meta = cluster.state().get("processes", {}).get("meta", {})
    if not meta.get("addresses"):
        raise click.ClickException("the metadata service is not ready; see: fs3 ps")
    return list(meta["addresses"])


def inside(path: str, data: pathlib.Path | None) -> str:
    """A path inside the file system: absolute ones are taken as they are, unless they lie under the
    mount point; others are relative to the mount point or to the root.

    >>> inside("/a/b", None)  # doctest: +SKIP
    '/a/b'
    """
    mount = find_running(data).state().get("mount", "")
    if mount:
        real = os.path.abspath(path)
        if real == mount or real.startswith(mount + "/"):
            return real[len(mount) :] or "/"
    return os.path.normpath("/" + path) if not path.startswith("/") else os.path.normpath(path)
