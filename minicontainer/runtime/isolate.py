"""A process in namespaces of its own. Lab 02. Man pages: clone(2), namespaces(7), pid_namespaces(7)."""

from __future__ import annotations

import os
from collections.abc import Callable

from minicontainer.linux.namespace import clone3


def isolate(flags: int, child: Callable[[], int], *, cgroup: int | None = None) -> int:
    """Run `child` in a new process with new namespaces of each kind in `flags`; return its PID at once.

    The child is PID 1 where `flags` has CLONE_NEWPID. It ends with what `child` returns, or 1 where it raises, and
    never comes back into the caller's code.

    :param cgroup: descriptor of a cgroup v2 directory for the process to be born in.
    :raises SyscallError: as clone3(2).
    """
    pid, _ = clone3(flags, cgroup=cgroup)
    if pid == 0:
        status = 1
        try:
            status = child()
        finally:
            os._exit(status)
    return pid
