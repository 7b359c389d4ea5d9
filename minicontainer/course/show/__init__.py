"""Pictures of the kernel's real state, drawn from /proc: deterministic SVG, and text for everywhere else.

Each function returns a :class:`~minicontainer.course.show.picture.Picture`: shown by Jupyter as SVG in the theme's own
colours, and by ``print`` as text that says the same. Nothing is told by colour alone.
"""

from __future__ import annotations

from minicontainer.course.show.namespaces import namespaces
from minicontainer.course.show.picture import Picture
from minicontainer.course.show.processes import processes
from minicontainer.course.show.stacks import stacks

__all__ = ["Picture", "namespaces", "processes", "stacks"]
