"""exercises/ from solutions/: what is cleared, what is locked, what is refused, and that nbgrader would do the same."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.course import generate, items

ROOT = Path(__file__).parents[2]
SOURCES = generate.sources(ROOT)


def _mark(**changes) -> dict:
    base = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return {"nbgrader": base | {"grade_id": "thing"} | changes}


def _cell(source: str, kind: str = "code", metadata: dict | None = None, name: str = "thing") -> dict:
    cell = {"cell_type": kind, "id": name, "metadata": metadata or {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def _book(*cells: dict) -> dict:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _made(cell: dict) -> dict:
    return generate.exercise(_book(cell))["cells"][0]


def test_solution_becomes_a_stub_with_its_indentation() -> None:
    source = "def f():\n    '''Doc.'''\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"
    made = _made(_cell(source, metadata=_mark(solution=True)))
    assert (
        made["source"] == "def f():\n    '''Doc.'''\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"
    )
    assert made["metadata"]["deletable"] is False and "editable" not in made["metadata"]


def test_hidden_case_is_gone_and_the_check_is_locked() -> None:
    source = "check(f)\n### BEGIN HIDDEN TESTS\ncheck(f, hidden=True)\n### END HIDDEN TESTS"
    made = _made(_cell(source, metadata=_mark(grade=True, locked=True, points=3)))
    assert made["source"] == "check(f)"
    assert made["metadata"]["editable"] is made["metadata"]["deletable"] is False
    assert len(made["metadata"]["nbgrader"]["checksum"]) == 32


def test_checksum_depends_on_text_points_and_name() -> None:
    cell = _cell("check(f)", metadata=_mark(grade=True, locked=True, points=3))
    others = [copy.deepcopy(cell) for _ in range(3)]
    others[0]["source"] = "check(g)"
    others[1]["metadata"]["nbgrader"]["points"] = 4
    others[2]["metadata"]["nbgrader"]["grade_id"] = "other"
    sums = [generate.checksum(each) for each in [cell, *others]]
    assert len(set(sums)) == 4


def test_outputs_are_stripped_and_plain_cells_left_alone() -> None:
    cell = _cell("1 + 1", metadata={"collapsed": True, "tags": ["fast"]})
    cell |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": "2"}], "execution_count": 4}
    made = _made(cell)
    assert (made["outputs"], made["execution_count"], made["metadata"]) == ([], None, {"tags": ["fast"]})


@pytest.mark.parametrize(
    ("source", "metadata"),
    [
        ("### BEGIN SOLUTION\nx", _mark(solution=True)),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", _mark(solution=True)),
        ("### BEGIN SOLUTION\nx\n### END SOLUTION", {}),
        ("### BEGIN HIDDEN TESTS\nx\n### END HIDDEN TESTS", _mark(locked=True)),
    ],
    ids=["no end", "nested", "solution in a plain cell", "hidden case in an ungraded cell"],
)
def test_broken_source_is_refused(source: str, metadata: dict) -> None:
    with pytest.raises(generate.SourceError):
        generate.exercise(_book(_cell(source, metadata=metadata)))


def _wrong(change) -> list[str]:
    source = generate.read(SOURCES[0])
    change(source["cells"])
    return list(generate.examine("01", source, items.all_items()))


def _check_cell(cells: list[dict]) -> dict:
    return next(cell for cell in cells if cell["id"] == "run-check")


def test_examination_finds_what_is_wrong() -> None:
    assert _wrong(lambda cells: None) == []
    assert "not unique" in _wrong(lambda cells: cells[1].update(id="title"))[0]
    assert "has outputs" in _wrong(lambda cells: cells[1].update(outputs=[{}]))[0]
    assert "no check cell" in _wrong(lambda cells: cells.remove(_check_cell(cells)))[0]
    assert "points" in _wrong(lambda cells: _check_cell(cells)["metadata"]["nbgrader"].update(points=9))[0]
    assert (
        "no hidden case" in _wrong(lambda cells: _check_cell(cells).update(source="checks.lab01.run(run)"))[0]
    )
    unknown = _wrong(lambda cells: _check_cell(cells)["metadata"]["minicontainer"].update(item="lab01-walk"))
    assert any("lab01-walk is not known" in line for line in unknown)


def test_exercises_are_what_their_sources_give() -> None:
    for path, text in generate.generate(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path}: run python -m minicontainer.course.generate"
        )
    assert len(SOURCES) == len(list((ROOT / "exercises").glob("*/*.ipynb"))) >= 2


def test_exercises_hold_no_answer_and_the_notebooks_are_valid() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    for path in [*SOURCES, *(ROOT / "exercises").glob("*/*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        nbformat.validate(nbformat.reads(text, as_version=4))
        assert text == generate.write(generate.read(path)), (
            f"{path.name} is not written as the generator writes"
        )
        if "exercises" in path.parts:
            assert "SOLUTION" not in text and "HIDDEN" not in text and "hidden=" not in text
            assert not any(cell.get("outputs") for cell in json.loads(text)["cells"])


def test_check_finds_a_difference_and_a_stray_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "solutions", tmp_path / "solutions")
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--root", str(tmp_path), "--check"]) == 0
    changed = tmp_path / "exercises" / SOURCES[0].parent.name / SOURCES[0].name
    changed.write_text(changed.read_text().replace("YOUR CODE HERE", "MY CODE HERE"))
    stray = tmp_path / "exercises" / "99_stray" / "99_stray.ipynb"
    stray.parent.mkdir()
    stray.write_text("{}")
    capsys.readouterr()
    assert generate.main(["--root", str(tmp_path), "--check"]) == 1
    errors = capsys.readouterr().err
    assert "is not what its source gives" in errors and "has no source" in errors
    assert "MY CODE HERE" in changed.read_text()


def _nbgrader() -> list[str] | None:
    """nbgrader of this interpreter, or of the one named in MINICONTAINER_NBGRADER_PYTHON."""
    python = os.environ.get("MINICONTAINER_NBGRADER_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import nbgrader"], capture_output=True)
    return [python, "-m", "nbgrader"] if found.returncode == 0 else None


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nbgrader_makes_the_same_exercise(source: Path, tmp_path: Path) -> None:
    command = _nbgrader()
    if command is None:
        pytest.skip("nbgrader is not installed (MINICONTAINER_NBGRADER_PYTHON may name a Python that has it)")
    lab = source.stem
    shutil.copytree(source.parent, tmp_path / "solutions" / lab)
    (tmp_path / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'minicontainer'\n"
        "c.CourseDirectory.source_directory = 'solutions'\nc.CourseDirectory.release_directory = 'released'\n"
    )
    # nbgrader calls a program of its own environment by its bare name.
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "generate_assignment", lab], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads((tmp_path / "released" / lab / f"{lab}.ipynb").read_text())
    ours = json.loads((ROOT / "exercises" / lab / f"{lab}.ipynb").read_text())
    assert [cell["id"] for cell in theirs["cells"]] == [cell["id"] for cell in ours["cells"]]
    for their, our in zip(theirs["cells"], ours["cells"], strict=True):
        assert their == our, our["id"]
