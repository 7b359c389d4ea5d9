"""course: what the notebooks lean on: checks, pictures, shell lines, the clean-up cell, the exercises' generator.

A lesson begins with ``from minicontainer.course import check, checks, show, sh`` and uses:

* ``checks.lab01.run(run)``: watch the learner's function at work and say what was seen, with points (:mod:`.check`);
* ``show.processes()``, ``show.namespaces()``: pictures of the kernel's real state (:mod:`.show`);
* ``sh("ps -e")``: a shell line whose output is the cell's output (:mod:`.shell`);
* ``clean.assert_clean()``: the last cell of each notebook (:mod:`.clean`).

The learner's functions never run in the notebook's kernel: :mod:`.stage` says where they do, and who watches.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["check", "checks", "clean", "generate", "sh", "show"]


def __getattr__(name: str) -> Any:
    """Load the helpers on first use: a notebook that only checks should not wait for the pictures."""
    if name == "sh":
        from minicontainer.course.shell import sh

        return sh
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
