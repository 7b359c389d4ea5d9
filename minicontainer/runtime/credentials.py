"""Who the program is and what it may do: ids, groups, capabilities, limits. Lab 06.

The order matters: the bounding set is cut while CAP_SETPCAP is held, groups and ids are set while CAP_SETGID and
CAP_SETUID are, and the sets themselves come last. Man pages: capabilities(7), credentials(7), setresuid(2),
setgroups(2), setrlimit(2). Docker's default set is moby's oci/caps/defaults.go.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from typing import Any

from minicontainer.errors import StepError
from minicontainer.linux import capability
from minicontainer.linux.process import PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, prctl

_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def drop_capabilities(keep: list[str]) -> None:
    """Keep the capabilities in `keep` that this process has, and none else, in any set.

    :raises SyscallError: EPERM without CAP_SETPCAP.
    """
    held = capability.mask(tuple(keep)) & capability.get()[1]
    capability.drop_bounding(held)
    capability.assign(held, held, 0)


def apply_limits(process: dict[str, Any]) -> None:
    """Resource limits and the out-of-memory score (OCI ``process.rlimits``, ``process.oomScoreAdj``).

    :raises StepError: for a limit that does not exist or may not be raised (man 2 setrlimit, EPERM).
    """
    for limit in process.get("rlimits", []):
        number = getattr(resource, limit["type"], None)
        if number is None:
            raise StepError(f"rlimits: {limit['type']} is not a resource limit", step="rlimits")
        soft, hard = (_signed(limit[key]) for key in ("soft", "hard"))
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            raise StepError(
                f"rlimits: cannot set {limit['type']} to {soft}:{hard}: {error}",
                step="rlimits",
                syscall="setrlimit",
                errno=errno.EPERM,
                hint="raising a hard limit needs CAP_SYS_RESOURCE; ask for a lower one",
            ) from error
    score = process.get("oomScoreAdj")
    if score is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))


def _signed(value: int) -> int:
    """RLIM_INFINITY is 2**64-1 in the specification's JSON and -1 in Python."""
    return -1 if value >= 2**63 else value


def become(process: dict[str, Any], *, keep_groups: bool = False) -> None:
    """Take on the identity in an OCI ``process`` object: groups, user, capabilities, no_new_privs.

    Capabilities we do not hold ourselves are left out, so that a root with a reduced set can still make containers.

    :raises SyscallError: EPERM; EINVAL for an id that the user namespace does not map.
    """
    user = process.get("user", {})
    wanted = process.get("capabilities")
    permitted_now = capability.get()[1]
    masks = {}
    for name in _SETS:
        names = (wanted or {}).get(name, [])
        masks[name] = capability.mask(tuple(names)) & permitted_now
    if wanted is not None:
        capability.drop_bounding(masks["bounding"])
        prctl(PR_SET_KEEPCAPS, 1)
    if not keep_groups:
        _set_groups(user.get("additionalGids", []))
    gid, uid = user.get("gid", 0), user.get("uid", 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if "umask" in user:
        os.umask(user["umask"])
    if wanted is not None:
        prctl(PR_SET_KEEPCAPS, 0)
        permitted = masks["permitted"]
        capability.assign(masks["effective"] & permitted, permitted, masks["inheritable"])
        capability.set_ambient(masks["ambient"] & permitted & masks["inheritable"])
    if process.get("noNewPrivileges"):
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def _set_groups(groups: list[int]) -> None:
    """Set the supplementary groups; a user namespace may forbid it (man 7 user_namespaces)."""
    try:
        os.setgroups(groups)
    except PermissionError:
        with open("/proc/self/setgroups") as file:
            denied = file.read().strip() == "deny"
        if not denied or groups:
            raise


def home_of(uid: int) -> str:
    """The home directory that the container's /etc/passwd gives the user, or "/".

    The file is parsed here: the C library's functions would load modules that the image chooses (CVE-2019-14271).
    """
    try:
        descriptor = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "/"
    try:
        data = os.read(descriptor, 1 << 20) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
    for line in data.decode(errors="replace").split("\n"):
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"
