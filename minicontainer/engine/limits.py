"""Limits in a container's bundle: Docker's HostConfig as OCI ``linux.resources`` and ``process.rlimits``. Lab 04.

Sources: OCI runtime-spec config-linux.md "Control groups", config.md "POSIX process"; moby daemon/daemon_unix.go.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from minicontainer.engine.hostconfig import Host
from minicontainer.errors import MinicontainerError

_PERIOD = 100_000  # microseconds, the kernel's default
_FIELDS = {
    "memory": {"limit": "Memory", "swap": "MemorySwap", "reservation": "MemoryReservation",
               "disableOOMKiller": "OomKillDisable"},
    "cpu": {"shares": "CpuShares", "quota": "CpuQuota", "period": "CpuPeriod", "cpus": "CpusetCpus",
            "mems": "CpusetMems"},
    "pids": {"limit": "PidsLimit"},
    "blockIO": {"weight": "BlkioWeight"},
}  # fmt: skip
_THROTTLES = {
    "throttleReadBpsDevice": "BlkioDeviceReadBps",
    "throttleWriteBpsDevice": "BlkioDeviceWriteBps",
    "throttleReadIOPSDevice": "BlkioDeviceReadIOps",
    "throttleWriteIOPSDevice": "BlkioDeviceWriteIOps",
}


def resources(host: Host) -> dict[str, Any]:
    """OCI ``linux.resources`` without its device rules; only what was asked for is in it.

    :raises MinicontainerError: a disk that is not there.
    """
    found: dict[str, Any] = {}
    for section, fields in _FIELDS.items():
        values = {key: host[name] for key, name in fields.items() if host.get(name)}
        if values:
            found[section] = values
    if host.get("NanoCpus"):
        quota = host["NanoCpus"] * _PERIOD // 10**9
        found["cpu"] = {**found.get("cpu", {}), "quota": quota, "period": _PERIOD}
    for key, name in _THROTTLES.items():
        if host.get(name):
            found.setdefault("blockIO", {})[key] = [_throttle(entry) for entry in host[name]]
    return found


def _throttle(entry: dict[str, Any]) -> dict[str, int]:
    try:
        number = os.stat(entry["Path"])
    except OSError as error:
        raise MinicontainerError(f"{entry['Path']}: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISBLK(number.st_mode):
        raise MinicontainerError(f"{entry['Path']} is not a block device", hint="`lsblk` lists them")
    return {"major": os.major(number.st_rdev), "minor": os.minor(number.st_rdev), "rate": entry["Rate"]}


def apply(bundle: dict[str, Any], host: Host) -> None:
    """Put the limits into the bundle."""
    asked = resources(host)
    if asked:
        bundle["linux"].setdefault("resources", {}).update(asked)
    if host.get("Ulimits"):
        bundle["process"]["rlimits"] = [
            {
                "type": f"RLIMIT_{entry['Name'].upper()}",
                "soft": entry["Soft"] % 2**64,  # RLIM_INFINITY, -1, has no sign in the specification
                "hard": entry["Hard"] % 2**64,
            }
            for entry in host["Ulimits"]
        ]
    if host.get("OomScoreAdj"):
        bundle["process"]["oomScoreAdj"] = host["OomScoreAdj"]
