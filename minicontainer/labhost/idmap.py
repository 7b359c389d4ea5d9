"""Which ids an ordinary user may have inside a user namespace: their own, and a range lent by the administrator.

Lab 06. The kernel lets anyone map one id, their own. A range of others (/etc/subuid, /etc/subgid) is written into
the map by the set-user-ID programs newuidmap and newgidmap. Man pages: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from minicontainer.errors import MinicontainerError


@dataclass(frozen=True)
class Range:
    """Consecutive ids: `count` of them, from `inside` in the new namespace and from `outside` in ours."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True)
class IdMaps:
    """What goes into a new namespace's uid_map and gid_map.

    :ivar why_single: why only one id could be mapped, in words; empty where a whole range is.
    """

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    why_single: str = ""


def subordinate_range(path: str, names: tuple[str, ...]) -> tuple[int, int] | None:
    """The first (start, count) lent to one of `names` in a file like /etc/subuid, or None (man 5 subuid)."""
    try:
        with open(path) as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
                    return int(fields[1]), int(fields[2])
    except FileNotFoundError:
        return None
    return None


def _names(uid: int) -> tuple[str, ...]:
    """How a user is called in /etc/subuid: by name, or by number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)


def no_new_privileges() -> bool:
    """Whether set-user-ID programs such as newuidmap have no effect for this process (man 2 prctl)."""
    with open("/proc/self/status") as file:
        return any(line.split() == ["NoNewPrivs:", "1"] for line in file)


def choose(*, single: bool = False) -> IdMaps:
    """The widest map that the calling user can have: their own id as root, then the lent range from 1 upwards.

    :param single: map one id only, as where nothing is lent.
    """
    uid, gid = os.geteuid(), os.getegid()
    uids, gids = [Range(0, uid, 1)], [Range(0, gid, 1)]
    reason = "asked for" if single else ""
    if not single:
        names = _names(uid)
        lent_uids, lent_gids = (
            subordinate_range("/etc/subuid", names),
            subordinate_range("/etc/subgid", names),
        )
        missing = [program for program in ("newuidmap", "newgidmap") if shutil.which(program) is None]
        if missing:
            reason = f"{' and '.join(missing)} not found (Debian: apt install uidmap)"
        elif lent_uids is None or lent_gids is None:
            reason = f"no range for {names[0]} in /etc/subuid and /etc/subgid (usermod --add-subuids, --add-subgids)"
        elif no_new_privileges():
            reason = "no_new_privs is set, so newuidmap cannot gain the right it needs"
        else:
            uids.append(Range(1, *lent_uids))
            gids.append(Range(1, *lent_gids))
    return IdMaps(tuple(uids), tuple(gids), reason)


def write(pid: int, maps: IdMaps) -> None:
    """Give the new user namespace of process `pid` its ids (man 7 user_namespaces); each map is written once.

    :raises MinicontainerError: where the kernel or newuidmap refuses.
    """
    if maps.why_single:
        _write_file(pid, "uid_map", f"{maps.uids[0].inside} {maps.uids[0].outside} 1")
        # Without this a process could leave a group that only serves to forbid things (CVE-2014-8989), so the
        # kernel demands it before an unprivileged gid_map: EPERM otherwise.
        _write_file(pid, "setgroups", "deny")
        _write_file(pid, "gid_map", f"{maps.gids[0].inside} {maps.gids[0].outside} 1")
        return
    import subprocess

    for program, ranges in (("newuidmap", maps.uids), ("newgidmap", maps.gids)):
        numbers = [str(number) for entry in ranges for number in (entry.inside, entry.outside, entry.count)]
        done = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True)
        if done.returncode != 0:
            raise MinicontainerError(
                f"{program} failed: {done.stderr.strip() or f'exit status {done.returncode}'}",
                hint="check /etc/subuid and /etc/subgid, and that newuidmap and newgidmap are set-user-ID root"
                " (or hold CAP_SETUID, CAP_SETGID); `minicontainer lab --single-id` does without them",
            )


def _write_file(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MinicontainerError(
            f"cannot write {path}: {error.strerror}",
            hint="this machine restricts user namespaces; `minicontainer doctor` says how to allow them",
        ) from error
