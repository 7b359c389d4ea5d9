"""What a process may ask about itself and others: prctl(2), close_range(2), pidfds, names, keyrings.

Used in labs 02 (init, host name), 06 (no_new_privs) and 10 (supervisor). Man pages: prctl(2), close_range(2),
pidfd_open(2), pidfd_send_signal(2), sethostname(2), keyctl(2), personality(2).
"""

from __future__ import annotations

import ctypes
import os

from minicontainer.linux.libc import fail, function, syscall

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 0x4
KEYCTL_JOIN_SESSION_KEYRING = 1

_prctl = function("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)
_sethostname = function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_personality = function("personality", ctypes.c_ulong)


def prctl(option: int, value: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """Operate on the calling process (man 2 prctl); returns what the option returns."""
    result: int = _prctl(option, value, third, fourth, fifth)
    if result < 0:
        raise fail("prctl")
    return result


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send `signal` to this process when the thread that made it ends; 0 switches it off.

    It is cleared by execve(2) of a set-user-ID program and when credentials change, and it does nothing for a parent
    that is gone already: the caller has to compare getppid(2).
    """
    prctl(PR_SET_PDEATHSIG, signal)


def set_child_subreaper(enabled: bool = True) -> None:
    """Become the parent of all orphaned descendants, as PID 1 is for the machine's."""
    prctl(PR_SET_CHILD_SUBREAPER, int(enabled))


def set_dumpable(enabled: bool) -> None:
    """Allow or forbid other processes of the same user to trace this one and open its /proc files."""
    prctl(PR_SET_DUMPABLE, int(enabled))


def set_no_new_privs() -> None:
    """Promise that no execve(2) from here on grants privileges; cannot be undone, is inherited."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_process_name(name: str) -> None:
    """Set the name shown by ps(1), at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def close_range(first: int, last: int = 0xFFFFFFFF, *, cloexec: bool = False) -> None:
    """Close all descriptors from `first` to `last`, or mark them close-on-exec (man 2 close_range, Linux 5.9)."""
    syscall("close_range", first, last, CLOSE_RANGE_CLOEXEC if cloexec else 0)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace, at most 64 bytes (man 2 sethostname)."""
    encoded = os.fsencode(name)
    if _sethostname(encoded, len(encoded)) != 0:
        raise fail("sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace (man 2 setdomainname)."""
    encoded = os.fsencode(name)
    if _setdomainname(encoded, len(encoded)) != 0:
        raise fail("setdomainname", name)


def personality(persona: int) -> int:
    """Set the process's execution domain; returns the one before (man 2 personality)."""
    previous: int = _personality(persona)
    if previous < 0:
        raise fail("personality")
    return previous


def join_session_keyring(name: str | None = None) -> int:
    """Leave the inherited session keyring for a new one, or the one called `name` (man 2 keyctl).

    :returns: the serial number of the keyring.
    """
    return syscall(
        "keyctl", KEYCTL_JOIN_SESSION_KEYRING, None if name is None else os.fsencode(name), 0, 0, 0
    )


def pidfd_open(pid: int) -> int:
    """A descriptor for process `pid`: readable once it has ended, and never another process (man 2 pidfd_open)."""
    return os.pidfd_open(pid)


def start_time(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot: with the PID it names a process uniquely (man 5 proc).

    Returns None where there is no such process, or where it has ended and only waits to be reaped.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
