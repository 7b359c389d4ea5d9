"""The freezer: every process of a group stops where it stands, without a signal that it could notice.

Lab 04; ``pause`` and ``unpause``. cgroup-v2.rst "cgroup.freeze"; the kernel's cgroup-v1/freezer-subsystem.rst.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from minicontainer.cgroup import files


def freeze(directories: Sequence[str], wanted: bool, *, patience: float = 10.0) -> None:
    """Freeze the group in the first hierarchy that has a freezer, or thaw it; returns once the kernel has done so.

    v2 promises it and reports in ``cgroup.events``. On v1 the state can stay at FREEZING, where a process forks or
    sits in an uninterruptible call: the kernel tries again each time it is asked.

    :param directories: the group's, v1 and v2.
    :param patience: seconds to wait.
    :raises OSError: ENOENT where no hierarchy has a freezer, EBUSY where a process does not freeze in time; it is
        thawed again then.
    """
    for directory in directories:
        path, values = f"{directory}/cgroup.freeze", ("0", "1")
        if not os.path.exists(path):
            path, values = f"{directory}/freezer.state", ("THAWED", "FROZEN")
            if not os.path.exists(path):
                continue
        files.put(path, values[wanted])
        deadline = time.monotonic() + patience
        while state(directory) != values[wanted]:
            if time.monotonic() > deadline:
                files.put(path, values[False])
                raise OSError(errno.EBUSY, "a process does not freeze", path)
            time.sleep(0.001)
            files.put(path, values[wanted])
        return
    raise OSError(errno.ENOENT, "no control group hierarchy here has a freezer")


def state(directory: str) -> str:
    """ "0" or "1" of a v2 group as the kernel reports it, "THAWED", "FREEZING" or "FROZEN" of a v1 one, or empty."""
    found = files.read(f"{directory}/freezer.state")
    if found:
        return found
    frozen = files.table(f"{directory}/cgroup.events").get("frozen")
    return "" if frozen is None else str(frozen)


def frozen(directories: Sequence[str]) -> bool:
    """Whether the group is frozen in one of its hierarchies."""
    return any(state(directory) in ("1", "FROZEN") for directory in directories)
