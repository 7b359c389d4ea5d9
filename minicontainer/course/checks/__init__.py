"""The check functions, one module per lab, one function per graded item: ``checks.lab01.run(run)``.

Each looks at what the kernel says while the learner's function works, and never at its source text.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Load a lab's checks on first use."""
    if name.startswith("lab"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"there are no checks called {name!r}")
