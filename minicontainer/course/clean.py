"""The last cell of each notebook: show that nothing of ours is left on the machine.

What counts as ours: processes below this kernel (zombies too), containers, mounts below our directories, cgroups below
our parent, and the checks' temporary directories. The fork server may stay: it belongs to the kernel and ends with it.
Man pages: proc(5) for mountinfo, cgroups(7).
"""

from __future__ import annotations

import glob
import os
import re
import tempfile

from minicontainer import paths
from minicontainer.cgroup.group import parent_path
from minicontainer.cgroup.hierarchy import detect
from minicontainer.course import proc
from minicontainer.errors import MinicontainerError

_before: set[str] = set()


def mark() -> None:
    """Remember, in a notebook's first cell, what is there already and is not the notebook's to clear."""
    _before.clear()
    _before.update(_everything(os.getpid()))


def leftovers(pid: int | None = None) -> list[str]:
    """What of ours is there that was not when :func:`mark` was called, one line each.

    :param pid: the process below which processes are looked for; this one by default.
    """
    return [line for line in _everything(os.getpid() if pid is None else pid) if line not in _before]


def assert_clean() -> None:
    """Print one line that says that nothing is left.

    :raises MinicontainerError: naming what is left.
    """
    left = leftovers()
    if left:
        raise MinicontainerError(
            f"{len(left)} left behind: " + "; ".join(left),
            hint="end the processes, remove the containers, or restart the kernel and run the notebook from the top",
        )
    print("clean: no process, container, mount, cgroup or temporary directory of ours is left")


def _everything(pid: int) -> list[str]:
    return [*_processes(pid), *_containers(), *_mounts(), *_cgroups(), *_directories()]


def _processes(pid: int) -> list[str]:
    server = _fork_server()
    below = [
        each
        for each in proc.descendants(pid)
        if each.pid != server and not _is_spare(each, server) and not _is_jupyters(each)
    ]
    return [f"process {each.pid} ({each.name}{', a zombie' if each.state == 'Z' else ''})" for each in below]


def _fork_server() -> int:
    """The PID of this process's fork server, without starting one; 0 where there is none."""
    from minicontainer.runtime import forkserver

    current = forkserver._shared
    return current.pid if current is not None and current.alive() else 0


def _is_spare(process: proc.Process, server: int) -> bool:
    """Whether it is the fork server's child that waits for the next request: it belongs to the server."""
    from minicontainer.runtime.forkserver import SPARE

    return process.parent == server and process.name == SPARE


def _is_jupyters(process: proc.Process) -> bool:
    """Whether Python's multiprocessing, which Jupyter and matplotlib may use, keeps this helper beside the kernel."""
    return b"multiprocessing.resource_tracker" in proc.read(process.pid, "cmdline")


def _containers() -> list[str]:
    records = sorted(
        glob.glob(os.path.join(glob.escape(str(paths.data_root())), "containers", "*", "record.json"))
    )
    return [f"container {os.path.basename(os.path.dirname(record))[:12]}" for record in records]


def _mounts() -> list[str]:
    """Mounts in this mount namespace at places that are ours."""
    roots = tuple(f"{root}/" for root in (paths.data_root(), paths.run_root()))
    left = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            # Space, tab, newline and backslash are written in octal there (man 5 proc).
            place = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])
            if place.startswith(roots) or "/minicontainer-" in place:
                left.append(f"mount {place}")
    return left


def _cgroups() -> list[str]:
    """The groups below our parent group; the empty parent itself may stay."""
    found = {
        path.rstrip("/")
        for root in detect().directories()
        for path in glob.glob(os.path.join(glob.escape(root), parent_path(), "*", ""))
    }
    return [f"cgroup {path}" for path in sorted(found)]


def _directories() -> list[str]:
    found = glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), "minicontainer-check-*"))
    return [f"directory {path}" for path in sorted(found) if os.lstat(path).st_uid == os.geteuid()]
