"""Text: durations, sizes, quoting and tables as Docker prints them, safe for a terminal.

What is shown may come from an image or from another user's command line, so control characters (an escape sequence
can retitle, recolour or even answer for a terminal) are always shown, never sent.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHORT = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, carried by surrogateescape (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """The text with everything that does not print replaced by an escape such as ``\\x1b``.

    >>> visible("a\\x1b[31mred")
    'a\\\\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def quote(text: str) -> str:
    """The text in double quotes, as Go's strconv.Quote writes it.

    >>> print(quote('sh -c "x"'))
    "sh -c \\"x\\""
    """
    return '"' + visible(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last one ``…`` where something was cut.

    >>> ellipsis("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def duration(seconds: float) -> str:
    """A duration in words, rounded as Docker rounds it (go-units HumanDuration).

    >>> duration(0.3), duration(59), duration(60), duration(5400)
    ('Less than a second', '59 seconds', 'About a minute', '2 hours')
    """
    whole = int(seconds)
    minutes = whole // 60
    hours = int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds // 3600) // 24 // 365} years"


def size(number: float) -> str:
    """A size in decimal units with three significant digits (go-units HumanSize).

    >>> size(0), size(1984000), size(12345), size(999999)
    ('0B', '1.98MB', '12.3kB', '1MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError("the last unit always returns")


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as columns: at least ten wide, three spaces apart, the last one not padded (Go's tabwriter 10, 1, 3).

    >>> print(table([("ID", "NAME"), ("8223d5afe651", "web")]), end="")
    ID             NAME
    8223d5afe651   web
    """
    rows = list(rows)
    widths: dict[int, int] = {}
    for row in rows:
        for index, cell in enumerate(row[:-1]):
            widths[index] = max(widths.get(index, 10), len(cell) + 3)
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[index]) for index, cell in enumerate(row[:-1])]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)
