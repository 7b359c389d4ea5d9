"""What a group has used: processor time, memory, tasks, block I/O and pressure, from v1 or v2 in one form.

Lab 04; ``stats`` shows it. cgroup-v2.rst "Interface Files", cgroup-v1/cpuacct.rst, memory.rst and
blkio-controller.rst, accounting/psi.rst in the kernel's Documentation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from minicontainer.cgroup import files


@dataclass(frozen=True)
class DiskUsage:
    """One disk: bytes and operations since the group was made."""

    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True)
class Pressure:
    """Share of time in which processes waited for a resource (psi.rst).

    :ivar some: percent of the last 10, 60 and 300 seconds in which at least one process waited.
    :ivar full: the same for all of them at once.
    :ivar some_us: microseconds in all.
    :ivar full_us: microseconds in all.
    """

    some: tuple[float, float, float] = (0.0, 0.0, 0.0)
    full: tuple[float, float, float] = (0.0, 0.0, 0.0)
    some_us: int = 0
    full_us: int = 0


@dataclass(frozen=True)
class Usage:
    """One moment of a group. Sums run from the group's making; a limit of None is no limit.

    :ivar taken_ns: CLOCK_MONOTONIC in nanoseconds when it was read.
    :ivar cpu_ns: processor time, nanoseconds; `cpu_user_ns` and `cpu_system_ns` are its parts.
    :ivar periods: periods in which a quota was in force, `throttled_periods` those in which it was used up, and
        `throttled_ns` how long processes were held back then, nanoseconds over all CPUs.
    :ivar memory: bytes in use, `cache` (page cache) and `inactive_file` (of it, what is free for the taking) included.
    :ivar memory_peak: the most so far, bytes; None where this kernel does not keep it.
    :ivar swap: bytes swapped out.
    :ivar oom_events: how often the limit was met with nothing left to free; `oom_kills` processes killed for it.
        v1 counts only the kills.
    :ivar pids: tasks now; threads count.
    :ivar io: by disk as "MAJOR:MINOR". On v1, and since Linux 6.10, counted only on disks where a throttle is set.
    :ivar pressure: by "cpu", "memory" and "io", where the kernel measures it.
    """

    taken_ns: int
    cpu_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory: int = 0
    memory_limit: int | None = None
    memory_peak: int | None = None
    cache: int = 0
    inactive_file: int = 0
    swap: int = 0
    oom_events: int = 0
    oom_kills: int = 0
    pids: int = 0
    pids_limit: int | None = None
    io: Mapping[str, DiskUsage] = field(default_factory=dict)
    pressure: Mapping[str, Pressure] = field(default_factory=dict)

    @property
    def working_set(self) -> int:
        """Bytes in use without what the kernel could free at once: the number that ``docker stats`` shows."""
        return max(0, self.memory - self.inactive_file)

    def cpu_fraction(self, before: Usage) -> float:
        """Processor time used since `before`, as a fraction of one CPU (2.0 is two CPUs busy)."""
        passed = self.taken_ns - before.taken_ns
        return (self.cpu_ns - before.cpu_ns) / passed if passed > 0 else 0.0


def usage(group: Mapping[str, str]) -> Usage:
    """Read the group's usage; what the machine does not count stays 0 or None.

    :param group: directory by controller, as :meth:`..group.Group.controllers` gives it.
    """
    found: dict[str, object] = {}
    unified = group.get("unified")
    _cpu(group, unified, found)
    _memory(group, unified, found)
    pids = group.get("pids")
    if pids:
        found["pids"] = files.number(f"{pids}/pids.current") or 0
        found["pids_limit"] = files.number(f"{pids}/pids.max")
    if unified:
        if group.get("io") == unified:
            found["io"] = _io_v2(files.read(f"{unified}/io.stat"))
        kinds = {kind: files.read(f"{unified}/{kind}.pressure") for kind in ("cpu", "memory", "io")}
        found["pressure"] = {kind: _pressure(text) for kind, text in kinds.items() if text}
    if group.get("blkio"):
        found["io"] = _io_v1(group["blkio"])
    return Usage(time.monotonic_ns(), **found)  # type: ignore[arg-type]


def _cpu(group: Mapping[str, str], unified: str | None, found: dict[str, object]) -> None:
    if "cpuacct" in group:
        directory = group["cpuacct"]
        for name, file in (
            ("cpu_ns", "usage"), ("cpu_user_ns", "usage_user"), ("cpu_system_ns", "usage_sys")
        ):  # fmt: skip
            found[name] = files.number(f"{directory}/cpuacct.{file}") or 0
    elif unified:
        counted = files.table(f"{unified}/cpu.stat")
        for name, key in (
            ("cpu_ns", "usage_usec"), ("cpu_user_ns", "user_usec"), ("cpu_system_ns", "system_usec")
        ):  # fmt: skip
            found[name] = counted.get(key, 0) * 1000
    if "cpu" in group:
        counted = files.table(f"{group['cpu']}/cpu.stat")
        found["periods"] = counted.get("nr_periods", 0)
        found["throttled_periods"] = counted.get("nr_throttled", 0)
        found["throttled_ns"] = counted.get("throttled_time", counted.get("throttled_usec", 0) * 1000)


def _memory(group: Mapping[str, str], unified: str | None, found: dict[str, object]) -> None:
    directory = group.get("memory")
    if not directory:
        return
    counted = files.table(f"{directory}/memory.stat")
    if directory == unified:
        found["memory"] = files.number(f"{directory}/memory.current") or 0
        found["memory_limit"] = files.number(f"{directory}/memory.max")
        found["memory_peak"] = files.number(f"{directory}/memory.peak")
        found["swap"] = files.number(f"{directory}/memory.swap.current") or 0
        found["cache"], found["inactive_file"] = counted.get("file", 0), counted.get("inactive_file", 0)
        events = files.table(f"{directory}/memory.events")
        found["oom_events"], found["oom_kills"] = events.get("oom", 0), events.get("oom_kill", 0)
    else:
        found["memory"] = files.number(f"{directory}/memory.usage_in_bytes") or 0
        found["memory_limit"] = files.number(f"{directory}/memory.limit_in_bytes")
        found["memory_peak"] = files.number(f"{directory}/memory.max_usage_in_bytes")
        found["swap"] = counted.get("total_swap", 0)
        found["cache"] = counted.get("total_cache", 0)
        found["inactive_file"] = counted.get("total_inactive_file", 0)
        kills = files.table(f"{directory}/memory.oom_control").get("oom_kill", 0)
        found["oom_events"] = found["oom_kills"] = kills


def _io_v2(text: str) -> dict[str, DiskUsage]:
    found = {}
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        names = ("rbytes", "wbytes", "rios", "wios")
        if "rbytes" in values:
            found[device] = DiskUsage(*(int(values.get(name, 0)) for name in names))
    return found


def _io_v1(directory: str) -> dict[str, DiskUsage]:
    counted: dict[str, dict[str, int]] = {}
    for file, words in (("service_bytes", ("read_bytes", "write_bytes")), ("serviced", ("reads", "writes"))):
        text = files.read(f"{directory}/blkio.throttle.io_{file}_recursive")
        for line in (text or files.read(f"{directory}/blkio.throttle.io_{file}")).splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[1] in ("Read", "Write"):
                counted.setdefault(fields[0], {})[words[fields[1] == "Write"]] = int(fields[2])
    return {device: DiskUsage(**values) for device, values in counted.items()}


def _pressure(text: str) -> Pressure:
    found: dict[str, tuple[float, float, float] | int] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        found[kind] = (float(values["avg10"]), float(values["avg60"]), float(values["avg300"]))
        found[f"{kind}_us"] = int(values["total"])
    return Pressure(**found)  # type: ignore[arg-type]
