"""What a container may have of its host: limits, privileges, devices, as Docker's HostConfig keeps them.

The record holds only what was asked for, under Docker's names; :data:`DEFAULTS` completes it for `inspect`. How it
becomes part of an OCI bundle is in :mod:`.limits` and :mod:`.privileges`. Labs 04 and 06. Sources: Docker Engine API
1.43 (HostConfig), moby daemon/daemon_unix.go `verifyPlatformContainerResources`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from minicontainer.engine import quantities
from minicontainer.errors import UsageError

Host = dict[str, Any]
_LEAST_MEMORY = 6 << 20  # bytes; with less, not even the runtime's own child could run


def _each(parse: Callable[[str], Any]) -> Callable[[Iterable[str]], list[Any]]:
    return lambda texts: [parse(text) for text in texts]


def _tmpfs(texts: Iterable[str] | dict[str, str]) -> dict[str, str]:
    return dict(texts) if isinstance(texts, dict) else dict(quantities.tmpfs(text) for text in texts)


def _names(texts: Iterable[str]) -> list[str]:
    from minicontainer.engine.privileges import capability_name

    return [capability_name(text) for text in texts]


def _security(texts: Iterable[str]) -> list[str]:
    from minicontainer.engine.privileges import security_option

    return [security_option(text) for text in texts]


OPTIONS: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
    "memory": ("Memory", quantities.size, 0),
    "memory_swap": ("MemorySwap", quantities.swap, 0),
    "memory_reservation": ("MemoryReservation", quantities.size, 0),
    "cpus": ("NanoCpus", quantities.nano_cpus, 0),
    "cpu_shares": ("CpuShares", int, 0),
    "cpu_quota": ("CpuQuota", int, 0),
    "cpu_period": ("CpuPeriod", int, 0),
    "cpuset_cpus": ("CpusetCpus", str, ""),
    "cpuset_mems": ("CpusetMems", str, ""),
    "pids_limit": ("PidsLimit", int, None),
    "blkio_weight": ("BlkioWeight", int, 0),
    "device_read_bps": ("BlkioDeviceReadBps", _each(quantities.bytes_rate), None),
    "device_write_bps": ("BlkioDeviceWriteBps", _each(quantities.bytes_rate), None),
    "device_read_iops": ("BlkioDeviceReadIOps", _each(quantities.operations_rate), None),
    "device_write_iops": ("BlkioDeviceWriteIOps", _each(quantities.operations_rate), None),
    "oom_kill_disable": ("OomKillDisable", bool, False),
    "oom_score_adj": ("OomScoreAdj", int, 0),
    "ulimit": ("Ulimits", _each(quantities.ulimit), None),
    "cap_add": ("CapAdd", _names, None),
    "cap_drop": ("CapDrop", _names, None),
    "security_opt": ("SecurityOpt", _security, None),
    "privileged": ("Privileged", bool, False),
    "tmpfs": ("Tmpfs", _tmpfs, None),
    "device": ("Devices", _each(quantities.device), None),
}
"""The engine's option -> Docker's name, how its value is read, and what stands where it was not given."""

DEFAULTS: Host = {name: default for name, _, default in OPTIONS.values()}


def parse(options: dict[str, Any]) -> Host:
    """Options as they were given, under Docker's names and with their meaning.

    :raises TypeError: an option that there is not.
    :raises UsageError: a value that means nothing.
    """
    unknown = options.keys() - OPTIONS.keys()
    if unknown:
        raise TypeError(f"unknown option {sorted(unknown)}; also {sorted(OPTIONS)}")
    found: Host = {}
    for option, value in options.items():
        name, read, default = OPTIONS[option]
        try:
            meant = read(value)
        except (ValueError, TypeError) as error:
            raise UsageError(f'invalid argument "{value}" for {option}: {error}') from None
        if meant != default:
            found[name] = meant
    return found


def settle(host: Host) -> tuple[Host, list[str]]:
    """The complete configuration, checked as a whole, with warnings about what this machine leaves without effect.

    :raises UsageError: values out of range, or that contradict each other.
    """
    host = dict(host)
    warnings: list[str] = []
    _check_memory(host, warnings)
    _check_cpu(host)
    weight = host.get("BlkioWeight", 0)
    if weight and not 10 <= weight <= 1000:
        raise UsageError("Range of blkio weight is from 10 to 1000")
    score = host.get("OomScoreAdj", 0)
    if not -1000 <= score <= 1000:
        raise UsageError(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    return host, warnings


def _check_memory(host: Host, warnings: list[str]) -> None:
    limit, swap, soft = (host.get(name, 0) for name in ("Memory", "MemorySwap", "MemoryReservation"))
    if 0 < limit < _LEAST_MEMORY:
        raise UsageError("Minimum memory limit allowed is 6MB")
    if swap > 0 and not limit:
        raise UsageError("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < swap < limit:
        raise UsageError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < soft < _LEAST_MEMORY:
        raise UsageError("Minimum memory reservation allowed is 6MB")
    if limit and soft > limit:
        raise UsageError("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limit and not _counts_swap():
        if swap > limit:
            warnings.append(
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
                "Memory limited without swap."
            )
        host["MemorySwap"] = -1
    elif limit and not swap:
        host["MemorySwap"] = 2 * limit  # Docker's: as much swap again
    if host.get("OomKillDisable"):
        _check_oom(host, warnings)


def _check_oom(host: Host, warnings: list[str]) -> None:
    from minicontainer.cgroup.hierarchy import detect

    if "memory" not in detect().v1:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        del host["OomKillDisable"]
    elif not host.get("Memory"):
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _counts_swap() -> bool:
    """Whether the kernel can limit swap (cgroup-v1/memory.rst memsw; cgroup-v2.rst memory.swap.max)."""
    from minicontainer.cgroup.hierarchy import detect

    hierarchies = detect()
    if "memory" in hierarchies.v1:
        return os.path.exists(f"{hierarchies.v1['memory']}/memory.memsw.limit_in_bytes")
    root = hierarchies.v2
    if root is None:
        return False
    # The machine's root group has no such file, those below it do.
    below = [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    return any(os.path.exists(f"{directory}/memory.swap.max") for directory in (root, *below))


def _check_cpu(host: Host) -> None:
    nano, period, quota = (host.get(name, 0) for name in ("NanoCpus", "CpuPeriod", "CpuQuota"))
    if nano and period:
        raise UsageError("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    if nano and quota:
        raise UsageError("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    here = os.cpu_count() or 1
    if nano and not 10**7 <= nano <= here * 10**9:
        raise UsageError(f"Range of CPUs is from 0.01 to {here}.00, as there are only {here} CPUs available")
    if period and not 1000 <= period <= 1_000_000:
        raise UsageError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise UsageError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.get("CpuShares", 0) < 0:
        raise UsageError(f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer")
    for kind, online in (
        ("Cpus", "/sys/devices/system/cpu/online"),
        ("Mems", "/sys/devices/system/node/online"),
    ):
        if host.get(f"Cpuset{kind}"):
            _check_list(kind, host[f"Cpuset{kind}"], online)


def _check_list(kind: str, text: str, online: str) -> None:
    """A list such as ``0-2,5`` of CPUs or memory nodes that are there (man 7 cpuset, "List format")."""
    try:
        asked = _numbers(text)
    except ValueError:
        raise UsageError(f"Invalid value {text} for cpuset {kind.lower()}") from None
    try:
        with open(online) as file:
            available = file.read().strip()
    except FileNotFoundError:
        return  # the kernel itself will say
    if asked - _numbers(available):
        what = "CPUs" if kind == "Cpus" else "memory nodes"
        raise UsageError(f"Requested {what} are not available - requested {text}, available: {available}")


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if not 0 <= begin <= end < 1 << 16:
            raise ValueError(part)
        found.update(range(begin, end + 1))
    return found
