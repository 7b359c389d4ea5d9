"""The graded items of the course: what each is called, where it stands, what it is worth and what it needs.

An item is declared beside its check function (:func:`minicontainer.course.check.item`) in
``minicontainer/course/checks/labNN.py``; this module knows only the data, so that a grader can list all items
without running anything.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Behaviour:
    """One thing that the learner's function must do, seen from outside.

    :param key: its name inside the check function.
    :param text: the behaviour in words, as the learner reads it.
    :param points: what it is worth.
    :param where: where to look when it is lost: a file of /proc, a man page.
    """

    key: str
    text: str
    points: int
    where: str = ""

    @classmethod
    def table(cls, text: str) -> tuple[Behaviour, ...]:
        """Behaviours from pairs of lines: ``key points what it does``, and below it where to look."""
        lines = text.strip().splitlines()
        rows = [
            (*line.split(maxsplit=2), where.strip())
            for line, where in zip(lines[::2], lines[1::2], strict=True)
        ]
        return tuple(cls(key, text, int(points), where) for key, points, text, where in rows)


@dataclass(frozen=True)
class Item:
    """One graded item.

    :param id: unique in the course, letters, digits, ``_`` and ``-`` only: "lab01-run".
    :param lab: the lab's number: "01".
    :param name: the learner's function, and the check's name in ``checks.labNN``.
    :param signature: exact parameters and result of the function.
    :param title: what the function does, in a few words.
    :param stars: one to three.
    :param behaviours: what is looked at, with points each.
    :param needs: what the machine must offer, else the item is "not gradable here": "namespaces", ...
    :param step: the step of ``minicontainer.runtime.steps`` that the function can stand in for, or "".
    :param limit: seconds that one call of the function may take.
    """

    id: str
    lab: str
    name: str
    signature: str
    title: str
    stars: int
    behaviours: tuple[Behaviour, ...]
    needs: tuple[str, ...] = ()
    step: str = ""
    limit: float = 5.0

    @property
    def points(self) -> int:
        return sum(behaviour.points for behaviour in self.behaviours)


CheckFunction = Callable[..., Any]
_registry: dict[str, tuple[Item, CheckFunction]] = {}


def register(item: Item, function: CheckFunction) -> None:
    """Enter an item and its check function; an id is given once."""
    known = _registry.get(item.id)
    if known is not None and known[0] != item:
        raise ValueError(f"two items are called {item.id}")
    _registry[item.id] = (item, function)


def load() -> None:
    """Import every module of ``minicontainer.course.checks``, which declares the items of its lab."""
    from minicontainer.course import checks

    for module in pkgutil.iter_modules(checks.__path__):
        importlib.import_module(f"{checks.__name__}.{module.name}")


def all_items() -> list[Item]:
    """All items of the course, by lab and then in the order of the lab."""
    load()
    return sorted((item for item, _ in _registry.values()), key=lambda item: item.lab)


def get(identity: str) -> tuple[Item, CheckFunction]:
    """The item and its check function.

    :raises KeyError: for an unknown id.
    """
    load()
    return _registry[identity]
