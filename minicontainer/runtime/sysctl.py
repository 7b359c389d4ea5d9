"""Kernel settings of a container's own namespaces. Lab 03. Man pages: proc(5), sysctl(8), namespaces(7).

The list is the one that runc and crun allow: everything else in /proc/sys is the whole machine's.
"""

from __future__ import annotations

from typing import Any

from minicontainer.errors import StepError

# Settings that belong to a namespace, by the kind they belong to; all others belong to the whole machine.
_SYSCTLS = {
    "ipc": ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
            "kernel.shmmni", "kernel.shm_rmid_forced"),
    "uts": ("kernel.domainname",),
}  # fmt: skip
_SYSCTL_PREFIXES = {"network": "net.", "ipc": "fs.mqueue."}


def apply_sysctls(linux: dict[str, Any]) -> None:
    """Set the kernel settings of this container's own namespaces, and refuse those of the whole machine.

    :raises StepError: for a setting that would reach beyond the container.
    """
    own = {entry["type"] for entry in linux.get("namespaces", [])}
    for name, value in (linux.get("sysctl") or {}).items():
        plain = name.replace("/", ".")
        kinds = [kind for kind, names in _SYSCTLS.items() if plain in names]
        kinds += [kind for kind, prefix in _SYSCTL_PREFIXES.items() if plain.startswith(prefix)]
        if not kinds or kinds[0] not in own:
            why = f"needs its own {kinds[0]} namespace" if kinds else "is not a setting of a namespace"
            raise StepError(
                f"sysctl: {name} {why}", step="sysctl", path=name, hint="set it on the host instead"
            )
        with open("/proc/sys/" + plain.replace(".", "/"), "w") as file:
            file.write(value)
