"""Reading and writing a control group's files, and what a refusal means in words for a person.

Each file holds one setting; the kernel answers a write with success or with an errno that says little by itself.
Lab 04. Man page: cgroups(7); cgroup-v2.rst "Interface Files" and cgroup-v1/ in the kernel's Documentation.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from minicontainer.errors import StepError

# What each file accepts, by the start of its name: said where the kernel answers EINVAL or ERANGE.
_RULES = (
    ("memory.memsw", "the total of memory and swap may not be smaller than memory's own limit"),
    (
        "memory.limit",
        "memory's limit may not be larger than the total of memory and swap: change both at once",
    ),
    ("memory.swappiness", "swappiness is a number from 0 to 100"),
    ("memory.", "a size in bytes, or -1 for no limit"),
    ("cpu.rt_", "the groups above must have as much realtime runtime to give: see cpu.rt_runtime_us there"),
    ("cpu.max.burst", "the burst may not be larger than the quota"),
    ("cpu.cfs_burst", "the burst may not be larger than the quota"),
    ("cpu.max", "period is 1000 to 1000000 microseconds, quota at least 1000"),
    ("cpu.cfs_period", "period is 1000 to 1000000 microseconds"),
    ("cpu.cfs_quota", "quota is at least 1000 microseconds, and not more than the groups above have"),
    ("cpu.weight", "the weight is 1 to 10000"),
    ("cpu.idle", "0 or 1"),
    ("pids.max", "a number of tasks up to 4194304, or -1 for no limit"),
    ("io.bfq.weight", "the weight is 1 to 1000"),
    ("io.weight", "the weight is 10 to 1000 in a container's configuration"),
    ("blkio.", "MAJOR:MINOR of a whole disk, then a number; weights are 10 to 1000"),
    ("io.", "MAJOR:MINOR of a whole disk, then a number"),
    ("hugetlb.", "a whole number of huge pages, in bytes"),
)


def write(path: str, value: str, *, step: str = "limit") -> None:
    """Write `value` to a file that the kernel has made; one write(2), as the kernel wants it.

    :raises StepError: which file refused which value, and why.
    """
    try:
        put(path, value)
    except OSError as error:
        raise refused(path, value, error, step=step) from error


def put(path: str, value: str) -> None:
    """The same, for callers who look at the errno themselves.

    :raises OSError: with `path`; never makes a file, so that a setting this kernel lacks is ENOENT.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def settle(directory: str, values: Sequence[tuple[str, str]]) -> None:
    """Write files whose limits depend on each other, in whichever order the kernel accepts.

    Quota and period, or memory and memory with swap, must fit together after every single write: what is refused with
    EINVAL is tried again after the others.

    :param values: pairs of file name and value.
    :raises StepError: for the first that is refused whatever the order.
    """
    left = list(values)
    while left:
        refusals: list[tuple[str, str]] = []
        first: OSError | None = None
        for name, value in left:
            try:
                put(f"{directory}/{name}", value)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise refused(f"{directory}/{name}", value, error) from error
                first = first or error
                refusals.append((name, value))
        if first is not None and len(refusals) == len(left):
            name, value = refusals[0]
            raise refused(f"{directory}/{name}", value, first) from first
        left = refusals


def read(path: str) -> str:
    """What the file says, without white space at its ends; an empty string where this kernel has no such file."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if error.errno in (
            errno.ENODEV,
            errno.EOPNOTSUPP,
        ):  # removed meanwhile; pressure switched off at boot
            return ""
        raise


def number(path: str) -> int | None:
    """The file's only number; None for "max", for v1's way to say no limit, and where there is no such file."""
    text = read(path)
    if not text or text == "max":
        return None
    value = int(text)
    return None if value < 0 or value >= 1 << 62 else value


def table(path: str) -> dict[str, int]:
    """A file of lines ``key number`` (man 7 cgroups: flat keyed), empty where there is none."""
    found = {}
    for line in read(path).splitlines():
        key, _, value = line.rpartition(" ")
        if value.lstrip("-").isdigit():
            found[key] = int(value)
    return found


def refused(path: str, value: str, error: OSError, *, step: str = "limit") -> StepError:
    """The error for a write that the kernel refused: which file, which value, why, and what to do."""
    code = error.errno or 0
    return StepError(
        f"{step}: {path} refuses {value!r}: {os.strerror(code)}",
        step=step,
        syscall="write" if code != errno.ENOENT else "open",
        errno=code,
        path=path,
        hint=_cause(path, code),
    )


def _cause(path: str, code: int) -> str:
    name = os.path.basename(path)
    if code == errno.ENOENT:
        return f"this kernel, or the group above, does not offer {name}"
    if code == errno.EBUSY and name.startswith("memory."):
        used = read(os.path.join(os.path.dirname(path), "memory.usage_in_bytes"))
        return (
            f"the group uses {used or 'more than that'} bytes now, and the kernel cannot free enough of them"
        )
    if code == errno.EBUSY and name == "cgroup.subtree_control":
        return "a group that holds processes cannot enable controllers for groups below it: move them to a leaf first"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "the group above does not allow that, or the group is not ours: run as root, or in a subtree that was"
            " delegated to you (systemd-run --user --scope -p Delegate=yes …)"
        )
    if name.startswith("cpuset."):
        kind = "cpus" if "cpus" in name else "mems"
        allowed = allowed_set(os.path.dirname(os.path.dirname(path)), kind)
        return f"the {'CPUs' if kind == 'cpus' else 'memory nodes'} to choose from are {allowed or 'none'}"
    if code in (errno.ENODEV, errno.ENXIO):
        return "there is no such disk; a limit is set on a whole disk, not on a partition: see `lsblk`"
    if code in (errno.EINVAL, errno.ERANGE):
        return next((rule for start, rule in _RULES if name.startswith(start)), "")
    if code == errno.EOPNOTSUPP:
        return "the disk's driver or I/O scheduler, or a threaded group, does not allow it"
    return ""


def allowed_set(directory: str, kind: str) -> str:
    """The CPUs ("cpus") or memory nodes ("mems") that a cpuset group really has, in the kernel's list format."""
    for name in (f"cpuset.{kind}.effective", f"cpuset.effective_{kind}", f"cpuset.{kind}"):
        found = read(f"{directory}/{name}")
        if found:
            return found
    return ""
