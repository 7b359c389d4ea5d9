"""What stands on what: stacks of layers side by side, as in the talk's picture of virtual machines and containers.

Used in lab 00. Unlike the other pictures it draws what it is told, not what the kernel says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minicontainer.course.show.picture import CHARACTER, LINE, MARGIN, Picture, box, text

_ROOM = 3 * CHARACTER  # beside a label, inside its box
_GAP = 6
_HEIGHT = LINE + 8
_BETWEEN = 3 * MARGIN


def stacks(title: str, columns: Mapping[str, Sequence[Sequence[str]]]) -> Picture:
    """One stack for each entry of `columns`: its name, and its rows from the top down; a row holds boxes side by side.

    >>> print(stacks("A house", {"house": [["roof"], ["left", "right"]]}))
    A house
    house
    [      roof      ]
    [ left  ][ right ]
    """
    widths = {name: _width(rows) for name, rows in columns.items()}
    tallest = max(len(rows) for rows in columns.values())
    elements, x = [], float(MARGIN)
    for name, rows in columns.items():
        # All stacks stand on the same ground, so a shorter one begins lower.
        top = MARGIN + LINE + 4 + (tallest - len(rows)) * (_HEIGHT + _GAP)
        elements.append(text(name, x, top - 12, bold=True))
        for index, row in enumerate(rows):
            elements += _row(row, x, top + index * (_HEIGHT + _GAP), widths[name])
        x += widths[name] + _BETWEEN
    described = [
        f"{name}, from the top down: " + "; ".join(", ".join(row) for row in rows)
        for name, rows in columns.items()
    ]
    height = 2 * MARGIN + LINE + tallest * (_HEIGHT + _GAP)
    return Picture(title, ". ".join(described) + ".", x - _BETWEEN + MARGIN, height, elements, _text(columns))


def _width(rows: Sequence[Sequence[str]]) -> float:
    """Wide enough for the row with most in it: the boxes of a row are all as wide as each other."""
    return max(len(row) * (max(map(len, row)) * CHARACTER + _ROOM) + (len(row) - 1) * _GAP for row in rows)


def _row(row: Sequence[str], x: float, y: float, width: float) -> list[str]:
    each = (width - (len(row) - 1) * _GAP) / len(row)
    parts = []
    for index, label in enumerate(row):
        left = x + index * (each + _GAP)
        parts.append(box(left, y, each, _HEIGHT))
        parts.append(text(label, left + (each - len(label) * CHARACTER) / 2, y + LINE / 2 + 8))
    return parts


def _text(columns: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    lines: list[str] = []
    for name, rows in columns.items():
        width = max(len(row) * (max(map(len, row)) + 4) for row in rows)
        lines += ["", name] if lines else [name]
        for row in rows:
            sizes = [width // len(row) + (index < width % len(row)) - 2 for index in range(len(row))]
            lines.append("".join(f"[{label:^{size}}]" for label, size in zip(row, sizes, strict=True)))
    return lines
