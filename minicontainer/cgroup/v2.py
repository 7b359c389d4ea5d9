"""OCI resources, which speak the language of cgroup v1, as cgroup v2 files in the container's one directory.

Lab 04. OCI runtime-spec config-linux.md "Control groups" and "Unified"; the kernel's
Documentation/admin-guide/cgroup-v2.rst. A value of 0 means "not asked for" wherever Docker uses it so.
"""

from __future__ import annotations

import errno
import math
import os
from typing import Any

from minicontainer.cgroup import files
from minicontainer.cgroup.v1 import refuse_below_usage
from minicontainer.errors import StepError

Wanted = dict[str, Any]
_DEFAULT_PERIOD = "100000"


def shares_to_weight(shares: int) -> int:
    """``cpu.weight`` (1 to 10000, default 100) for v1's cpu.shares (2 to 262144, default 1024).

    The quadratic formula of runc since 1.3.2 and crun since 1.23, which maps least, default and most onto each other.
    The linear one before it gave the default container 39 instead of 100, less than any ordinary process's group.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    level = math.log2(shares)
    return math.ceil(10 ** ((level * level + 125 * level) / 612 - 7 / 34))


def swap_maximum(limit: int, swap: int) -> str | None:
    """``memory.swap.max``, which counts swap alone, for OCI's total of memory and swap; None where it is not asked for.

    :param limit: memory's limit in bytes, 0 where there is none, -1 for unlimited.
    :raises StepError: where the two do not fit together.
    """
    if not swap:
        return "max" if limit == -1 else None
    if swap == -1:
        return "max"
    if limit <= 0:
        raise StepError(
            f"limit: a total of {swap} bytes of memory and swap needs a limit on memory too",
            step="limit",
            hint="set linux.resources.memory.limit (--memory) as well",
        )
    if swap < limit:
        raise StepError(
            f"limit: the total of memory and swap, {swap} bytes, is smaller than memory's limit, {limit} bytes",
            step="limit",
            hint="linux.resources.memory.swap (--memory-swap) counts both; -1 is no limit",
        )
    return str(swap - limit)


def memory(directory: str, wanted: Wanted) -> None:
    """Limits in bytes. The reservation becomes ``memory.low``: best-effort protection, as runc and crun have it."""
    limit, swap = wanted.get("limit") or 0, wanted.get("swap") or 0
    if limit > 0 and wanted.get("checkBeforeUpdate"):
        refuse_below_usage(directory, "memory.max", "memory.current", limit)
    ceiling = swap_maximum(limit or (files.number(f"{directory}/memory.max") or 0 if swap else 0), swap)
    if ceiling is not None:
        try:
            files.put(f"{directory}/memory.swap.max", ceiling)
        except (
            FileNotFoundError
        ) as error:  # a kernel without swap: nobody gets any, which is also what "0" asks for
            if ceiling not in ("max", "0"):
                raise files.refused(f"{directory}/memory.swap.max", ceiling, error) from error
        except OSError as error:
            raise files.refused(f"{directory}/memory.swap.max", ceiling, error) from error
    if limit:
        files.write(f"{directory}/memory.max", _amount(limit))
    if wanted.get("reservation"):
        files.write(f"{directory}/memory.low", _amount(wanted["reservation"]))


def _amount(value: int) -> str:
    return "max" if value < 0 else str(value)


def cpu(directory: str, wanted: Wanted) -> None:
    """Weight, and quota and burst in microseconds for each period."""
    for name in ("realtimeRuntime", "realtimePeriod"):
        if wanted.get(name):
            raise StepError(
                f"limit: cpu.{name}: cgroup v2 cannot divide realtime CPU time",
                step="limit",
                hint="leave it out; a realtime priority can be had with --ulimit rtprio and --cap-add SYS_NICE",
            )
    if wanted.get("idle") is not None:
        files.write(f"{directory}/cpu.idle", str(wanted["idle"]))
    if wanted.get("shares") and not wanted.get("idle"):
        files.write(f"{directory}/cpu.weight", str(shares_to_weight(wanted["shares"])))
    pairs = []
    quota, period = wanted.get("quota"), wanted.get("period")
    if quota or period:
        now_quota, _, now_period = files.read(f"{directory}/cpu.max").partition(" ")
        first = _amount(quota) if quota else now_quota or "max"
        pairs.append(("cpu.max", f"{first} {period or now_period or _DEFAULT_PERIOD}"))
    if wanted.get("burst") is not None:
        pairs.append(("cpu.max.burst", str(wanted["burst"])))
    files.settle(directory, pairs)


def cpuset(directory: str, wanted: Wanted) -> None:
    """Which CPUs and memory nodes.

    v2 takes a list that the group above does not have and silently falls back to all of that group's: looked at
    afterwards, since a limit without effect is none.
    """
    for kind in ("cpus", "mems"):
        asked = wanted.get(kind)
        if not asked:
            continue
        path = f"{directory}/cpuset.{kind}"
        files.write(path, asked)
        effective = files.read(f"{path}.effective")
        if effective and not numbers(effective) <= numbers(asked):
            raise files.refused(path, asked, OSError(errno.EINVAL, os.strerror(errno.EINVAL)))


def numbers(text: str) -> set[int]:
    """The members of a list in the kernel's format (man 7 cpuset): ``0-2,5`` is {0, 1, 2, 5}."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def pids(directory: str, wanted: Wanted) -> None:
    """How many tasks (threads count) the group may hold; 0 and below mean no limit."""
    limit = wanted.get("limit")
    if limit is not None:
        files.write(f"{directory}/pids.max", str(limit) if limit > 0 else "max")


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def block_io(directory: str, wanted: Wanted) -> None:
    """Weights (10 to 1000) and ceilings in bytes or operations a second for a disk."""
    bfq = os.path.exists(f"{directory}/io.bfq.weight")
    path = f"{directory}/io.bfq.weight" if bfq else f"{directory}/io.weight"
    if wanted.get("weight"):
        files.write(
            path, _weight(wanted["weight"], bfq) if bfq else f"default {_weight(wanted['weight'], bfq)}"
        )
    for device in wanted.get("weightDevice") or []:
        if device.get("weight"):
            files.write(path, f"{device['major']}:{device['minor']} {_weight(device['weight'], bfq)}")
    for key, word in _THROTTLES:
        for device in wanted.get(key) or []:
            rate = device["rate"] or "max"
            files.write(f"{directory}/io.max", f"{device['major']}:{device['minor']} {word}={rate}")


def _weight(value: int, bfq: bool) -> str:
    """BFQ keeps v1's range of 10 to 1000; io.weight has 1 to 10000, and runc's linear formula leads there."""
    return str(value if bfq else 1 + (value - 10) * 9999 // 990)


def huge_pages(directory: str, wanted: list[Wanted]) -> None:
    """How many bytes of huge pages of each size, used and (where this kernel counts it) reserved."""
    for entry in wanted:
        stem = f"{directory}/hugetlb.{entry['pageSize']}"
        files.write(f"{stem}.max", str(entry["limit"]))
        if os.path.exists(f"{stem}.rsvd.max"):
            files.write(f"{stem}.rsvd.max", str(entry["limit"]))


_STEERING = ("procs", "threads", "type", "subtree_control", "kill", "freeze", "controllers", "events", "stat")


def unified(directory: str, wanted: dict[str, str]) -> None:
    """Files of the v2 group by their names. Each line of a value is one write, as files with several keys want it.

    :raises StepError: for a name that leads out of the directory, or to a file that moves processes instead of
        limiting them.
    """
    for name, value in wanted.items():
        core, _, rest = name.partition(".")
        if "/" in name or not core or not rest or (core == "cgroup" and rest in _STEERING):
            raise StepError(
                f"limit: unified: {name!r} is not the name of a limit",
                step="limit",
                path=name,
                hint="give the name of one file of the container's group, like memory.high, without any directory",
            )
        for line in value.splitlines() or [""]:
            files.write(f"{directory}/{name}", line)
