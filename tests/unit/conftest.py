"""Fixtures of the unit level."""

from collections.abc import Iterator

import pytest
from meta_world import World

from fs3.meta.fsck import fsck


@pytest.fixture
def world() -> Iterator[World]:
    """A metadata service; when the test is over, its name space must be sound."""
    world = World()
    yield world
    assert fsck(world.kv) == []
