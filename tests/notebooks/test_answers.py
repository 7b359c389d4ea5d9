"""No lesson gives an exercise away: its functions, tried as answers, never reach the full score.

A lesson builds a smaller version of what is graded. Each of its functions whose parameters are those of a graded item
of its lab is put before that item's check.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer.course import check

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def functions(lesson: Path) -> dict[str, Callable[..., Any]]:
    """The lesson's functions, with the imports and constants that they use, and nothing else of it executed."""
    # No module of this name can be imported, so the functions travel by value, as a notebook's own do.
    space: dict[str, Any] = {"__name__": "lesson"}
    for cell in json.loads(lesson.read_text())["cells"]:
        if cell["cell_type"] == "code":
            kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
            body = [node for node in ast.parse("".join(cell["source"])).body if isinstance(node, kept)]
            exec(compile(ast.Module(body, []), cell["id"], "exec"), space)
    return {
        name: value
        for name, value in space.items()
        if inspect.isfunction(value) and value.__module__ == "lesson"
    }


def candidates() -> list[Any]:
    found = []
    for lesson in LESSONS:
        items = [item for item in check.all_items() if item.lab == lesson.name[:2]]
        for name, function in functions(lesson).items():
            for item in items:
                wanted = ast.parse(f"def f{item.signature}: ...").body[0]
                assert isinstance(wanted, ast.FunctionDef)
                if list(inspect.signature(function).parameters) == [each.arg for each in wanted.args.args]:
                    found.append(
                        pytest.param(item.id, function, id=f"{lesson.name[:2]}-{name}-as-{item.name}")
                    )
    return found


def test_lessons_build_first_forms_of_graded_items() -> None:
    tried = {parameters.values[0] for parameters in candidates()}
    assert {"lab01-run", "lab01-enter_chroot", "lab02-isolate"} <= tried


@pytest.mark.needs("mount", "process namespaces")
@pytest.mark.parametrize("identity, function", candidates())
def test_function_of_a_lesson_is_not_the_full_answer(identity: str, function: Callable[..., Any]) -> None:
    _, judge = check.get(identity)
    report = judge(function, seed="lesson")
    assert report.gradable, report.note
    assert report.score < report.points, str(report)
