"""What a check says: one row per behaviour, with what was expected, what was seen, and where to look.

A :class:`Report` is the last expression of a check cell. Its ``repr`` is the score as a plain number, because
nbgrader takes the text of the last expression as partial credit; its HTML is a table for a person; ``print`` and
``str`` give the same table as text. Passed and lost are told by a word and a glyph, never by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from minicontainer.course.items import Item

_LONGEST = 300
_WORDS = {True: ("✓", "passed"), False: ("✗", "lost")}


@dataclass(frozen=True)
class Row:
    """One behaviour: expected, got, where to look, and its points."""

    behaviour: str
    expected: str
    got: str
    where: str
    points: int
    passed: bool


@dataclass(frozen=True)
class Report:
    """The result of checking one item.

    :param note: one line above the table: "not attempted", a time limit, ...
    :param output: what the learner's function printed, shortened.
    :param gradable: False where this machine lacks what the item needs; the item is then outside the total.
    """

    item: Item
    rows: tuple[Row, ...] = field(default=())
    note: str = ""
    output: str = ""
    gradable: bool = True

    @property
    def score(self) -> int:
        return sum(row.points for row in self.rows if row.passed)

    @property
    def points(self) -> int:
        return self.item.points

    @property
    def passed(self) -> bool:
        return self.gradable and self.score == self.points

    def __repr__(self) -> str:
        return str(self.score)

    def __float__(self) -> float:
        return float(self.score)

    def __str__(self) -> str:
        lines = [f"{self.item.title} ({self.item.name}): {self._verdict()}"]
        if self.note:
            lines.append(f"  {self.note}")
        for row in self.rows:
            glyph, word = _WORDS[row.passed]
            lines.append(
                f"  {glyph} {word:<6} {row.points if row.passed else 0}/{row.points}  {row.behaviour}"
            )
            if not row.passed:
                lines.append(f"      expected: {row.expected}")
                lines.append(f"      got:      {row.got}")
                if row.where:
                    lines.append(f"      look at:  {row.where}")
        if self.output:
            lines.append("  your function printed:")
            lines.extend("    " + line for line in self.output.splitlines())
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.gradable:
            return "not gradable here"
        return f"{self.score} of {self.points} points"

    def _repr_html_(self) -> str:
        """An accessible table: caption, column and row headers, word and glyph; the theme's own colours."""
        parts = [
            '<table style="border-collapse:collapse;text-align:left" class="minicontainer-report">',
            f'<caption style="text-align:left;font-weight:bold">{escape(self.item.title)}'
            f" (<code>{escape(self.item.name)}</code>): {escape(self._verdict())}</caption>",
        ]
        if self.rows:
            heads = ("", "points", "behaviour", "expected", "got", "where to look")
            cells = "".join(
                f'<th scope="col" style="text-align:left">{head or "result"}</th>' for head in heads
            )
            parts.append(f"<thead><tr>{cells}</tr></thead><tbody>")
            parts.extend(_html_row(row) for row in self.rows)
            parts.append("</tbody>")
        parts.append("</table>")
        if self.note:
            parts.append(f"<p>{escape(self.note)}</p>")
        if self.output:
            parts.append(f"<p>Your function printed:</p><pre>{escape(self.output)}</pre>")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for a gradebook."""
        return {
            "item": self.item.id,
            "score": self.score,
            "points": self.points,
            "gradable": self.gradable,
            "note": self.note,
            "output": self.output,
            "rows": [vars(row).copy() for row in self.rows],
        }


def _html_row(row: Row) -> str:
    glyph, word = _WORDS[row.passed]
    # The bar's two greys-with-a-hint are readable on white and on black; the word beside it says the same.
    colour = "#2e9e5b" if row.passed else "#d1495b"
    style = "text-align:left;vertical-align:top;white-space:pre-wrap"
    cells = [
        f'<td style="{style};border-left:4px solid {colour};padding-left:8px">{glyph} {word}</td>',
        f'<td style="{style}">{row.points if row.passed else 0} of {row.points}</td>',
        f'<th scope="row" style="{style};font-weight:normal">{escape(row.behaviour)}</th>',
    ]
    details = (row.expected, row.got, row.where) if not row.passed else (row.expected, row.got, "")
    cells.extend(f'<td style="{style}">{escape(text)}</td>' for text in details)
    return f"<tr>{''.join(cells)}</tr>"


def shorten(text: str, longest: int = _LONGEST) -> str:
    """`text` fit for a table: control characters made visible, and no longer than `longest`."""
    visible = "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text[: longest + 1]
    )
    return visible if len(visible) <= longest else visible[: longest - 1] + "…"


def show_value(value: object) -> str:
    """A value in a table: as Python writes it; sets in sorted order, so that the same value reads the same."""
    if isinstance(value, str):
        return shorten(repr(value))
    if isinstance(value, (set, frozenset)):
        return (
            shorten("{" + ", ".join(sorted(repr(element) for element in value)) + "}") if value else "set()"
        )
    return shorten(repr(value))
