"""Run the lessons and write their outputs back: ``python notebooks/refresh.py [NOTEBOOK...]``.

The outputs are part of the book, so they are committed. What differs on every run (numbers of processes and
namespaces, ids, times, temporary names) must not make a new version of a notebook each time: an output that is new
only in such things is left as it was. The files are written in one canonical form (:func:`canonical`).
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
# What names this machine or this run, and the same for everybody.
_PRIVATE = (
    (re.compile(re.escape(tempfile.gettempdir())), "/tmp"),
    (re.compile(r"(minicontainer-[a-z0-9]+-)[A-Za-z0-9_]{8}\b"), r"\1xxxxxxxx"),
    (re.compile(r"/tmp/ipykernel_\d+/\d+\.py"), "/tmp/ipykernel/cell.py"),
)
# What may differ between two runs that say the same. An SVG element's id is a digest of the picture.
_VOLATILE = re.compile(r"mc[0-9a-f]{10}(?=[td])|\b[0-9a-f]{12,64}\b|\d+|xxxxxxxx/[a-z]+")


def canonical(notebook: dict[str, Any]) -> str:
    """The one form in which a notebook is kept: sorted keys, one space of indent, a newline at the end."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def execute(path: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, as lists of plain data in the form of nbformat 4.5.

    :raises nbclient.exceptions.CellExecutionError: where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()
    written = json.loads(nbformat.writes(notebook))  # splits texts into lines
    return [_cleaned(cell.get("outputs", [])) for cell in written["cells"]]


def _cleaned(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs without what is private, and with texts that belong together in one."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        output.pop("execution_count", None)
        previous = kept[-1] if kept else {}
        if output["output_type"] == "stream" and previous.get("name") == output["name"]:
            previous["text"] = "".join([*previous["text"], *output["text"]]).splitlines(keepends=True)
        else:
            kept.append(output)
    text = json.dumps(kept)
    for pattern, replacement in _PRIVATE:
        text = pattern.sub(replacement, text)
    cleaned: list[dict[str, Any]] = json.loads(text)
    return cleaned


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two outputs differ at most in what differs on every run."""

    def masked(outputs: list[dict[str, Any]]) -> str:
        plain = copy.deepcopy(outputs)
        for output in plain:
            output.pop("execution_count", None)
        return _VOLATILE.sub("0", json.dumps(plain, sort_keys=True))

    return masked(one) == masked(other)


def refresh(path: Path) -> bool:
    """Run the notebook and write its outputs back; returns whether the file has changed."""
    text = path.read_text()
    notebook = json.loads(text)
    number = 0
    for cell, new in zip(notebook["cells"], execute(path), strict=True):
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["execution_count"] = number
        if not same(cell["outputs"], new):
            cell["outputs"] = new
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = number
    changed = canonical(notebook) != text
    if changed:
        path.write_text(canonical(notebook))
    return changed


def plain_environment() -> None:
    """Leave this process, and so the kernels, only the variables of a fresh login: a check may show their names."""
    kept = ("PATH", "HOME", "USER", "LANG", "TMPDIR")
    for name in [name for name in os.environ if name not in kept and not name.startswith("MINICONTAINER_")]:
        del os.environ[name]


def main(arguments: list[str]) -> int:
    plain_environment()
    paths = [Path(each) for each in arguments] or sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    for path in paths:
        print(f"{path.name}: {'changed' if refresh(path) else 'as it was'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
