"""The leak audit notices what a careless suite would leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import audit
import pytest


def changes(act, undo, root: int | None = None) -> list[str]:
    """What the audit says between before `act` and after it; `undo` always runs."""
    before = audit.snapshot(root)
    try:
        act()
        return audit.compare(before, audit.snapshot(root))
    finally:
        undo()


def test_nothing_done_is_nothing_left():
    assert audit.compare(audit.snapshot(os.getpid()), audit.snapshot(os.getpid())) == []


def test_notices_a_file_in_a_shared_place():
    path = Path(f"/var/tmp/minicontainer-audit-{os.getpid()}")
    assert f"left behind: file {path}" in changes(path.touch, path.unlink)


def test_the_directory_of_another_test_run_that_is_at_work_is_not_ours():
    other = subprocess.Popen(["sleep", "60"])
    path = Path(f"/var/tmp/mc-test-{other.pid}-abcdefgh")
    path.mkdir()
    try:
        assert str(path) not in audit.files(root=1_000_000_000)  # nobody's parent
        assert str(path) in audit.files(os.getpid())  # the run is below us: it counts
    finally:
        path.rmdir()
        other.kill()
        other.wait()


def test_notices_a_user_that_a_test_run_made_and_no_other(monkeypatch: pytest.MonkeyPatch):
    names = ["root", "visitor", f"mc-test-{os.getpid()}"]
    monkeypatch.setattr(
        audit.pwd, "getpwall", lambda: [types.SimpleNamespace(pw_name=name) for name in names]
    )
    assert audit.users(os.getpid()) == [f"mc-test-{os.getpid()}"]


def test_notices_a_container_left_in_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    container = tmp_path / "minicontainer/containers/0123456789ab"
    lines = changes(lambda: container.mkdir(parents=True), lambda: None)
    assert f"left behind: file {container}" in lines


def test_notices_a_process_below_the_given_one_even_when_it_left_its_session():
    started: list[subprocess.Popen] = []
    try:
        before = audit.snapshot(os.getpid())
        started.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        # Until execve(2) has happened, the child still shows our own command line.
        deadline = time.monotonic() + 5
        expected = f"left behind: process {started[0].pid} sleep 60"
        while expected not in (lines := audit.compare(before, audit.snapshot(os.getpid()))):
            assert time.monotonic() < deadline, lines
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_suite_that_leaves_a_daemon_and_a_file_is_told_and_the_daemon_ended(tmp_path: Path):
    """As tests/run.py does it: a program that detached itself from its parent is found all the same."""
    left = Path(f"/var/tmp/minicontainer-left-{os.getpid()}")
    report, number = tmp_path / "report.json", tmp_path / "pid"
    daemon = (
        f"import os; open({str(number)!r}, 'w').write(str(os.getpid())); os.execvp('sleep', ['sleep', '61'])"
    )
    script = f'touch {left}; setsid {sys.executable} -c "{daemon}" & sleep 0.5; exit 3'
    program = Path(audit.__file__).with_name("run.py")
    command = [sys.executable, str(program), "--audit", str(report), "", "sh", "-c", script]
    try:
        assert subprocess.run(command).returncode == 3
    finally:
        left.unlink()
    lines = json.loads(report.read_text())
    daemon_pid = int(number.read_text())
    assert f"left behind: file {left}" in lines
    assert f"left behind: process {daemon_pid} sleep 61" in lines
    assert audit.read(f"/proc/{daemon_pid}/cmdline") == ""


def test_a_changed_setting_is_told_with_both_values():
    before = {"setting": ["net/ipv4/ip_forward = 0"]}
    after = {"setting": ["net/ipv4/ip_forward = 1"]}
    assert audit.compare(before, after) == [
        "left behind: setting net/ipv4/ip_forward = 1",
        "gone: setting net/ipv4/ip_forward = 0",
    ]


def test_a_rule_that_was_taken_away_is_a_failure_and_its_counters_are_not():
    rule = {
        "rule": {
            "table": "filter",
            "handle": 4,
            "expr": [{"counter": {"packets": 1, "bytes": 60}}, {"drop": None}],
        }
    }
    later = {
        "rule": {
            "table": "filter",
            "handle": 9,
            "expr": [{"counter": {"packets": 5, "bytes": 99}}, {"drop": None}],
        }
    }
    assert audit.without_counters(rule) == audit.without_counters(later)
    assert audit.compare({"packet filter": ["rule"]}, {"packet filter": []}) == ["gone: packet filter rule"]


def test_a_second_mount_at_the_same_place_counts():
    assert audit.surplus(["/x (tmpfs)", "/x (tmpfs)"], ["/x (tmpfs)"]) == ["/x (tmpfs)"]


def test_by_hand_from_the_command_line(tmp_path: Path):
    program = [sys.executable, audit.__file__]
    state = str(tmp_path / "before.json")
    left = Path(f"/var/tmp/minicontainer-by-hand-{os.getpid()}")
    subprocess.run([*program, "snapshot", state], check=True)
    left.touch()
    try:
        done = subprocess.run([*program, "compare", state], capture_output=True, text=True)
    finally:
        left.unlink()
    assert done.returncode == 1
    assert f"left behind: file {left}" in done.stdout
