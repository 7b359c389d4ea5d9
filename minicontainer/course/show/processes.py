"""The process tree, with each process's PID in every PID namespace it is in (the NSpid line of /proc/PID/status).

Used from lab 02 on. Man pages: pid_namespaces(7), proc(5).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from minicontainer.course import proc
from minicontainer.course.show.picture import CHARACTER, LINE, MARGIN, Picture, box, line, text

_INDENT = 28
_STATES = {"Z": "zombie", "T": "stopped", "t": "traced"}


class _Entry(NamedTuple):
    process: proc.Process
    depth: int
    parent: int  # its parent's place in the list, or -1


def processes(pid: int | None = None, *, depth: int | None = None) -> Picture:
    """The tree of processes below `pid` (this process by default).

    A process that is PID 1 of a PID namespace begins a dashed box: what is inside sees only what is inside.

    :param depth: how many generations below `pid` to show; all by default.
    :raises ProcessLookupError: where there is no such process.
    """
    top = os.getpid() if pid is None else pid
    everything = proc.processes()
    if top not in everything:
        raise ProcessLookupError(f"there is no process {top}")
    entries: list[_Entry] = []
    _walk(everything, everything[top], 0, -1, depth, entries)
    labels = [_label(each.process) for each in entries]
    width = max(
        MARGIN * 3 + each.depth * _INDENT + len(label) * CHARACTER
        for each, label in zip(entries, labels, strict=True)
    )
    elements, lines = [], []
    for index, (entry, label) in enumerate(zip(entries, labels, strict=True)):
        x, y = MARGIN + entry.depth * _INDENT, MARGIN + index * LINE
        if entry.parent >= 0:
            corner = x - _INDENT / 2
            elements.append(line(corner, MARGIN + entry.parent * LINE + LINE - 4, corner, y + LINE / 2))
            elements.append(line(corner, y + LINE / 2, x, y + LINE / 2))
        if _begins_namespace(entry, entries):
            inside = sum(1 for _ in _subtree(entries, index))
            elements.append(box(x - 4, y + 1, width - x - MARGIN + 4, inside * LINE - 2, dashed=True))
        elements.append(text(label, x + 4, y + 16, bold=entry.process.numbers[-1] == 1))
        lines.append("   " * entry.depth + ("└─ " if entry.depth else "") + label)
    spaces = sum(1 for each in entries if _begins_namespace(each, entries))
    description = (
        f"{len(entries)} processes in a tree below PID {top}; {spaces} begin a PID namespace (dashed box). "
        "A line names the program and its PID in each PID namespace, from ours inward."
    )
    return Picture("Processes", description, width, MARGIN * 2 + len(entries) * LINE, elements, lines)


def _walk(
    everything: dict[int, proc.Process],
    process: proc.Process,
    depth: int,
    parent: int,
    limit: int | None,
    found: list[_Entry],
) -> None:
    place = len(found)
    found.append(_Entry(process, depth, parent))
    if limit is not None and depth >= limit:
        return
    for each in sorted(everything.values()):
        if each.parent == process.pid and each.pid != process.pid:
            _walk(everything, each, depth + 1, place, limit, found)


def _label(process: proc.Process) -> str:
    outer, *inner = process.numbers
    words = f"{process.name}  PID {outer}" + "".join(f" → {number}" for number in inner)
    state = _STATES.get(process.state)
    return f"{words}  ✝ {state}" if state == "zombie" else f"{words}  ({state})" if state else words


def _begins_namespace(entry: _Entry, entries: list[_Entry]) -> bool:
    if entry.parent < 0:
        return False
    return len(entry.process.numbers) > len(entries[entry.parent].process.numbers)


def _subtree(entries: list[_Entry], index: int) -> list[_Entry]:
    found = [entries[index]]
    for each in entries[index + 1 :]:
        if each.depth <= entries[index].depth:
            break
        found.append(each)
    return found
