"""Space of the targets, as the heartbeats told the cluster manager. Asked now and then, never per
request."""

import logging

import grpc

from fs3._proto import common_pb2, mgmtd_pb2
from fs3.meta.ports import Space
from fs3.runtime.managers import Managers
from fs3.types import TargetId, target_disk, target_node

__all__ = ["ManagerSpace"]

log = logging.getLogger(__name__)

TIMEOUT_S = 1.0


class ManagerSpace:
    """A SpacePort: the answer of the last refresh()."""

    def __init__(self, managers: Managers) -> None:
        self._managers = managers
        self._space = Space(0, 0)

    def __call__(self) -> Space:
        return self._space

    def refresh(self) -> None:
        """Keeps the old answer when the manager does not answer."""
        try:
            status = self._managers.call(
                lambda stub: stub.Status(mgmtd_pb2.StatusRequest(), timeout=TIMEOUT_S)
            )
        except grpc.RpcError as error:
            log.debug("the manager did not tell the space: %s", error)
            return
        self._space = total(status)


def total(status: mgmtd_pb2.StatusReply) -> Space:
    """Of the disks that work. Each target reports the space of its whole disk, so a disk counts
    once."""
    disks: dict[tuple[int, int], Space] = {}
    for node in status.nodes:
        for target in node.targets:
            if target.state != common_pb2.LOCAL_OFFLINE:
                number = TargetId(target.target_id)
                disk = (target_node(number), target_disk(number))
                disks[disk] = Space(target.capacity_bytes, target.free_bytes)
    return Space(
        sum(space.capacity_bytes for space in disks.values()),
        sum(space.free_bytes for space in disks.values()),
    )
