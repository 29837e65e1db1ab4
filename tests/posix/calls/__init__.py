"""The tables, one file per group of calls."""

import importlib

from tests.posix.table import Table

__all__ = ["TABLES"]

GROUPS = [
    "paths",
    "opening",
    "making",
    "removing",
    "linking",
    "renaming",
    "looking",
    "permission",
    "modes",
    "owners",
    "times",
    "lengths",
    "reading",
    "writing",
    "space",
    "descriptors",
    "directories",
    "xattrs",
    "acls",
    "flags",
    "locks",
    "memory",
    "programs",
    "mounts",
]
TABLES: list[Table] = [
    table
    for group in GROUPS
    for table in importlib.import_module(f"tests.posix.calls.{group}").TABLES
]
