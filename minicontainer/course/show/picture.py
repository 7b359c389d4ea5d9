"""A picture with its text: what every function of :mod:`minicontainer.course.show` returns.

Jupyter takes the HTML form: inline SVG in ``currentColor``, so that it follows a dark or light theme. The stand-alone
SVG form has a light ground of its own, for places that show it as an image, where no theme's colour reaches it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from html import escape

CHARACTER = 8  # pixels of one monospaced character at 13 pixels
LINE = 22
MARGIN = 12
_STYLE = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px"


def text(content: str, x: float, y: float, *, bold: bool = False, faint: bool = False) -> str:
    """An SVG text element; `content` may be hostile (a process's name), so it is escaped here and nowhere else."""
    weight = ' font-weight="bold"' if bold else ""
    opacity = ' opacity="0.75"' if faint else ""
    place = f'x="{x:g}" y="{y:g}" fill="currentColor"{weight}{opacity} xml:space="preserve"'
    return f"<text {place}>{plain(content)}</text>"


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="currentColor" opacity="0.5"/>'


def box(x: float, y: float, width: float, height: float, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="none"'
        f' stroke="currentColor"{dash}/>'
    )


def plain(content: str) -> str:
    """`content` as text inside XML: markup escaped, characters that XML forbids or that steer a terminal shown."""
    return escape(visible(content))


def visible(content: str) -> str:
    """Control characters of a name that somebody else chose, made visible."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in content)


class Picture:
    """A title, a description in words, SVG elements, and the same as text.

    :param elements: SVG elements made by this module's functions.
    :param lines: the text form.
    """

    def __init__(
        self,
        title: str,
        description: str,
        width: float,
        height: float,
        elements: Iterable[str],
        lines: Iterable[str],
    ) -> None:
        self.title = title
        self.description = description
        self.width = width
        self.height = height
        self._body = "\n".join(elements)
        self.lines = [visible(each) for each in lines]

    def __repr__(self) -> str:
        return "\n".join([self.title, *self.lines])

    def _svg(self, attributes: str, ground: str = "") -> str:
        # The ids tie title and description to the picture; from the content, so that equal pictures are equal text.
        name = "mc" + hashlib.sha256((self.title + self._body).encode(errors="replace")).hexdigest()[:10]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{name}t {name}d"'
            f' viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}"'
            f' style="{_STYLE};max-width:100%{attributes}">\n'
            f'<title id="{name}t">{plain(self.title)}</title>\n<desc id="{name}d">{plain(self.description)}</desc>\n'
            f"{ground}{self._body}\n</svg>"
        )

    def _repr_html_(self) -> str:
        return f"<div>{self._svg('')}</div>"

    def _repr_svg_(self) -> str:
        ground = f'<rect width="{self.width:g}" height="{self.height:g}" fill="#ffffff"/>\n'
        return self._svg(";color:#1f2328", ground)
