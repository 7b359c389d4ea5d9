"""Listing: rows of containers or images as a table, as JSON, or through a template, as ``--format`` asks.

A row is an object with ``fields()`` and ``field(name)``; its class names the headers, so that ``table {{.ID}}`` can
have a heading. Source: docker/cli, cli/command/formatter.
"""

from __future__ import annotations

from minicontainer.cli.text import table, visible
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Row:
    """Base of rows: a field is a method of its name, computed when it is asked for.

    :cvar HEADERS: the fields, and their headings.
    """

    HEADERS: dict[str, str] = {}

    def field(self, name: str) -> Any:
        """A field's text, safe for a terminal.

        :raises TemplateError: there is no such field.
        """
        if name not in self.HEADERS:
            raise _no_field(name, self.HEADERS)
        return visible(getattr(self, name)())

    def fields(self) -> dict[str, Any]:
        """All fields, by name, as they are: JSON escapes what a terminal must not get."""
        return {name: getattr(self, name)() for name in sorted(self.HEADERS)}


class _Heading:
    """Stands in for a row to make the heading: a field is its header, ``.Label "k"`` is k."""

    def __init__(self, headers: dict[str, str], calls: dict[str, Callable[[str], str]]) -> None:
        self._headers = headers
        self._calls = calls

    def field(self, name: str) -> Any:
        if name in self._calls:
            return self._calls[name]
        if name not in self._headers:
            raise _no_field(name, self._headers)
        return self._headers[name]

    def fields(self) -> dict[str, str]:
        return self._headers


def _no_field(name: str, known: dict[str, str]) -> Exception:
    from minicontainer.cli.template import TemplateError

    return TemplateError(
        f'executing "" at <.{name}>: no field {name}; there are {", ".join(known)}', parsing=False
    )


def rendered(rows: Sequence[Row], kind: type[Row], columns: Sequence[str], form: str | None) -> str:
    """The whole listing as text.

    :param kind: the rows' class, which an empty listing needs too.
    :param columns: the fields of the plain table.
    :param form: the value of ``--format``, None for the plain table.
    :raises UsageError: a template that cannot be parsed, or names a field that there is not.
    """
    if form is None or form == "table" or form == "":
        heading = tuple(kind.HEADERS[name] for name in columns)
        return table([heading, *(tuple(visible(getattr(row, name)()) for name in columns) for row in rows)])
    from minicontainer.cli import template

    if form == "json":
        return "".join(template.to_json(row.fields()) + "\n" for row in rows)
    as_table = form.startswith("table ")
    text = form.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    try:
        parsed = template.Template(text)
        heading_text = parsed(_Heading(kind.HEADERS, {"Label": lambda name: name}))
        lines = [parsed(row) for row in rows]
    except template.TemplateError as error:
        what = "failed to parse template" if error.parsing else "failed to execute template"
        raise UsageError(f"{what}: {error}", exit_code=1) from None
    if as_table:
        return table([tuple(line.split("\t")) for line in (heading_text, *lines)])
    return "".join(line + "\n" for line in lines)
