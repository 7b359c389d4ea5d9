"""The id maps of a new user namespace. Lab 06. Man pages: user_namespaces(7), newuidmap(1), newgidmap(1).

Whoever holds CAP_SETUID over the parent namespace writes any map; an ordinary user may map their own id, and ranges
lent to them in /etc/subuid through the set-user-ID programs newuidmap and newgidmap.
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import StepError
from minicontainer.linux.libc import SyscallError

Mapping = dict[str, int]


def write_maps(pid: int, uids: list[Mapping], gids: list[Mapping]) -> None:
    """Give the user namespace of process `pid` its ids, each map once.

    :param uids: OCI mappings: containerID, hostID, size.
    :raises StepError: where the kernel or newuidmap refuses.
    """
    try:
        if os.geteuid() != 0 and not (len(uids) == 1 and uids[0]["size"] == 1):
            _by_helper(pid, uids, gids)
            return
        _write(f"/proc/{pid}/uid_map", _text(uids))
        if os.geteuid() != 0:
            # An unprivileged gid_map is refused with EPERM until setgroups(2) is given up (CVE-2014-8989).
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/gid_map", _text(gids))
    except OSError as error:
        raise StepError(
            f"map_ids: {error.filename}: {error.strerror}",
            step="map_ids",
            syscall="write",
            errno=error.errno or 0,
            path=str(error.filename),
            hint="an ordinary user may map only the own id and the ranges in /etc/subuid and /etc/subgid",
        ) from error


def _text(mappings: list[Mapping]) -> str:
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        failure = SyscallError(error.errno, error.strerror, path)
        failure.syscall = "write"
        raise failure from error
    finally:
        os.close(descriptor)


def _by_helper(pid: int, uids: list[Mapping], gids: list[Mapping]) -> None:
    """Through newuidmap and newgidmap, which check the ranges lent to the caller."""
    import subprocess

    for program, mappings in (("newuidmap", uids), ("newgidmap", gids)):
        numbers = [str(entry[key]) for entry in mappings for key in ("containerID", "hostID", "size")]
        try:
            done = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise StepError(
                f"map_ids: {program} not found",
                step="map_ids",
                errno=errno.ENOENT,
                path=program,
                hint="install it (Debian: apt install uidmap), or map a single id",
            ) from error
        if done.returncode != 0:
            raise StepError(
                f"map_ids: {program}: {done.stderr.strip()}",
                step="map_ids",
                hint="check /etc/subuid and /etc/subgid",
            )
