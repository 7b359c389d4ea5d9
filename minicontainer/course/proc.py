"""What the kernel says about processes: /proc/PID/stat, status, ns. Read by the checks and by the pictures.

Man page: proc(5), pid_namespaces(7) for the NSpid line, namespaces(7) for /proc/PID/ns.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Process(NamedTuple):
    """One process as /proc shows it, PIDs as seen from here.

    :ivar numbers: its PID in each PID namespace it is in, from ours to its own (the NSpid line).
    """

    pid: int
    parent: int
    state: str
    name: str
    numbers: tuple[int, ...]


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status by their name; empty where there is no such process any more."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read().decode(errors="backslashreplace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in fields}


def process(pid: int) -> Process | None:
    """The process `pid`, or None where it is gone."""
    lines = status(pid)
    if not lines:
        return None
    numbers = tuple(int(number) for number in lines.get("NSpid", str(pid)).split())
    return Process(pid, int(lines["PPid"]), lines["State"][:1], lines["Name"], numbers)


def processes() -> dict[int, Process]:
    """All processes that this /proc shows, by PID."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {each.pid: each for each in found if each is not None}


def children(pid: int) -> list[Process]:
    """The children of `pid`, in the order of their PIDs; zombies (state "Z") among them."""
    return sorted(each for each in processes().values() if each.parent == pid)


def descendants(pid: int) -> list[Process]:
    """The children of `pid`, their children, and so on; parents before their children."""
    everything = processes()
    found: list[Process] = []
    generation = {pid}
    while generation:
        following = sorted(each for each in everything.values() if each.parent in generation)
        found.extend(following)
        generation = {each.pid for each in following}
    return found


# Not namespaces that a process is in, but those its next children will be in (man 7 namespaces).
_FOR_CHILDREN = ("pid_for_children", "time_for_children")


def namespaces(pid: int | str) -> dict[str, int]:
    """The namespaces of `pid`: inode number by name, as the links in /proc/PID/ns show them.

    :raises OSError: for a process that is gone, or that we may not look at.
    """
    directory = f"/proc/{pid}/ns"
    return {
        name: os.stat(f"{directory}/{name}").st_ino
        for name in sorted(os.listdir(directory))
        if name not in _FOR_CHILDREN
    }


def read(pid: int, name: str) -> bytes:
    """The whole of /proc/PID/NAME, or nothing where the process is gone."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def link(pid: int, name: str) -> str:
    """Where the link /proc/PID/NAME leads ("root", "cwd", "exe"), or "" where the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return ""
