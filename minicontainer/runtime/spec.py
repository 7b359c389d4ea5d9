"""The default container: an OCI config.json with what Docker gives a container that asks for nothing special.

Lab 15 reads one. OCI runtime-spec config.md and config-linux.md; the values are moby's defaults (mounts, masked and
read-only paths in daemon/pkg/oci/defaults.go, capabilities in oci/caps).
"""

from __future__ import annotations

from typing import Any

from minicontainer.cgroup.devices import DEFAULT_RULES, is_real_root
from minicontainer.runtime.seccomp import default_profile

OCI_VERSION = "1.0.2"

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES = ("pid", "mount", "uts", "ipc", "network", "cgroup")


def default_spec() -> dict[str, Any]:
    """A new config.json; the caller fills in args, root, hostname and cgroupsPath."""
    capabilities = list(DEFAULT_CAPABILITIES)
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs"},
        "mounts": default_mounts(),
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READ_ONLY_PATHS),
        },
    }
    if is_real_root():  # nobody else may set device rules, or needs them
        spec["linux"]["resources"] = {"devices": [dict(rule) for rule in DEFAULT_RULES]}
    profile = default_profile(capabilities)
    if profile is not None:
        spec["linux"]["seccomp"] = profile
    return spec


def default_mounts() -> list[dict[str, Any]]:
    """/proc, /dev, /dev/pts, /sys, /sys/fs/cgroup, /dev/mqueue and /dev/shm with Docker's options."""
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if group_is_mapped(5):
        pts.append(
            "gid=5"
        )  # the group tty; an id that the user namespace does not map is refused with EINVAL
    quiet = ["nosuid", "noexec", "nodev"]
    dev = ["nosuid", "strictatime", "mode=755", "size=65536k"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*quiet, "ro", "relatime"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", "size=65536k"]},
    ]  # fmt: skip


def group_is_mapped(gid: int) -> bool:
    """Whether `gid` exists in this user namespace (man 7 user_namespaces)."""
    with open("/proc/self/gid_map") as file:
        for line in file:
            inside, _, count = (int(field) for field in line.split())
            if inside <= gid < inside + count:
                return True
    return False


def example() -> dict[str, Any]:
    """A config.json to begin with, as ``runc spec`` writes one: a shell with a terminal on a read-only root."""
    spec = default_spec()
    spec["process"] |= {
        "terminal": True,
        "env": [*spec["process"]["env"], "TERM=xterm"],
        "noNewPrivileges": True,
    }
    spec["root"]["readonly"] = True
    spec["hostname"] = "minicontainer"
    return spec
