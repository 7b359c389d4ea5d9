"""Capabilities: root's power in 41 pieces, five sets of them for each process.

Used in lab 06. Man pages: capabilities(7), capget(2), prctl(2).
"""

from __future__ import annotations

import ctypes

from minicontainer.linux.libc import syscall
from minicontainer.linux.process import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

# In the order of their numbers, <linux/capability.h>.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBER = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522


def mask(names: list[str] | tuple[str, ...]) -> int:
    """The bit mask of the named capabilities; names that this kernel's list does not have are left out."""
    return sum(1 << NUMBER[name] for name in set(names) if name in NUMBER)


def last_capability() -> int:
    """The highest capability number that the running kernel knows, asked of prctl(2): /proc may not be there."""
    number = len(NAMES) - 1
    while True:
        try:
            prctl(PR_CAPBSET_READ, number + 1)
        except OSError:
            break
        number += 1
    while number > 0:
        try:
            prctl(PR_CAPBSET_READ, number)
        except OSError:
            number -= 1
        else:
            break
    return number


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def get(pid: int = 0) -> tuple[int, int, int]:
    """The (effective, permitted, inheritable) sets of process `pid` as bit masks (man 2 capget)."""
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", _Header(_VERSION_3, pid), data)
    effective, permitted, inheritable = (data[index] | data[index + 3] << 32 for index in range(3))
    return effective, permitted, inheritable


def assign(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling process's three sets (man 2 capset).

    :raises SyscallError: EPERM where a set holds more than the permitted set did.
    """
    low, high = 0xFFFFFFFF, 32
    masks = (effective, permitted, inheritable)
    data = (ctypes.c_uint32 * 6)(*(value & low for value in masks), *(value >> high for value in masks))
    syscall("capset", _Header(_VERSION_3, 0), data)


def drop_bounding(keep: int) -> None:
    """Take every capability that is not in the mask `keep` out of the bounding set, for good."""
    for number in range(last_capability() + 1):
        if not keep >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


def set_ambient(value: int) -> None:
    """Make the ambient set exactly the mask `value`, which must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(value.bit_length()):
        if value >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
