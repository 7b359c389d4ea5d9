"""Pictures of real processes: what they say, that they say it twice the same, and that no name breaks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from minicontainer.course import proc, show
from minicontainer.course.show import picture

_HOSTILE = "</text><script>alert(1)</script>\x1b[2J&\x00\ud800"


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def _parse(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg" and root.get("role") == "img"
    names = {
        element.get("id"): (element.tag.removeprefix(space), element.text)
        for element in root
        if element.get("id")
    }
    title, description = (names[each] for each in (root.get("aria-labelledby") or "").split())
    assert title[0] == "title" and title[1] and description[0] == "desc" and description[1]
    return root


def _picture(name: str) -> picture.Picture:
    return picture.Picture(name, name, 100, 50, [picture.text(name, 1, 1)], [name])


def test_tree_names_a_child_and_its_pid(sleeper: subprocess.Popen) -> None:
    drawn = show.processes(os.getpid())
    assert f"PID {sleeper.pid}" in repr(drawn) and f"PID {os.getpid()}" in repr(drawn)
    words = "".join(_parse(drawn._repr_svg_()).itertext())
    assert f"PID {sleeper.pid}" in words


def test_zombie_is_told_in_words() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    try:
        deadline = time.monotonic() + 5
        while proc.status(pid).get("State", "")[:1] != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "zombie" in next(line for line in repr(show.processes()).splitlines() if f"PID {pid}" in line)
    finally:
        os.waitpid(pid, 0)


def test_depth_limits_the_tree(sleeper: subprocess.Popen) -> None:
    assert len(show.processes(depth=0).lines) == 1
    assert len(show.processes(depth=1).lines) >= 2


def test_missing_process_is_an_error() -> None:
    with pytest.raises(ProcessLookupError, match="no process"):
        show.processes(2**22 + 1)


def test_same_state_same_picture(sleeper: subprocess.Popen) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while proc.status(sleeper.pid)["State"][:1] != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    for draw in (
        lambda: show.processes(sleeper.pid),
        lambda: show.namespaces({"me": os.getpid(), "it": sleeper.pid}),
    ):
        first, second = draw(), draw()
        assert repr(first) == repr(second)
        assert first._repr_svg_() == second._repr_svg_() and first._repr_html_() == second._repr_html_()


def test_namespaces_of_a_plain_child_are_ours(sleeper: subprocess.Popen) -> None:
    lines = repr(show.namespaces({"me": os.getpid(), "child": sleeper.pid})).splitlines()
    assert lines[1].split() == ["me", "child"]
    assert {"uts", "pid", "mnt", "ipc", "net"} <= {line.split()[0] for line in lines[2:]}
    assert all(line.split()[1:] == ["a", "a"] for line in lines[2:])


def test_namespaces_letters_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = {1: {"uts": 10, "pid": 20}, 2: {"uts": 11, "pid": 20}, 3: {"uts": 10}}
    monkeypatch.setattr(proc, "namespaces", lambda pid: spaces[pid])
    drawn = show.namespaces({"one": 1, "two": 2}, {"three": 3})
    assert [line.split() for line in drawn.lines] == [
        ["one", "two", "three"],
        ["pid", "a", "a", "-"],
        ["uts", "a", "b", "a"],
    ]
    assert "differ in pid, uts" in drawn.description
    assert "b 11" in repr(show.namespaces(1, 2, names=["uts"], inodes=True))
    assert len(show.namespaces(1, 2, names=["uts"]).lines) == 2


def test_pid_namespace_is_a_dashed_box_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {
        100: proc.Process(100, 1, "S", "shell", (100,)),
        101: proc.Process(101, 100, "S", "init", (101, 1)),
        102: proc.Process(102, 101, "S", "web", (102, 2)),
        103: proc.Process(103, 100, "S", "other", (103,)),
    }
    monkeypatch.setattr(proc, "processes", lambda: tree)
    drawn = show.processes(100)
    assert drawn.lines == [
        "shell  PID 100",
        "   └─ init  PID 101 → 1",
        "      └─ web  PID 102 → 2",
        "   └─ other  PID 103",
    ]
    assert drawn._repr_svg_().count("stroke-dasharray") == 1
    assert "1 begin a PID namespace" in drawn.description


def test_hostile_name_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "processes", lambda: {7: proc.Process(7, 1, "S", _HOSTILE, (7,))})
    for drawn in (show.processes(7), _picture(_HOSTILE)):
        for form in (drawn._repr_svg_(), drawn._repr_html_()):
            assert "<script" not in form and "\x1b" not in form and "\x00" not in form
        assert "<script>" in "".join(_parse(drawn._repr_svg_()).itertext())
        assert "\x1b" not in repr(drawn).split("\n", 1)[-1]


def test_forms_for_a_theme_and_for_a_page() -> None:
    drawn = _picture("plain")
    assert "currentColor" in drawn._repr_html_() and "#ffffff" not in drawn._repr_html_()
    assert "#ffffff" in drawn._repr_svg_()


def test_reading_a_process_that_is_gone() -> None:
    gone = 2**22 + 1
    assert proc.process(gone) is None and proc.status(gone) == {} and proc.read(gone, "cmdline") == b""
    assert proc.link(gone, "root") == "" and proc.children(gone) == []
    with pytest.raises(OSError):
        proc.namespaces(gone)
