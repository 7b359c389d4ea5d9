"""Checking a learner's function: watch it at work in another process, and report what was seen.

One check function serves the notebook, pytest, the grading command and nbgrader::

    checks.lab01.run(run)                       # a Report; new random inputs each time
    checks.lab01.run(run, seed="ana", hidden=True)

A check never raises, never hangs and prints nothing: a function that is not written yet is "not attempted", any other
failure is a row with its message. Expected values are computed here, after the fact; the process that runs the
learner's code knows only the inputs (:mod:`minicontainer.course.stage`).

``python -m minicontainer.course.check --list`` prints all items.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from minicontainer.course import dispatch
from minicontainer.course.items import Behaviour, Item, all_items, get, register
from minicontainer.course.report import Report, Row, shorten, show_value

__all__ = ["Behaviour", "Item", "Report", "Row", "Trial", "all_items", "get", "item"]


class _Stop(Exception):
    """The check cannot go on; the rows not yet decided are lost, with the reason."""

    def __init__(self, note: str, *, gradable: bool = True) -> None:
        super().__init__(note)
        self.note = note
        self.gradable = gradable


class Trial:
    """One check of one function: random inputs, what was seen, and the verdict on each behaviour.

    :ivar rng: where all inputs come from; the same seed gives the same inputs.
    :ivar hidden: True for the cases that the learner does not see: other and more inputs, never other requirements.
    """

    def __init__(self, item: Item, packed: bytes, *, hidden: bool, seed: object) -> None:
        self.item = item
        self.hidden = hidden
        base = os.urandom(16).hex() if seed is None else str(seed)
        self.rng = random.Random(f"{base}/{item.id}/{'hidden' if hidden else 'open'}")
        self.output = ""
        self._packed = packed
        self._seen: dict[str, tuple[bool, str, str]] = {}
        self._directories: list[str] = []

    def directory(self) -> str:
        """An empty directory that is gone when the check ends."""
        path = tempfile.mkdtemp(prefix="minicontainer-check-")
        self._directories.append(path)
        return path

    def word(self, length: int = 8) -> str:
        """A random word, for names that nobody can have written into a solution."""
        return "".join(self.rng.choice("abcdefghijkmnpqrstuvwxyz") for _ in range(length))

    def watch(self, scene: Callable[..., Any], /, *parameters: Any, rows: Iterable[str] = ()) -> Any:
        """Play `scene` with the learner's function on the stage; return what it saw.

        :param scene: module-level function ``scene(stage, *parameters)``, see :mod:`minicontainer.course.stage`.
        :param rows: the behaviours that are lost when the function's process ends before its time; None is returned.
        """
        answer = dispatch.play(
            scene,
            self._packed,
            parameters,
            directory=self.directory(),
            limit=self.item.limit,
            needs=self.item.needs,
        )
        if answer.output and len(self.output) < 2000:
            self.output += answer.output
        if answer.unavailable:
            raise _Stop(f"not gradable here: {answer.unavailable}", gradable=False)
        if answer.stop:
            raise _Stop(answer.stop)
        if answer.lost:
            for key in rows:
                self.expect(key, self._text(key), answer.lost, passed=False)
            return None
        return answer.seen

    def expect(self, key: str, expected: object, got: object, *, passed: bool | None = None) -> None:
        """Say what was expected for a behaviour and what was seen; it is kept only if every such call agrees.

        :param passed: the verdict, where it is not whether the two are equal and of one type.
        """
        if passed is None:
            passed = type(expected) is type(got) and expected == got
        before = self._seen.get(key)
        if before is None or before[0]:
            self._seen[key] = (passed, _text(expected), _text(got))

    def rows(self, reason: str) -> tuple[Row, ...]:
        """The verdicts; a behaviour that was never decided is lost, with `reason`."""
        rows = []
        for behaviour in self.item.behaviours:
            passed, expected, got = self._seen.get(behaviour.key, (False, behaviour.text, reason))
            rows.append(Row(behaviour.text, expected, got, behaviour.where, behaviour.points, passed))
        return tuple(rows)

    def close(self) -> None:
        for path in self._directories:
            shutil.rmtree(path, ignore_errors=True)

    def _text(self, key: str) -> str:
        return next(behaviour.text for behaviour in self.item.behaviours if behaviour.key == key)


def item(
    identity: str,
    *,
    signature: str,
    title: str,
    stars: int,
    behaviours: tuple[Behaviour, ...],
    needs: tuple[str, ...] = (),
    step: str = "",
    limit: float = 5.0,
) -> Callable[[Callable[[Trial], None]], Callable[..., Report]]:
    """Declare a graded item; the decorated function looks at the learner's and judges each behaviour on a Trial."""

    def declare(body: Callable[[Trial], None]) -> Callable[..., Report]:
        name = body.__name__
        lab = body.__module__.rpartition(".lab")[2]
        declared = Item(identity, lab, name, signature, title, stars, behaviours, needs, step, limit)

        @functools.wraps(body)
        def check(
            function: Callable[..., Any] | bytes, *, hidden: bool = False, seed: object = None
        ) -> Report:
            return _check(declared, body, function, hidden=hidden, seed=seed)

        check.item = declared  # type: ignore[attr-defined]
        register(declared, check)
        return check

    return declare


def _check(
    declared: Item,
    body: Callable[[Trial], None],
    function: Callable[..., Any] | bytes,
    *,
    hidden: bool,
    seed: object,
) -> Report:
    """Run a check body so that nothing escapes from it but a report."""
    given: object = function  # a learner may have given the name to anything
    if not isinstance(given, bytes) and not callable(given):
        return _nothing(declared, f"{declared.name} is not a function but a {type(given).__name__}")
    try:
        packed = given if isinstance(given, bytes) else dispatch.pack(given)
    except Exception as error:  # whatever the function drags along may refuse to be pickled, in its own words
        return _nothing(declared, f"the function cannot be sent to another process: {_one_line(error)}")
    trial = Trial(declared, packed, hidden=hidden, seed=seed)
    note, gradable = "", True
    try:
        body(trial)
        reason = "not seen"
    except _Stop as stop:
        note = reason = stop.note
        gradable = stop.gradable
    except (
        Exception
    ) as error:  # a flaw of the check, or of the machine: the learner gets a row, never a traceback
        note = reason = f"the check itself failed: {_one_line(error)}"
    finally:
        trial.close()
    rows = trial.rows(reason) if gradable else ()
    return Report(declared, rows, note, shorten(trial.output, 2000), gradable)


def _text(value: object) -> str:
    return shorten(value) if isinstance(value, str) else show_value(value)


def _nothing(declared: Item, note: str) -> Report:
    rows = tuple(
        Row(each.text, each.text, note, each.where, each.points, False) for each in declared.behaviours
    )
    return Report(declared, rows, note)


def _one_line(error: BaseException) -> str:
    return shorten(f"{type(error).__name__}: {error}".replace("\n", " "))


def main(arguments: list[str] | None = None) -> int:
    """``python -m minicontainer.course.check --list``: one line per item."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m minicontainer.course.check", description="The course's items."
    )
    parser.add_argument("--list", action="store_true", required=True, help="list all graded items")
    parser.parse_args(arguments)
    items = all_items()
    for each in items:
        needs = ", ".join(each.needs) or "nothing"
        stars = "★" * each.stars
        print(f"{each.id:<26} {stars:<3} {each.points:>3} points  {each.name}{each.signature}  needs {needs}")
    print(f"{len(items)} items, {sum(each.points for each in items)} points")
    return 0


if __name__ == "__main__":
    # As __main__ this module would be a second copy beside the one that the checks import.
    from minicontainer.course import check as _check_module

    sys.exit(_check_module.main())
