"""Which cgroup hierarchies this machine has, and where: v2, v1, or both side by side (hybrid).

Found by looking at mountinfo, never by guessing from the distribution. Lab 04. Man page: cgroups(7), proc(5).
"""

from __future__ import annotations

import os

# The v1 controllers that every container is put under.
CONTAINER_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer", "blkio")
# Those whose group is made only for a container that asks for one of their limits. A new v1 cpuset group even is
# unusable until its CPUs and memory nodes are written.
ON_DEMAND = ("cpuset", "hugetlb", "net_cls", "net_prio")


class Hierarchies:
    """The mounted hierarchies.

    :ivar v1: directory of the hierarchy for each v1 controller ("memory" -> "/sys/fs/cgroup/memory").
    :ivar v2: directory of the v2 hierarchy, or None.
    :ivar v2_controllers: controllers that the v2 hierarchy really has (empty on a hybrid machine).
    """

    def __init__(self, v1: dict[str, str], v2: str | None, v2_controllers: tuple[str, ...]) -> None:
        self.v1 = v1
        self.v2 = v2
        self.v2_controllers = v2_controllers

    @property
    def version(self) -> str:
        """ "v2", "v1", "hybrid" (v1 controllers with a v2 tree that has none of them) or "none"."""
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "v2" if self.v2 else "none"

    def always(self) -> list[str]:
        """The distinct hierarchies in which every container gets a group, v1 ones first."""
        found: list[str] = []
        for controller in CONTAINER_CONTROLLERS:
            directory = self.v1.get(controller)
            if directory and directory not in found:
                found.append(directory)
        if self.v2:
            found.append(self.v2)
        return found

    def directories(self) -> list[str]:
        """All distinct hierarchies in which a container may have a group: those made on demand come first."""
        always = self.always()
        found: list[str] = []
        for controller in ON_DEMAND:
            directory = self.v1.get(controller)
            if directory and directory not in found and directory not in always:
                found.append(directory)
        return found + always


_KNOWN_V1 = frozenset((*CONTAINER_CONTROLLERS, *ON_DEMAND, "perf_event", "rdma", "misc"))


def detect(mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
    """Read the mounted hierarchies from `mountinfo` (man 5 proc)."""
    v1: dict[str, str] = {}
    v2: str | None = None
    with open(mountinfo) as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind not in ("cgroup", "cgroup2"):
                continue
            directory = before.split(" ")[4]
            if kind == "cgroup2":
                v2 = v2 or directory
            else:
                for option in options.strip().split(","):
                    if option in _KNOWN_V1:
                        v1.setdefault(option, directory)
    return Hierarchies(v1, v2, _controllers(v2) if v2 else ())


def _controllers(directory: str) -> tuple[str, ...]:
    """The controllers that the v2 group at `directory` can hand to its children."""
    try:
        with open(os.path.join(directory, "cgroup.controllers")) as file:
            return tuple(file.read().split())
    except OSError:
        return ()
