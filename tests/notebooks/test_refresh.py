"""What notebooks/refresh.py takes for the same output, and what it takes out of one."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLACE = Path(__file__).parents[2] / "notebooks/refresh.py"


@pytest.fixture(scope="module")
def refresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh", PLACE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stream(text: str) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}]


@pytest.mark.parametrize(
    "one, other",
    [
        ("sleep  PID 41 → 2\n", "sleep  PID 1041 → 2\n"),
        ("pid:[4026532189]\n", "pid:[4026531836]\n"),
        ("container ced1a843f733\n", "container 0123456789ab\n"),
    ],
)
def test_only_numbers_and_ids_differ(refresh: ModuleType, one: str, other: str) -> None:
    assert refresh.same(stream(one), stream(other))


@pytest.mark.parametrize(
    "one, other",
    [("alive\n", "dead\n"), ("✓ passed\n", "✗ lost\n"), ("a\n", "a\nb\n"), ("PID 1\n", "")],
)
def test_a_word_or_a_line_is_a_difference(refresh: ModuleType, one: str, other: str) -> None:
    assert not refresh.same(stream(one), stream(other))


def test_temporary_names_are_taken_out_and_streams_joined(refresh: ModuleType) -> None:
    name = f"{tempfile.gettempdir()}/minicontainer-lab01-ab_d3fgh"
    cleaned = refresh._cleaned(stream(f"in {name}/app\n") + stream("and on\n"))
    assert cleaned == stream("in /tmp/minicontainer-lab01-xxxxxxxx/app\nand on\n")
