"""What `-o` says: of `fs3 mount`, of mount(8) and of fstab."""

import dataclasses
import errno

from fs3.errors import error_for

__all__ = ["MountOptions", "parse", "split_source"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MountOptions:
    """What can be chosen about a native mount. Defaults are for everybody."""

    read_only: bool = False
    subdir: str = "/"  # the directory of the file system that is mounted
    hf3fs: bool = False  # its type in the mount table is 3FS's, for clients that look for it
    survive: bool | None = None  # its process; None: unless io_uring is enabled (keeper.py)
    uring: str = "auto"  # FUSE over io_uring: auto, off, required
    uring_depth: int = 16  # requests in flight per CPU
    reactors: int = 0  # threads; 0: one per core, at most 4
    ttl_max_s: float = 1.0  # the kernel believes names and attributes no longer than this
    direct_io: bool = False  # never use the page cache
    write_back_bytes: int = 4 << 20  # per open file; 0: every write waits for its chains
    allow_suid: bool = False
    allow_dev: bool = False
    atime: str = "relatime"  # relatime, noatime, strictatime: which reads are noted
    squash_root: bool = False  # the root of this host is nobody


_MEANINGS: dict[str, dict[str, object]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "sync": {"write_back_bytes": 0},
    "async": {},
    "direct_io": {"direct_io": True},
    "hf3fs": {"hf3fs": True},
    "survive": {"survive": True},
    "nosurvive": {"survive": False},
    "suid": {"allow_suid": True},
    "nosuid": {"allow_suid": False},
    "dev": {"allow_dev": True},
    "nodev": {"allow_dev": False},
    "relatime": {"atime": "relatime"},
    "noatime": {"atime": "noatime"},
    "strictatime": {"atime": "strictatime"},
    "squash_root": {"squash_root": True},
}
# For mount(8), systemd and the kernel's own layer; nothing of them is ours to do.
_OTHERS = {
    "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "fail", "nofail",
    "_netdev", "exec", "noexec", "atime", "norelatime", "diratime", "nodiratime",
}  # fmt: skip


def parse(text: str, options: MountOptions) -> MountOptions:
    """`options`, changed by a comma separated list. Raises OSError for what nobody knows.

    >>> parse("ro,_netdev,subdir=/a", MountOptions()).subdir
    '/a'
    """
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if name == "subdir" and value.startswith("/"):
            options = dataclasses.replace(options, subdir=value)
        elif option in _MEANINGS:
            options = dataclasses.replace(options, **_MEANINGS[option])  # type: ignore[arg-type]
        elif option not in _OTHERS and not option.startswith(("x-", "comment=")):
            known = ", ".join([*_MEANINGS, "subdir=/PATH"])
            raise error_for(errno.EINVAL, "mount", f"-o {option} is unknown; there are {known}")
    return options


def split_source(source: str) -> tuple[str, str]:
    """(managers, directory) of what stands in the first column of fstab. Raises OSError.

    >>> split_source("a:7000,b:7000:/team/x"), split_source("[::1]:7000:/")
    (('a:7000,b:7000', '/team/x'), ('[::1]:7000', '/'))
    """
    managers, separator, directory = source.rpartition(":/")
    if not separator or not all(":" in manager for manager in managers.split(",")):
        detail = f"{source!r}: a source is HOST:PORT[,HOST:PORT..]:/DIRECTORY"
        raise error_for(errno.EINVAL, "mount", detail)
    return managers, "/" + directory
