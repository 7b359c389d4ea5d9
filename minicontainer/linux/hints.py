"""What an error number usually means in the calls a container runtime makes, in words for a person.

EPERM from mount(2) and EPERM from bpf(2) have different causes; the table is by call and number, then by number.
The causes are those the man pages name under ERRORS, and those met in practice (AppArmor, limits, old kernels).
"""

from __future__ import annotations

import errno
import os

_NEED_ROOT = "run as root, or as an ordinary user inside `minicontainer lab -- …`"

_BY_CALL: dict[tuple[str, int], str] = {
    ("unshare", errno.EPERM): _NEED_ROOT,
    (
        "unshare",
        errno.ENOSPC,
    ): "a limit in /proc/sys/user is reached: too many namespaces exist, or they are switched off",
    ("unshare", errno.EINVAL): "the process has several threads, or this kernel lacks that kind of namespace",
    ("clone3", errno.EPERM): _NEED_ROOT,
    (
        "clone3",
        errno.ENOSPC,
    ): "a limit in /proc/sys/user is reached: too many namespaces exist, or they are switched off",
    ("clone3", errno.EINVAL): "this kernel lacks one of the namespaces: look at `ls /proc/self/ns`",
    ("clone3", errno.EAGAIN): "the limit on processes is reached (ulimit -u, or pids.max of the cgroup)",
    (
        "mount",
        errno.EPERM,
    ): "mounting needs CAP_SYS_ADMIN in this mount namespace; inside a container the seccomp"
    " profile, AppArmor or masked /proc paths may forbid it",
    (
        "mount",
        errno.EACCES,
    ): "AppArmor or another security module forbids this mount, or the source is read-only",
    ("mount", errno.ENODEV): "this kernel does not know that file system type (is its module loaded?)",
    (
        "mount",
        errno.EINVAL,
    ): "wrong options for this file system, a source that is not a mount, or overlay's upper"
    " directory on a file system that cannot hold one (another overlay)",
    ("mount", errno.ENOTDIR): "a directory can only be mounted on a directory, and a file only on a file",
    ("fsopen", errno.ENODEV): "this kernel does not know that file system type (is its module loaded?)",
    (
        "pivot_root",
        errno.EINVAL,
    ): "the new root must be a mount point, and no mount above it may be shared: make the"
    " mount tree private first",
    ("pivot_root", errno.EBUSY): "the new root is the current root: bind-mount it on itself first",
    ("sethostname", errno.EPERM): "changing the host name needs CAP_SYS_ADMIN in this UTS namespace",
}
_BY_NUMBER: dict[int, str] = {
    errno.EPERM: _NEED_ROOT,
    errno.EACCES: "check the permissions of the path and of each directory above it",
    errno.ENOSYS: "this kernel is too old for the call, or a seccomp profile hides it",
    errno.ENOSPC: "free some space: `minicontainer rm` old containers, `minicontainer rmi` old images, or look at `df`",
    errno.EDQUOT: "the user's disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOMEM: "the machine, or the cgroup, is out of memory",
    errno.ELOOP: "too many symbolic links on the way, or one where none is allowed",
}


def explain(call: str, number: int) -> str:
    """What to do about error `number` of system call `call`; an empty string where nothing useful is known."""
    return _BY_CALL.get((call, number)) or _BY_NUMBER.get(number, "")


def describe(error: OSError) -> str:
    """One line for an OSError: call, path and the error's own words, as ``mount /proc: Operation not permitted``."""
    words = [getattr(error, "syscall", ""), str(error.filename) if error.filename is not None else ""]
    subject = " ".join(word for word in words if word)
    text = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return f"{subject}: {text}" if subject else text
