"""The lessons against their template, without running them: structure, ids, lengths, headings, outputs.

nbval runs the cells; here is what it cannot see: that every lesson has all parts in their order, that the fast track
stands on its own, and that no code that forks is called in the notebook's kernel.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import re
import symtable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LONGEST_CELL = 25
CELLS = range(25, 41)
# The parts of a lesson, in order: a cell's id is labNN-PART or labNN-PART-detail.
PARTS = (
    "title", "doctor", "goals", "prepare", "broken", "predict", "look", "build", "check", "attack", "compare",
    "recap", "exercises", "cleanup",
)  # fmt: skip
# A lesson may go round more than once; these come once, and in this order.
ONCE = ("title", "doctor", "goals", "prepare", "recap", "exercises", "cleanup")
# They change the process that calls them, or copy it: never at the top of a cell.
NOT_IN_THE_KERNEL = {
    "fork", "forkpty", "chroot", "pivot_root", "clone", "clone3", "unshare", "setns", "sethostname", "mount", "umount",
    "enter_root", "isolate", "spawn",
}  # fmt: skip
# What would name one machine or one run: a home, the place of this tree, a random temporary name, a kernel's cell.
PRIVATE = re.compile(
    r"/home/\w|/root/\w|/work/|/var/tmp/|minicontainer-\w+-(?!x{8})[A-Za-z0-9_]{8}\b|ipykernel_\d"
)


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request: pytest.FixtureRequest) -> Path:
    return request.param


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text())
    return notebook


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def cells(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    return (cell for cell in read(path)["cells"] if cell["cell_type"] == kind)


def part(cell: dict[str, Any]) -> str:
    return cell["id"].split("-")[1]


def of_part(path: Path, name: str) -> list[dict[str, Any]]:
    found = [cell for cell in read(path)["cells"] if part(cell) == name]
    assert found, f"no cell is called lab{path.name[:2]}-{name}"
    return found


def is_fast(cell: dict[str, Any]) -> bool:
    return "fast" in cell["metadata"].get("tags", [])


def test_there_are_lessons() -> None:
    assert [path.name[:2] for path in LESSONS] == [f"{number:02}" for number in range(len(LESSONS))]
    assert LESSONS


# ------------------------------------------------------------------------------------------------------ the file


def test_file_is_a_valid_notebook_in_canonical_form(lesson: Path) -> None:
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "notebooks/refresh.py")
    assert spec is not None and spec.loader is not None
    refresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(refresh)
    nbformat.validate(read(lesson))
    assert lesson.read_text() == refresh.canonical(read(lesson))


def test_ids_are_meaningful_and_unique(lesson: Path) -> None:
    ids = [cell["id"] for cell in read(lesson)["cells"]]
    assert len(set(ids)) == len(ids)
    for identity in ids:
        assert re.fullmatch(rf"lab{lesson.name[:2]}(-[a-z0-9]+){{1,3}}", identity), identity


def test_size_can_be_taught(lesson: Path) -> None:
    everything = read(lesson)["cells"]
    assert len(everything) in CELLS
    too_long = {cell["id"]: source(cell).count("\n") + 1 for cell in everything}
    assert {name: lines for name, lines in too_long.items() if lines > LONGEST_CELL} == {}


def test_metadata_says_what_the_title_says(lesson: Path) -> None:
    about = read(lesson)["metadata"]["minicontainer"]
    title = source(of_part(lesson, "title")[0])
    assert about["lab"] == lesson.name[:2]
    assert f"{about['teach']} minutes of teaching, {about['do']} of doing" in title
    assert f"Fast track: the cells tagged `fast`, {about['fast']} minutes" in title
    assert 45 <= about["teach"] + about["do"] <= 60 and about["fast"] <= 25


# -------------------------------------------------------------------------------------------------- the template


def test_all_parts_are_there_in_order(lesson: Path) -> None:
    parts = [part(cell) for cell in read(lesson)["cells"]]
    assert [name for name in PARTS if name not in parts] == []
    # What is looked at may come before or after what is built; all else follows the template.
    ordered = [parts.index(name) for name in PARTS if name != "look"]
    assert ordered == sorted(ordered)
    assert [name for name in parts if name in ONCE] == list(ONCE)


def test_title_says_promise_time_and_needs(lesson: Path) -> None:
    (title,) = of_part(lesson, "title")
    lines = source(title).splitlines()
    assert re.match(rf"# Lab {lesson.name[:2]}: \w", lines[0])
    assert lines[2].startswith("**") and lines[2].endswith(".**")
    assert {"Time", "Needs", "Before"} <= {
        line.split("|")[1].strip() for line in lines if line.startswith("|")
    }


def test_doctor_is_asked_about_this_lab(lesson: Path) -> None:
    (doctor,) = of_part(lesson, "doctor")
    assert f'doctor.for_lab("{lesson.name[:2]}")' in source(doctor)
    assert next(cells(lesson, "code"))["id"] == doctor["id"]


def test_goals_are_three_or_four_verbs_and_a_question(lesson: Path) -> None:
    text = source(of_part(lesson, "goals")[0])
    assert text.startswith("## By the end you can")
    assert len(re.findall(r"^- \*\*\w+\*\* ", text, re.M)) in (3, 4)
    assert re.search(r"^\*\*(Recap|A) question.*\?", text, re.M) and "<summary>Answer</summary>" in text


def test_prediction_is_asked_for_before_the_answer_is_shown(lesson: Path) -> None:
    ids = [cell["id"] for cell in read(lesson)["cells"]]
    guess = next(cell for cell in of_part(lesson, "predict") if "my_guess = {" in source(cell))
    uses = [
        cell for cell in cells(lesson, "code") if "my_guess" in source(cell) and cell["id"] != guess["id"]
    ]
    assert uses and all(ids.index(cell["id"]) > ids.index(guess["id"]) for cell in uses)


def test_what_is_built_has_its_contract_in_the_docstring(lesson: Path) -> None:
    functions = [
        node
        for cell in of_part(lesson, "build")
        if cell["cell_type"] == "code"
        for node in ast.parse(source(cell)).body
        if isinstance(node, ast.FunctionDef) and node.returns is not None
    ]
    assert functions
    for function in functions:
        assert ast.get_docstring(function), function.name
        assert all(argument.annotation for argument in function.args.args), function.name


@pytest.mark.parametrize("name", ["broken", "check", "attack"])
def test_claims_are_asserted(lesson: Path, name: str) -> None:
    code = [cell for cell in of_part(lesson, name) if cell["cell_type"] == "code"]
    shown = [
        cell for cell in code if "assert " in source(cell) or "nbval-check-output" in cell["metadata"]["tags"]
    ]
    assert shown


def test_recap_has_three_lines_terms_and_errors(lesson: Path) -> None:
    text = source(of_part(lesson, "recap")[0])
    assert re.findall(r"^(\d)\. ", text, re.M) == ["1", "2", "3"]
    assert "**Key terms**" in text and len(re.findall(r"`man \d [\w-]+", text)) >= 4
    assert "| symptom | cause | cure |" in text and text.count("\n| ") >= 5


def test_each_exercise_has_stars_and_two_hints(lesson: Path) -> None:
    text = source(of_part(lesson, "exercises")[0])
    exercises = re.split(r"^(?=★)", text, flags=re.M)[1:]
    assert len(exercises) >= 3
    for exercise in exercises:
        assert re.match(r"★{1,3} \*\*", exercise), exercise[:40]
        assert exercise.count("<details><summary>Hint ") == 2, exercise[:40]


def test_last_cell_shows_that_nothing_is_left(lesson: Path) -> None:
    last = read(lesson)["cells"][-1]
    assert part(last) == "cleanup" and source(last).splitlines()[-1] == "clean.assert_clean()"


def test_headings_go_down_one_level_at_a_time(lesson: Path) -> None:
    levels = [
        len(found)
        for cell in cells(lesson, "markdown")
        for found in re.findall(r"^(#+) ", source(cell), re.M)
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_links_lead_somewhere(lesson: Path) -> None:
    for cell in cells(lesson, "markdown"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", source(cell)):
            assert (lesson.parent / target).exists(), target


# ------------------------------------------------------------------------------------------------------ the code


def test_each_code_cell_compiles(lesson: Path) -> None:
    for cell in cells(lesson, "code"):
        compile(source(cell), cell["id"], "exec")


def test_nothing_forks_in_the_kernel(lesson: Path) -> None:
    """Such calls stand inside functions; a function is run by the sandbox, a check or the engine."""
    for cell in cells(lesson, "code"):
        for call in _calls_at_the_top(ast.parse(source(cell))):
            assert call not in NOT_IN_THE_KERNEL, f"{cell['id']} calls {call} in the kernel"


def _calls_at_the_top(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        # checks.lab02.isolate(isolate) watches the function in a process of its own.
        if isinstance(child, ast.Call) and not ast.unparse(child.func).startswith("checks."):
            name = child.func
            yield name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")
        yield from _calls_at_the_top(child)


def test_fast_track_stands_on_its_own(lesson: Path) -> None:
    """A name that a fast cell uses is defined in a fast cell before it, or in the same one."""
    known = set(dir(builtins)) | {"__name__"}
    for cell in cells(lesson, "code"):
        if not is_fast(cell):
            continue
        table = symtable.symtable(source(cell), cell["id"], "exec")
        known |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_assigned() or symbol.is_imported()
        }
        known |= {child.get_name() for child in table.get_children()}
        assert _global_names(table) - known == set(), cell["id"]


def _global_names(table: symtable.SymbolTable) -> set[str]:
    top = table.get_type() == "module"
    names = {
        each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())
    }
    return names.union(*(_global_names(child) for child in table.get_children()))


def test_fast_track_has_the_frame_of_a_lesson(lesson: Path) -> None:
    for name in ("title", "doctor", "goals", "prepare", "broken", "predict", "recap", "exercises", "cleanup"):
        assert any(is_fast(cell) for cell in of_part(lesson, name)), name


# --------------------------------------------------------------------------------------------------- the outputs


def test_outputs_are_of_one_run_from_top_to_bottom(lesson: Path) -> None:
    counts = [cell["execution_count"] for cell in cells(lesson, "code")]
    assert counts == list(range(1, len(counts) + 1))
    for cell in cells(lesson, "code"):
        assert not [output for output in cell["outputs"] if output["output_type"] == "error"], cell["id"]
        assert not [output for output in cell["outputs"] if output.get("name") == "stderr"], cell["id"]


def test_outputs_name_no_machine_and_no_run(lesson: Path) -> None:
    for cell in cells(lesson, "code"):
        found = PRIVATE.search(json.dumps(cell["outputs"]))
        assert found is None, f"{cell['id']}: {found and found[0]}"


def test_pictures_have_a_text_beside_them(lesson: Path) -> None:
    for cell in cells(lesson, "code"):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                svg = "".join(data["image/svg+xml"])
                assert len("".join(data["text/plain"]).splitlines()) > 1
                assert '<title id="' in svg and '<desc id="' in svg and 'role="img"' in svg
