"""``python -m minicontainer.course.generate``: exercises/ from solutions/, the single source of every exercise.

``solutions/LAB/LAB.ipynb`` carries nbgrader's metadata (schema version 3) and its comment markers. What this module
makes of it is, cell for cell, what ``nbgrader generate_assignment`` makes, checksums included, so that instructors can
use either; nbgrader itself is not needed. The output is deterministic: fixed cell ids, sorted keys, no outputs.

``--check`` writes nothing and ends with 1 where a file in exercises/ is not what would be written. Both modes first
look at the source: every check cell names an item, with its points and its hidden case, and no item is missing.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minicontainer.course.items import Item, all_items
from minicontainer.errors import MinicontainerError

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
TEXT_STUB = ("YOUR ANSWER HERE",)
_SOLUTION = ("BEGIN SOLUTION", "END SOLUTION")
_HIDDEN = ("BEGIN HIDDEN TESTS", "END HIDDEN TESTS")
_MARK_SCHEME = ("BEGIN MARK SCHEME", "END MARK SCHEME")
_NOISE = ("collapsed", "scrolled")

Notebook = dict[str, Any]
Cell = dict[str, Any]


class SourceError(MinicontainerError):
    """A notebook in solutions/ is not a proper source."""

    exit_code = 1


def read(path: Path) -> Notebook:
    """A notebook file; a source's lines, which the format may keep as a list, as one text."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if isinstance(cell["source"], list):
            cell["source"] = "".join(cell["source"])
    return notebook


def write(notebook: Notebook) -> str:
    """A notebook as text, always the same for the same content: as nbformat writes it, with sorted keys."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def exercise(source: Notebook) -> Notebook:
    """The exercise made from a source: solutions replaced by stubs, hidden cases and outputs gone, cells locked."""
    made = copy.deepcopy(source)
    made["metadata"].pop("celltoolbar", None)
    for cell in made["cells"]:
        _lock(cell)
        _clear_solution(cell)
        _clear_output(cell)
        _clear_hidden(cell)
        _add_checksum(cell)
    return made


def _mark(cell: Cell, name: str) -> bool:
    return bool(cell["metadata"].get("nbgrader", {}).get(name, False))


def _is_locked(cell: Cell) -> bool:
    if _mark(cell, "solution"):
        return False
    return _mark(cell, "grade") or _mark(cell, "locked")


def _lock(cell: Cell) -> None:
    if _mark(cell, "solution"):
        cell["metadata"]["deletable"] = False
    elif _is_locked(cell):
        cell["metadata"]["deletable"] = False
        cell["metadata"]["editable"] = False


def _without(text: str, markers: tuple[str, str], replacement: tuple[str, ...]) -> tuple[str, bool]:
    """`text` without the regions between the markers; each replaced by lines with the first marker's indentation."""
    kept: list[str] = []
    inside = found = False
    for line in text.split("\n"):
        if markers[0] in line:
            if inside:
                raise SourceError(f"a second {markers[0]} inside the first")
            inside = found = True
            indentation = line[: len(line) - len(line.lstrip())]
            kept.extend(indentation + each for each in replacement)
        elif markers[1] in line:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise SourceError(f"{markers[0]} without {markers[1]}")
    return "\n".join(kept), found


def _clear_solution(cell: Cell) -> None:
    stub = STUB if cell["cell_type"] == "code" else TEXT_STUB
    cell["source"], found = _without(cell["source"], _SOLUTION, stub)
    if found and not _mark(cell, "solution"):
        raise SourceError("a solution stands in a cell that is not marked as one")
    if _mark(cell, "solution") and not found:
        cell["source"] = "\n".join(stub)


def _clear_output(cell: Cell) -> None:
    if cell["cell_type"] == "code":
        cell["outputs"] = []
        cell["execution_count"] = None
        for name in _NOISE:
            cell["metadata"].pop(name, None)


def _clear_hidden(cell: Cell) -> None:
    cell["source"], found = _without(cell["source"], _HIDDEN, ())
    if found and not _mark(cell, "grade"):
        raise SourceError("a hidden case stands in a cell that is not graded")
    cell["source"], _ = _without(cell["source"], _MARK_SCHEME, ())


def _add_checksum(cell: Cell) -> None:
    if _mark(cell, "grade") or _mark(cell, "solution") or _is_locked(cell):
        cell["metadata"]["nbgrader"]["checksum"] = checksum(cell)
        cell["metadata"]["nbgrader"]["cell_type"] = cell["cell_type"]


def checksum(cell: Cell) -> str:
    """nbgrader's checksum of a cell: its text and kind, its marks, its grade_id and its points."""
    parts = [cell["source"], cell["cell_type"], str(_mark(cell, "grade")), str(_mark(cell, "solution"))]
    parts += [str(_is_locked(cell)), cell["metadata"]["nbgrader"]["grade_id"]]
    if _mark(cell, "grade"):
        parts.append(str(float(cell["metadata"]["nbgrader"]["points"])))
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()


def examine(lab: str, source: Notebook, items: list[Item]) -> Iterator[str]:
    """What is wrong with a source, one line each: ids, items, points, hidden cases, forgotten outputs."""
    ids = [cell.get("id", "") for cell in source["cells"]]
    for name in {
        name for name in ids if ids.count(name) > 1 or not re.fullmatch(r"[a-z][a-z0-9-]{1,63}", name)
    }:
        yield f"the cell id {name!r} is not unique, or not in words"
    grade_ids = [
        cell["metadata"]["nbgrader"]["grade_id"] for cell in source["cells"] if "nbgrader" in cell["metadata"]
    ]
    for name in {name for name in grade_ids if grade_ids.count(name) > 1}:
        yield f"the grade_id {name!r} is given twice"
    graded = {}
    for cell in source["cells"]:
        if cell.get("outputs"):
            yield f"the cell {cell['id']} has outputs: clear them"
        if _mark(cell, "grade") and not _mark(cell, "solution"):
            graded[cell["metadata"].get("minicontainer", {}).get("item")] = cell
    expected = {item.id: item for item in items if item.lab == lab}
    for name in sorted(expected.keys() ^ graded.keys(), key=str):
        yield f"the item {name} " + (
            "has no check cell" if name in expected else "is not known to the checks"
        )
    for name in expected.keys() & graded.keys():
        yield from _examine_check(expected[name], graded[name])


def _examine_check(item: Item, cell: Cell) -> Iterator[str]:
    call = f"checks.lab{item.lab}.{item.name}({item.name}"
    shown, found = _without(cell["source"], _HIDDEN, ())
    if shown.strip().splitlines()[-1:] != [f"{call})"]:
        yield f"{item.id}: the last line that learners see must be {call})"
    if not found or f"{call}, hidden=True)" not in cell["source"]:
        yield f"{item.id}: there is no hidden case {call}, hidden=True)"
    points = cell["metadata"]["nbgrader"].get("points")
    if points != item.points:
        yield f"{item.id}: the cell gives {points} points, the item {item.points}"


def course_root(start: Path | None = None) -> Path:
    """The directory that holds solutions/: the working directory, one above it, or the package's own checkout.

    :raises SourceError: where there is none.
    """
    here = (start or Path.cwd()).resolve()
    for directory in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (directory / "solutions").is_dir():
            return directory
    raise SourceError(
        f"there is no directory solutions/ in {here} or above it", hint="run it in the project's checkout"
    )


def sources(root: Path) -> list[Path]:
    """All source notebooks, in order: solutions/LAB/LAB.ipynb."""
    return sorted(path for path in (root / "solutions").glob("*/*.ipynb") if path.stem == path.parent.name)


def generate(root: Path) -> dict[Path, str]:
    """All exercises of the course: path below `root`, and text.

    :raises SourceError: naming everything that is wrong with the sources.
    """
    made: dict[Path, str] = {}
    wrong: list[str] = []
    items = all_items()
    for path in sources(root):
        source = read(path)
        try:
            made[root / "exercises" / path.parent.name / path.name] = write(exercise(source))
        except SourceError as error:
            wrong.append(f"{path.name}: {error}")
        wrong.extend(f"{path.name}: {line}" for line in examine(path.stem[:2], source, items))
    if wrong:
        raise SourceError("; ".join(wrong))
    return made


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minicontainer.course.generate", description="Make exercises/ from solutions/."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 where exercises/ differ"
    )
    parser.add_argument("--root", type=Path, help="the directory that holds solutions/ and exercises/")
    options = parser.parse_args(arguments)
    try:
        root = options.root or course_root()
        made = generate(root)
    except MinicontainerError as error:
        print(f"generate: {error}", file=sys.stderr)
        return error.exit_code
    present = set((root / "exercises").glob("*/*.ipynb"))
    different = [
        path for path, text in made.items() if path not in present or path.read_text(encoding="utf-8") != text
    ]
    stray = sorted(present - made.keys())
    if options.check:
        for path in [*different, *stray]:
            word = "has no source" if path in stray else "is not what its source gives"
            print(f"generate: {path.relative_to(root)} {word}", file=sys.stderr)
        if not different and not stray:
            print(f"{len(made)} exercises are as their sources give them")
        return 1 if different or stray else 0
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        print(f"wrote {path.relative_to(root)}")
    for path in stray:
        print(f"generate: {path.relative_to(root)} has no source; remove it", file=sys.stderr)
    return 1 if stray else 0


if __name__ == "__main__":
    sys.exit(main())
