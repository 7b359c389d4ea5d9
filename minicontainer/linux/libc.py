"""The door to the C library: load it once, call it, and turn -1 into an OSError that says which call it was.

The functions are called through :class:`ctypes.PyDLL`, which keeps Python's global lock: after clone(2) the child
must be able to go on running Python, and the calls used here return at once. Labs 01 to 03 use this module's
clients; nobody needs to read this one to follow them. Man pages: syscall(2), errno(3).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.PyDLL(None, use_errno=True)

# System call numbers that are the same on every architecture (since Linux 5.1), and those of x86_64 and aarch64
# for the older ones that glibc does not wrap.
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_BY_MACHINE = {
    "x86_64": {
        "clone": 56,
        "pivot_root": 155,
        "keyctl": 250,
        "bpf": 321,
        "seccomp": 317,
        "capget": 125,
        "capset": 126,
    },
    "aarch64": {
        "clone": 220,
        "pivot_root": 41,
        "keyctl": 219,
        "bpf": 280,
        "seccomp": 277,
        "capget": 90,
        "capset": 91,
    },
}
NUMBERS: dict[str, int] = _COMMON | _BY_MACHINE.get(os.uname().machine, {})


class SyscallError(OSError):
    """An OSError that also knows the name of the system call that failed."""

    syscall: str = ""


def fail(name: str, path: str | bytes | None = None) -> SyscallError:
    """The error of the call that has just failed, from errno: ``raise fail("mount", target)``."""
    number = ctypes.get_errno()
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    # OSError picks a subclass by errno only for OSError itself, so the errno is looked at by callers, not the class.
    error = SyscallError(number, os.strerror(number), path)
    error.syscall = name
    return error


def function(name: str, *argtypes: type, restype: type = ctypes.c_int) -> Callable[..., Any]:
    """A function of the C library with its argument types set, so that no value is passed at the wrong width."""
    pointer = getattr(_libc, name)
    pointer.argtypes = argtypes
    pointer.restype = restype
    return pointer


_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def syscall(
    name: str, *arguments: int | bytes | ctypes.Array | ctypes.Structure | None, path: str | None = None
) -> int:
    """Make a system call that the C library does not wrap (man 2 syscall).

    Integers are passed as 64-bit values, bytes and ctypes objects by address.

    :raises SyscallError: with the call's name and `path`; ENOSYS where this machine's number is not known.
    """
    number = NUMBERS.get(name)
    if number is None:
        ctypes.set_errno(38)  # ENOSYS: the honest answer on an architecture whose numbers we do not have
        raise fail(name, path)
    converted: list[object] = []
    for argument in arguments:
        if isinstance(argument, int):
            converted.append(ctypes.c_long(argument))
        elif isinstance(argument, (ctypes.Structure, ctypes.Array)):
            converted.append(ctypes.byref(argument))
        else:
            converted.append(argument)
    result = _syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise fail(name, path)
    return result
