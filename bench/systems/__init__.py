"""The systems under comparison: how each is set up, mounted, made cold and taken down."""

import pathlib
from collections.abc import Callable

from bench.systems.base import System, Unavailable
from bench.systems.fs3 import Fs3
from bench.systems.glusterfs import GlusterFs
from bench.systems.juicefs import JuiceFs
from bench.systems.local import Local
from bench.systems.moosefs import MooseFs
from bench.systems.seaweedfs import SeaweedFs

__all__ = ["SYSTEMS", "System", "Unavailable"]

SYSTEMS: dict[str, Callable[[pathlib.Path], System]] = {
    "local": Local,
    "fs3": Fs3,
    "glusterfs": GlusterFs,
    "moosefs": MooseFs,
    "seaweedfs": SeaweedFs,
    "juicefs": JuiceFs,
}
