"""Count code lines: lines that hold code, without blank lines, comments and docstrings. Printed by the test run."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

# What each floor may cost to read: a budget, to be argued with, not padded to.
BUDGET = {
    "linux": 900,
    "cgroup": 700,
    "runtime": 1800,
    "network": 1200,
    "image": 1800,
    "engine": 1800,
    "build": 1500,
    "cli": 900,
    "labhost": 900,
    "course": 2200,
    "bench": 1200,
}
_LAYOUT = (
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.COMMENT,
    tokenize.ENDMARKER,
)


def code_lines(source: str) -> int:
    """The number of lines of `source` that hold code."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def floors(package: Path) -> dict[str, int]:
    """Code lines by floor; the modules below all floors count as "." """
    counts: dict[str, int] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        floor = parts[0] if len(parts) > 1 else "."
        counts[floor] = counts.get(floor, 0) + code_lines(path.read_text())
    return counts


def table(package: Path) -> str:
    """The counts beside their budgets, as text."""
    rows = []
    counts = floors(package)
    for floor, lines in counts.items():
        budget = BUDGET.get(floor)
        over = "  over budget" if budget and lines > budget else ""
        rows.append(f"  {floor:8} {lines:6}" + (f"  of {budget}" if budget else "") + over)
    return "\n".join([*rows, f"  {'total':8} {sum(counts.values()):6}"])


if __name__ == "__main__":
    print(table(Path(sys.argv[1] if len(sys.argv) > 1 else "minicontainer")))
