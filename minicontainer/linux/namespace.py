"""Namespaces: unshare(2), setns(2), clone(2).

Built on in lab 02 (PID, UTS, IPC) and every lab after it. Man pages: namespaces(7), clone(2), unshare(2), setns(2),
user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import signal

from minicontainer.linux.libc import fail, function, syscall

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

# The OCI runtime-spec's names (config-linux.md) beside the kernel's flags and the files in /proc/PID/ns.
FLAGS = {
    "mount": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "time": CLONE_NEWTIME,
}
FILES = {
    "mount": "mnt",
    "cgroup": "cgroup",
    "uts": "uts",
    "ipc": "ipc",
    "user": "user",
    "pid": "pid",
    "network": "net",
    "time": "time",
}

_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before_fork, _after_fork_parent, _after_fork_child):
    _hook.restype = None
    _hook.argtypes = []


def unshare(flags: int) -> None:
    """Move the calling thread out of the namespaces it shares, into new ones (man 2 unshare).

    CLONE_NEWPID is the exception: only the children to come are in the new PID namespace.

    :raises SyscallError: EPERM without CAP_SYS_ADMIN, EINVAL for CLONE_NEWUSER in a process with several threads,
        ENOSPC where a limit in /proc/sys/user is reached.
    """
    if _unshare(flags) != 0:
        raise fail("unshare")


def setns(descriptor: int, flags: int = 0) -> None:
    """Enter the namespace behind `descriptor`: a file of /proc/PID/ns, or a pidfd with `flags` (man 2 setns)."""
    if _setns(descriptor, flags) != 0:
        raise fail("setns")


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def clone(flags: int = 0, *, exit_signal: int = signal.SIGCHLD) -> int:
    """Like fork(2), with the child born in the new namespaces that `flags` name (man 2 clone).

    Returns the child's PID in the parent and 0 in the child. The child must end in :func:`os._exit` or execve(2).
    Only for a process with a single thread: the other threads' locks would be copied locked.

    :raises SyscallError: as :func:`unshare`.
    """
    return clone3(flags, exit_signal=exit_signal)[0]


def clone3(
    flags: int = 0, *, exit_signal: int = signal.SIGCHLD, cgroup: int | None = None, pidfd: bool = False
) -> tuple[int, int]:
    """clone3(2): as :func:`clone`, and the child starts inside the cgroup behind `cgroup` (cgroup v2 only).

    :param pidfd: also return a descriptor of the child that never comes to mean another process.
    :returns: (PID or 0, pidfd or -1).
    :raises SyscallError: EBADF where `cgroup` is not a cgroup v2 directory; EOPNOTSUPP for an internal group of v2.
    """
    descriptor = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags, exit_signal=exit_signal)
    if pidfd:
        arguments.flags |= CLONE_PIDFD
        arguments.pidfd = ctypes.addressof(descriptor)
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    _before_fork()
    try:
        pid = syscall("clone3", arguments, ctypes.sizeof(arguments))
    except OSError:
        _after_fork_parent()
        raise
    if pid == 0:
        _after_fork_child()
        return 0, -1
    _after_fork_parent()
    return pid, descriptor.value


def identity(pid: int | str, name: str) -> tuple[int, int]:
    """What tells one namespace from another: device and inode of /proc/PID/ns/NAME (man 7 namespaces).

    :param name: as in /proc ("mnt", "pid", "net", ...).
    """
    status = os.stat(f"/proc/{pid}/ns/{name}")
    return status.st_dev, status.st_ino


def in_user_namespace() -> bool:
    """Whether this process lives in a user namespace other than the machine's first one.

    The first one maps all ids to themselves; nobody can write that map for a new one without holding all of them,
    so the map tells them apart (man 7 user_namespaces).
    """
    with open("/proc/self/uid_map") as file:
        fields = file.read().split()
    return fields != ["0", "0", "4294967295"]
