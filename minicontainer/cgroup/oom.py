"""Out of memory: how many processes the kernel has killed at a group's limit, and a descriptor that tells when.

A supervisor asks at the end of a container's life, and so knows a 137 of the kernel's from one of ``kill -9``. Lab 04.
cgroup-v2.rst "memory.events"; the kernel's cgroup-v1/memory.rst "OOM Control"; man pages inotify(7), eventfd(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from minicontainer.cgroup import files
from minicontainer.linux.libc import fail, function

_IN_MODIFY = 0x2


def oom_kills(directories: Sequence[str]) -> int:
    """Processes of the group that were killed for want of memory, groups below it included.

    :param directories: the group's, v1 and v2; those that count no memory are passed over.
    """
    for directory in directories:
        for name in ("memory.events", "memory.oom_control"):
            count = files.table(f"{directory}/{name}").get("oom_kill")
            if count is not None:
                return count
    return 0


def watch(directories: Sequence[str]) -> int | None:
    """A descriptor that becomes readable when the group runs out of memory (poll it, then ask :func:`oom_kills`).

    v2: inotify on ``memory.events``; also readable at other memory events. v1: an eventfd registered in
    ``cgroup.event_control``; readable too when the group is removed.

    :returns: None where no hierarchy counts memory for the group; close it after use.
    :raises OSError: where the kernel refuses the watch.
    """
    for directory in directories:
        if os.path.exists(f"{directory}/memory.oom_control"):
            return _watch_v1(directory)
        if os.path.exists(f"{directory}/memory.events"):
            return _inotify(f"{directory}/memory.events")
    return None


def _watch_v1(directory: str) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.put(f"{directory}/cgroup.event_control", f"{event} {control}")
    except BaseException:
        os.close(event)
        raise
    finally:
        os.close(control)
    return event


def _inotify(path: str) -> int:
    descriptor: int = function("inotify_init1", ctypes.c_int)(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise fail("inotify_init1")
    if (
        function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)(
            descriptor, os.fsencode(path), _IN_MODIFY
        )
        < 0
    ):
        error = fail("inotify_add_watch", path)
        os.close(descriptor)
        raise error
    return descriptor
