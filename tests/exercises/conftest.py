"""The exercises' suite: functions as a notebook's cell would define them, and the table of negative controls."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_TABLE = pytest.StashKey[list[tuple[str, str, int, int, str]]]()


def cell(source: str, name: str, *, setup: str = "") -> Callable[..., Any]:
    """The function `name` that a notebook's cell with this source would define: it belongs to no module on disk."""
    filename = f"<cell {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(setup, space)
    exec(compile(source, filename, "exec"), space)
    return space[name]


@cache
def notebook_answers(folder: str, lab: str) -> tuple[str, dict[str, str]]:
    """The imports of a lab's notebook, and the source of each answer cell by its function's name."""
    path = next((ROOT / folder).glob(f"{lab}_*/{lab}_*.ipynb"))
    cells = json.loads(path.read_text())["cells"]
    setup, answers = "", {}
    for each in cells:
        source = "".join(each["source"])
        mark = each["metadata"].get("nbgrader", {})
        if mark.get("grade_id") == "setup":
            setup = "\n".join(line for line in source.splitlines() if line.startswith(("import ", "from ")))
        if mark.get("solution"):
            answers[source.split("(")[0].removeprefix("def ")] = source
    return setup, answers


def answer(folder: str, lab: str, name: str) -> Callable[..., Any]:
    """A function as a notebook in solutions/ or exercises/ defines it."""
    setup, answers = notebook_answers(folder, lab)
    return cell(answers[name], name, setup=setup)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Enter one line in the table that is printed at the end: item, wrong solution, points lost, of how many, which."""
    table = request.config.stash.setdefault(_TABLE, [])

    def add(item: str, wrong: str, lost: int, points: int, which: str) -> None:
        table.append((item, wrong, lost, points, which))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(_TABLE, [])
    if not table:
        return
    terminalreporter.section("negative controls: item, wrong solution, points lost")
    for item, wrong, lost, points, which in sorted(table):
        terminalreporter.write_line(f"{item:<24} {wrong:<44} {lost}/{points}  {which}")
