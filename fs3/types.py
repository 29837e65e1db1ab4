"""Identifiers and frozen values that every layer shares."""

from typing import NewType

InodeId = NewType("InodeId", int)
NodeId = NewType("NodeId", int)
TargetId = NewType("TargetId", int)
ChainId = NewType("ChainId", int)
ChainVersion = NewType("ChainVersion", int)
RoutingVersion = NewType("RoutingVersion", int)
ClientId = NewType("ClientId", bytes)  # 16 random bytes, one per client process start
ClusterId = NewType("ClusterId", bytes)  # 16 random bytes, made by `cluster init`

ROOT_INODE = InodeId(1)
"""The root directory of every file system."""

_TARGETS_PER_DISK = 1000
_DISKS_PER_NODE = 1000


def target_id(node: NodeId, disk: int, slot: int) -> TargetId:
    """The id of a target: readable, and it tells the server and the disk. `slot` counts from 1.

    >>> target_id(NodeId(3), 2, 7)
    3002007
    """
    if not (0 <= disk < _DISKS_PER_NODE and 1 <= slot < _TARGETS_PER_DISK):
        raise ValueError(f"disk {disk} or slot {slot} out of range")
    return TargetId((node * _DISKS_PER_NODE + disk) * _TARGETS_PER_DISK + slot)


def target_disk(target: TargetId) -> int:
    """The number of the disk, in its server, on which the target lies.

    >>> target_disk(TargetId(3002007))
    2
    """
    return target // _TARGETS_PER_DISK % _DISKS_PER_NODE


def target_node(target: TargetId) -> NodeId:
    """The server that a target was placed on.

    >>> target_node(TargetId(3002007))
    3
    """
    return NodeId(target // _TARGETS_PER_DISK // _DISKS_PER_NODE)
