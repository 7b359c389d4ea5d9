"""Handing controllers down the v2 tree: each group decides in ``cgroup.subtree_control`` what its children may limit.

Two rules of the kernel make it interesting. A group below the root may hold processes or hand controllers down, not
both (the leaf rule); and who may do so is decided by who may write the files (delegation). Lab 04. Man page:
cgroups(7) "Subtree delegation" and "no internal processes"; cgroup-v2.rst; systemd's CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from minicontainer.cgroup import files
from minicontainer.errors import StepError

SUPPORTED = frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb"})
LEAF = "init"


def enable(
    root: str, path: str, wanted: Iterable[str], needed: Iterable[str] = (), *, ours: str = ""
) -> None:
    """Enable controllers for the group at `path`, in every group above it.

    :param root: where the v2 hierarchy is mounted.
    :param wanted: controllers to enable where that is possible, for statistics and later updates.
    :param needed: those without which it is an error; controllers that are not on v2 here are passed over.
    :param ours: path of the group below which everything is ours.
    :raises StepError: EBUSY for a group of somebody else's that holds processes, EACCES for one that is not delegated.
    """
    asked = set(wanted) | set(needed)
    if not asked:
        return
    parts = path.split("/")[:-1]
    directories = [root + "".join(f"/{part}" for part in parts[:depth]) for depth in range(len(parts) + 1)]
    # Looked at from below: in the ordinary case the parent has them all, and one small read has told so.
    enabled = set(files.read(f"{directories[-1]}/cgroup.subtree_control").split())
    if asked <= enabled:
        return
    for directory in directories:
        here = set(offered(directory))
        missing = (asked & here) - set(files.read(f"{directory}/cgroup.subtree_control").split())
        if missing:
            _enable(
                directory,
                missing,
                set(needed),
                below_ours=_is_below(directory, f"{root}/{ours}" if ours else ""),
            )


def offered(directory: str) -> list[str]:
    """The controllers that the v2 group at `directory` has from the group above it."""
    return files.read(f"{directory}/cgroup.controllers").split()


def _is_below(directory: str, ours: str) -> bool:
    return bool(ours) and (directory == ours or directory.startswith(ours + "/"))


def _enable(directory: str, missing: set[str], needed: set[str], *, below_ours: bool) -> None:
    path = f"{directory}/cgroup.subtree_control"
    if _holds_processes(directory):
        if below_ours or is_ours(directory):
            make_leaf(directory)
        elif missing & needed:
            raise _explained(path, min(missing & needed), OSError(errno.EBUSY, os.strerror(errno.EBUSY)))
        else:
            return
    if _refusal(path, missing) is None:
        return
    for controller in sorted(missing):  # one that is refused takes the others with it: now each by itself
        error = _refusal(path, {controller})
        if error is not None and controller in needed:
            raise _explained(path, controller, error) from error


def _refusal(path: str, names: set[str]) -> OSError | None:
    """Enable the controllers; the kernel's answer where it does not want to."""
    try:
        files.put(path, " ".join(f"+{name}" for name in sorted(names)))
    except OSError as error:
        return error
    return None


def _holds_processes(directory: str) -> bool:
    """Whether the leaf rule stands against enabling controllers; it does not count for the machine's root.

    We look, since the kernel answers EBUSY for some controllers only. Those that can divide threads (cpu, cpuset, pids)
    it would enable, and turn the groups below into threaded ones that no process can enter (EOPNOTSUPP).
    """
    return os.path.exists(f"{directory}/cgroup.events") and bool(files.read(f"{directory}/cgroup.procs"))


def _explained(path: str, controller: str, error: OSError) -> StepError:
    problem = files.refused(path, f"+{controller}", error)
    directory = os.path.dirname(path)
    if error.errno == errno.EBUSY:
        count = len(files.read(f"{directory}/cgroup.procs").split())
        problem.hint = (
            f"{directory} holds {count} processes, and is not ours to rearrange: a v2 group that holds processes cannot"
            " enable controllers for groups below it. Set MINICONTAINER_CGROUP_PARENT to a group without processes"
        )
    elif error.errno == errno.EINVAL and controller == "cpu":
        problem.hint = "a process with realtime priority is below: the cpu controller of v2 cannot take it"
    elif error.errno == errno.EOPNOTSUPP:
        problem.hint = (
            f"{directory} is a threaded group, which can hand down only controllers that know threads"
        )
    return problem


def is_ours(directory: str) -> bool:
    """Whether processes in the v2 group `directory` may be moved by us.

    It is so where systemd has marked the group as delegated, and at the root of a cgroup namespace that is not the
    machine's root (the inside of a container): there nobody else keeps house.
    """
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            continue  # not marked, or a kernel without such attributes
    return (
        own_path() == "/"
        and os.path.ismount(directory)
        and os.path.exists(f"{directory}/cgroup.events")  # which the machine's root does not have
    )


def own_path(file: str = "/proc/self/cgroup") -> str:
    """Our own v2 group, as seen from our cgroup namespace; empty without a v2 hierarchy (man 7 cgroups)."""
    for line in files.read(file).splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def make_leaf(directory: str) -> None:
    """Move the processes of a group of ours into its leaf ``init``, so that the group can enable controllers.

    :raises StepError: where the kernel does not let us.
    """
    leaf = f"{directory}/{LEAF}"
    try:
        os.mkdir(leaf, 0o755)
    except FileExistsError:
        pass  # from an earlier time
    for _ in range(
        20
    ):  # a process that forks meanwhile leaves its child behind: looked at until nobody is left
        pids = files.read(f"{directory}/cgroup.procs").split()
        if not pids:
            return
        for pid in pids:
            try:
                files.put(f"{leaf}/cgroup.procs", pid)
            except ProcessLookupError:
                continue
            except OSError as error:
                raise files.refused(f"{leaf}/cgroup.procs", pid, error) from error


def delegated_parent(v2: str, name: str) -> str | None:
    """A path below which an ordinary user may make groups: in the subtree that we are in, where it is writable for us.

    :param v2: where the v2 hierarchy is mounted.
    :param name: of the group to be.
    :returns: the path relative to `v2`, or None.
    """
    own = own_path().strip("/")
    if own.split("/")[-1] == LEAF:
        own = own[: -len(LEAF)].rstrip("/")  # where an earlier call has put us
    directory = f"{v2}/{own}" if own else v2
    if not (os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)):
        return None
    return f"{own}/{name}" if own else name
