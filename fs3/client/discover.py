"""Which metadata services a client talks to, from what a person gives it."""

import json
import os
import pathlib

__all__ = ["meta_addresses"]

_SCHEMES = ("tcp://", "unix://")
_DEFAULT_DATA = "fs3-data"
_STATE_BYTES_MAX = 1 << 20


def meta_addresses(where: str | os.PathLike[str] | None) -> list[str]:
    """Native RPC addresses.

    `where`: "tcp://host:port" or "unix:///path" (several with commas), "fs3://host:port[,host:port]",
    or the data directory of a local cluster. None: $FS3_META, $FS3_DATA, ./fs3-data, in this order.
    Raises ValueError or FileNotFoundError that say what to do.
    """
    if where is None:
        where = os.environ.get("FS3_META") or os.environ.get("FS3_DATA") or _DEFAULT_DATA
    text = os.fspath(where)
    if text.startswith(_SCHEMES):
        return [_checked(part.strip()) for part in text.split(",")]
    if text.startswith("fs3://"):
        hosts = text.removeprefix("fs3://").split("/", 1)[0]
        if not hosts:
            return meta_addresses(None)
        return [_checked("tcp://" + host.strip()) for host in hosts.split(",")]
    return _of_directory(pathlib.Path(text))


def _checked(address: str) -> str:
    if not address.startswith(_SCHEMES):
        raise ValueError(f"{address!r} is no address; give tcp://host:port or unix:///path")
    return address


def _of_directory(root: pathlib.Path) -> list[str]:
    """What the supervisor of a local cluster wrote (fs3/cli/cluster_dir.py)."""
    path = root / "run" / "state.json"
    try:
        with path.open("rb") as file:
            state = json.loads(file.read(_STATE_BYTES_MAX))
        addresses = state["processes"]["meta"]["addresses"]
    except FileNotFoundError:
        raise FileNotFoundError(
            2, "no running cluster there; start one with `fs3 up`, or give an address", str(root)
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} names no metadata service yet; look at `fs3 ps`") from None
    return [str(address) for address in addresses]
