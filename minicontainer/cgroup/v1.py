"""OCI resources as cgroup v1 files: each controller has a hierarchy of its own, and names of its own time.

Lab 04. OCI runtime-spec config-linux.md "Control groups"; the kernel's Documentation/admin-guide/cgroup-v1/.
A value of 0 means "not asked for" wherever Docker and the specification use it so.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from minicontainer.cgroup import files

Wanted = dict[str, Any]


def memory(directory: str, wanted: Wanted) -> None:
    """Limits in bytes; ``swap`` is the total of memory and swap, as v1 counts it too."""
    limit, swap = wanted.get("limit") or 0, wanted.get("swap") or 0
    if limit == -1 and not swap:
        swap = -1  # the total must not stay below what is unlimited now
    pairs = [("memory.limit_in_bytes", str(limit))] if limit else []
    if swap and _counts_swap(directory, limit, swap):
        pairs.append(("memory.memsw.limit_in_bytes", str(swap)))
    if limit > 0 and wanted.get("checkBeforeUpdate"):
        refuse_below_usage(directory, "memory.limit_in_bytes", "memory.usage_in_bytes", limit)
    files.settle(directory, pairs)
    if wanted.get("reservation"):
        files.write(f"{directory}/memory.soft_limit_in_bytes", str(wanted["reservation"]))
    swappiness = wanted.get("swappiness")
    if swappiness is not None and swappiness >= 0:
        files.write(f"{directory}/memory.swappiness", str(swappiness))
    if wanted.get("disableOOMKiller"):
        files.write(f"{directory}/memory.oom_control", "1")


def _counts_swap(directory: str, limit: int, swap: int) -> bool:
    """Whether there is a swap limit to set: a kernel that does not count swap may be asked for none."""
    if os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
        return True
    return swap not in (-1, limit)


def refuse_below_usage(directory: str, name: str, usage: str, limit: int) -> None:
    """``checkBeforeUpdate``: no limit below what is in use, where it would cost somebody their life.

    :raises StepError: EBUSY.
    """
    used = files.number(f"{directory}/{usage}") or 0
    if limit < used:
        error = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        problem = files.refused(f"{directory}/{name}", str(limit), error)
        problem.hint = f"the group uses {used} bytes now: ask for more, or without checkBeforeUpdate"
        raise problem


def cpu(directory: str, wanted: Wanted) -> None:
    """Shares (relative weight, 1024 is one), quota and burst in microseconds for each period, realtime budget."""
    if wanted.get("shares"):
        files.write(f"{directory}/cpu.shares", str(wanted["shares"]))
    if wanted.get("idle") is not None:
        files.write(f"{directory}/cpu.idle", str(wanted["idle"]))
    names = (("period", "cpu.cfs_period_us"), ("quota", "cpu.cfs_quota_us"))
    pairs = [(file, str(wanted[name])) for name, file in names if wanted.get(name)]
    if wanted.get("burst") is not None:
        pairs.append(("cpu.cfs_burst_us", str(wanted["burst"])))
    files.settle(directory, pairs)
    names = (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us"))
    files.settle(directory, [(file, str(wanted[name])) for name, file in names if wanted.get(name)])


def cpuset(directory: str, wanted: Wanted) -> None:
    """Which CPUs and memory nodes, as lists like ``0-2,5``; see :func:`fill_cpuset` for what must be there before."""
    for name in ("cpus", "mems"):
        if wanted.get(name):
            files.write(f"{directory}/cpuset.{name}", wanted[name])


def fill_cpuset(root: str, path: str) -> None:
    """Give each group on the way from `root` to `path` CPUs and nodes where it has none: those of the group above.

    A v1 cpuset group is made empty, and no process may enter it before both are set (ENOSPC).
    """
    directory = root
    for part in path.split("/"):
        above, directory = directory, f"{directory}/{part}"
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(f"{directory}/{name}"):
                files.write(f"{directory}/{name}", files.read(f"{above}/{name}"))


def pids(directory: str, wanted: Wanted) -> None:
    """How many tasks (threads count) the group may hold; 0 and below mean no limit."""
    limit = wanted.get("limit")
    if limit is not None:
        files.write(f"{directory}/pids.max", str(limit) if limit > 0 else "max")


_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def block_io(directory: str, wanted: Wanted) -> None:
    """Weights (10 to 1000, with CFQ or BFQ as I/O scheduler) and ceilings in bytes or operations a second for a disk.

    v1 throttles direct and read I/O; a buffered write is charged to the kernel thread that writes it back.
    """
    bfq = os.path.exists(f"{directory}/blkio.bfq.weight")
    stem = "blkio.bfq" if bfq else "blkio"
    if wanted.get("weight"):
        files.write(f"{directory}/{stem}.weight", str(wanted["weight"]))
    if wanted.get("leafWeight") and not bfq:
        files.write(f"{directory}/blkio.leaf_weight", str(wanted["leafWeight"]))
    for device in wanted.get("weightDevice") or []:
        name = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            files.write(f"{directory}/{stem}.weight_device", f"{name} {device['weight']}")
        if device.get("leafWeight") and not bfq:
            files.write(f"{directory}/blkio.leaf_weight_device", f"{name} {device['leafWeight']}")
    for key, file in _THROTTLES:
        for device in wanted.get(key) or []:
            files.write(f"{directory}/{file}", f"{device['major']}:{device['minor']} {device['rate']}")


def huge_pages(directory: str, wanted: list[Wanted]) -> None:
    """How many bytes of huge pages of each size, used and (where this kernel counts it) reserved."""
    for entry in wanted:
        stem = f"{directory}/hugetlb.{entry['pageSize']}"
        files.write(f"{stem}.limit_in_bytes", str(entry["limit"]))
        if os.path.exists(f"{stem}.rsvd.limit_in_bytes"):
            files.write(f"{stem}.rsvd.limit_in_bytes", str(entry["limit"]))


def network_class(directory: str, wanted: Wanted) -> None:
    """The class that traffic control sees on packets of this group (net_cls.txt)."""
    files.write(f"{directory}/net_cls.classid", str(wanted["classID"]))


def network_priorities(directory: str, wanted: Wanted) -> None:
    """The priority of this group's packets on each interface (net_prio.txt)."""
    for entry in wanted["priorities"]:
        files.write(f"{directory}/net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")
