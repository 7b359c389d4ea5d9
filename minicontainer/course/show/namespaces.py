"""Who is in which namespace, as lsns(8) lists it: a letter for each different one.

The inode numbers of /proc/PID/ns differ on every run; the letters do not, so that two runs can be compared. Used from
lab 00 on. Man page: namespaces(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minicontainer.course import proc
from minicontainer.course.show.picture import CHARACTER, LINE, MARGIN, Picture, box, line, text

_ORDER = ("pid", "mnt", "uts", "ipc", "net", "user", "cgroup", "time")


def namespaces(
    *processes: int | Mapping[str, int], names: Iterable[str] | None = None, inodes: bool = False
) -> Picture:
    """A row for each kind of namespace, a column for each process; equal letters are the same namespace.

    >>> namespaces({"me": 1, "you": 1}, names=["uts"])          # doctest: +SKIP
    Namespaces
           me  you
    uts    a   a

    :param processes: PIDs, or dictionaries of a label for each PID.
    :param names: which kinds, as in /proc/PID/ns; all by default.
    :param inodes: show the real numbers beside the letters.
    :raises OSError: for a process that is gone, or that we may not look at.
    """
    columns: dict[str, int] = {}
    for each in processes:
        columns.update(each if isinstance(each, Mapping) else {str(each): each})
    members = {label: proc.namespaces(pid) for label, pid in columns.items()}
    known = {name for spaces in members.values() for name in spaces}
    kinds = list(names) if names is not None else [name for name in _ORDER if name in known]
    rows = [_row(kind, members, inodes) for kind in kinds]
    return _draw(
        ["", *members], [[kind, *cells] for kind, cells in zip(kinds, rows, strict=True)], kinds, rows
    )


def _row(kind: str, members: dict[str, dict[str, int]], inodes: bool) -> list[str]:
    """The letters of one kind: "a" for the first column's, the next letter for each one not seen before."""
    letters: dict[int, str] = {}
    cells = []
    for spaces in members.values():
        number = spaces.get(kind)
        if number is None:
            cells.append("-")
            continue
        letter = letters.setdefault(number, _letter(len(letters)))
        cells.append(f"{letter} {number}" if inodes else letter)
    return cells


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"a{index}"


def _draw(heads: list[str], table: list[list[str]], kinds: list[str], rows: list[list[str]]) -> Picture:
    widths = [max(len(str(line[column])) for line in [heads, *table]) + 3 for column in range(len(heads))]
    starts = [MARGIN + sum(widths[:column]) * CHARACTER for column in range(len(heads))]
    width = MARGIN * 2 + sum(widths) * CHARACTER
    elements = [text(head, x, MARGIN + 14, bold=True) for head, x in zip(heads, starts, strict=True)]
    elements.append(line(MARGIN, MARGIN + LINE, width - MARGIN, MARGIN + LINE))
    for index, cells in enumerate(table):
        y = MARGIN + (index + 1) * LINE
        elements.append(text(cells[0], starts[0], y + 16))
        for column, cell in enumerate(cells[1:], 1):
            # A box around each that is not the first process's: new namespaces catch the eye without colour.
            if cell != "-" and cell.split()[0] != "a":
                elements.append(box(starts[column] - 5, y + 2, len(cell) * CHARACTER + 10, LINE - 4))
            elements.append(text(cell, starts[column], y + 16))
    lines = [
        "".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()
        for cells in [heads, *table]
    ]
    different = [
        kind for kind, cells in zip(kinds, rows, strict=True) if len({cell.split()[0] for cell in cells}) > 1
    ]
    description = (
        f"A table of {len(kinds)} kinds of namespaces for {', '.join(heads[1:])}. "
        "Equal letters are the same namespace; "
        + (f"they differ in {', '.join(different)}." if different else "all are shared.")
    )
    return Picture("Namespaces", description, width, MARGIN * 2 + (len(table) + 1) * LINE, elements, lines)
