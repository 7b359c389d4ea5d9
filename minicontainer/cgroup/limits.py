"""Limits: OCI ``linux.resources`` applied to a control group, on cgroup v1, v2, or one controller on each (hybrid).

The step ``limit`` of lab 04. Each controller is looked up in the group's own directories, so that a hybrid machine
needs no case of its own. OCI runtime-spec config-linux.md "Control groups"; man page cgroups(7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from minicontainer.cgroup import v1, v2
from minicontainer.errors import StepError

if TYPE_CHECKING:
    from minicontainer.cgroup.group import Group

_Apply = Callable[[str, Any], None]


class _Section(NamedTuple):
    """One part of the resources object.

    :param name: its key.
    :param keys: which of its members count; empty where the value itself does.
    :param v1: the v1 controller, and the function that applies the section there.
    :param v2: the same for v2; no controller where v2 has none.
    """

    name: str
    keys: tuple[str, ...]
    v1: tuple[str, _Apply]
    v2: tuple[str, _Apply | None]


_SECTIONS = (
    _Section(
        "memory",
        ("limit", "reservation", "swap", "swappiness", "disableOOMKiller"),
        ("memory", v1.memory),
        ("memory", v2.memory),
    ),
    _Section(
        "cpu",
        ("shares", "quota", "period", "burst", "idle", "realtimeRuntime", "realtimePeriod"),
        ("cpu", v1.cpu),
        ("cpu", v2.cpu),
    ),
    _Section("cpu", ("cpus", "mems"), ("cpuset", v1.cpuset), ("cpuset", v2.cpuset)),
    _Section("pids", ("limit",), ("pids", v1.pids), ("pids", v2.pids)),
    _Section(
        "blockIO",
        (
            "weight", "leafWeight", "weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice",
            "throttleReadIOPSDevice", "throttleWriteIOPSDevice",
        ),
        ("blkio", v1.block_io),
        ("io", v2.block_io),
    ),
    _Section("hugepageLimits", (), ("hugetlb", v1.huge_pages), ("hugetlb", v2.huge_pages)),
    _Section("network", ("classID",), ("net_cls", v1.network_class), ("", None)),
    _Section("network", ("priorities",), ("net_prio", v1.network_priorities), ("", None)),
)  # fmt: skip


def _asked(section: _Section, resources: dict[str, Any]) -> bool:
    """Whether the resources ask for anything in the section; Docker fills what it does not ask for with zeros."""
    value = resources.get(section.name)
    if not value or not section.keys:
        return bool(value)
    if section.name == "pids":
        return value.get("limit") is not None
    meaningful_zeros = ("burst", "idle", "swappiness")
    return any(
        value.get(key) or (key in meaningful_zeros and value.get(key) is not None) for key in section.keys
    )


def controllers(resources: dict[str, Any]) -> set[str]:
    """The controllers that `resources` need, by their names on v1 and on v2."""
    found: set[str] = set()
    for section in _SECTIONS:
        if _asked(section, resources):
            found |= {section.v1[0], section.v2[0]}
    for name in resources.get("unified") or {}:
        found.add(name.partition(".")[0])
    return found - {""}


def limit(group: dict[str, str], resources: dict[str, Any]) -> None:
    """Have the kernel enforce `resources` on every process of the group.

    :param group: the container's directory by controller; on v2 all are the directory called "unified".
    :param resources: OCI ``linux.resources``; its ``devices`` belong to :func:`..devices.allow_devices`.
    :raises StepError: naming the file, the value and the reason, or the controller that is missing.

    >>> limit({}, {"pids": {"limit": 10}})
    Traceback (most recent call last):
    minicontainer.errors.StepError: limit: this machine's hierarchy has no pids controller for us
    """
    if resources.get("rdma"):
        raise StepError(
            "limit: linux.resources.rdma is not supported",
            step="limit",
            hint="leave it out: RDMA devices are not limited by this runtime",
        )
    unified = group.get("unified")
    for section in _SECTIONS:
        if not _asked(section, resources):
            continue
        value = resources[section.name]
        name, apply = section.v2
        if name and apply is not None and unified is not None and group.get(name) == unified:
            apply(unified, value)
            continue
        name, apply = section.v1
        if name not in group:
            raise _missing(section, group)
        apply(group[name], value)
    if resources.get("unified"):
        if unified is None:
            raise StepError(
                "limit: linux.resources.unified needs cgroup v2, and this machine has none that we may use",
                step="limit",
                hint="use the sections memory, cpu, pids and blockIO, which work on v1 as well",
            )
        v2.unified(unified, resources["unified"])


def _missing(section: _Section, group: dict[str, str]) -> StepError:
    name = section.v2[0] or section.v1[0]
    if not group:
        hint = (
            "no control group that we may write: run as root, or in a subtree that was delegated to you"
            " (systemd-run --user --scope -p Delegate=yes …)"
        )
    elif "unified" in group and not section.v2[0]:
        hint = f"{section.v1[0]} exists on cgroup v1 only"
    elif "unified" in group:
        above = group["unified"].rpartition("/")[0]
        hint = f"on v2 enable it in cgroup.subtree_control of {above} and of each group above that"
    else:
        hint = f"look at /proc/cgroups, and mount it: mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}"
    return StepError(
        f"limit: this machine's hierarchy has no {name} controller for us", step="limit", hint=hint
    )


def ignored(group: dict[str, str], resources: dict[str, Any]) -> list[str]:
    """What of `resources` has no effect on this machine, and why: for a warning, since it is not worth an error."""
    found = []
    memory = resources.get("memory") or {}
    for name in ("kernel", "kernelTCP"):
        if memory.get(name):
            found.append(f"memory.{name}: kernel memory is part of memory.limit since Linux 5.16")
    if "unified" in group and group.get("memory") == group["unified"]:
        if memory.get("swappiness") is not None and memory["swappiness"] >= 0:
            found.append("memory.swappiness: cgroup v2 has none for a group; see vm.swappiness")
        if memory.get("disableOOMKiller"):
            found.append("memory.disableOOMKiller: on cgroup v2 the kernel always kills at the limit")
    if "unified" in group and group.get("io") == group["unified"]:
        if (resources.get("blockIO") or {}).get("leafWeight"):
            found.append("blockIO.leafWeight: cgroup v2 has no weight for a group's own processes")
    return found


def update(group: Group, resources: dict[str, Any]) -> None:
    """Change the limits of a container that runs; what `resources` leave out stays as it is.

    :raises StepError: as :func:`limit`; limits applied before the one that failed stay.
    """
    group.create(controllers(resources))
    group.gather()
    limit(group.controllers(), resources)
    if resources.get("devices"):
        from minicontainer.cgroup.devices import STANDARD, allow_devices

        allow_devices(group.controllers(), [*resources["devices"], *STANDARD])
