"""Shell lines in a cell, and the clean-up cell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from minicontainer.course import clean, proc, sh
from minicontainer.course.shell import ShellError
from minicontainer.errors import MinicontainerError


def test_output_is_printed_in_order_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    done = sh("echo one; echo two >&2; echo three")
    assert capsys.readouterr() == ("one\ntwo\nthree\n", "")
    assert done.output == "one\ntwo\nthree\n" and done.lines == ["one", "two", "three"]
    assert repr(done) == "" and done.status == 0


def test_failure_raises_a_readable_error_after_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ShellError, match="`echo before; exit 3` ended with status 3"):
        sh("echo before; exit 3")
    assert capsys.readouterr().out == "before\n"
    with pytest.raises(ShellError) as caught:
        sh("mc-no-such-command")
    assert "127" in str(caught.value) and "no such command" in caught.value.hint


def test_failure_may_be_wanted() -> None:
    done = sh("exit 4", check=False)
    assert done.status == 4 and "4" in repr(done)
    assert sh("kill -TERM $$", check=False).status == 128 + signal.SIGTERM


def test_quiet_input_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert sh("cat", input="hello", show=False).output == "hello"
    assert sh("echo $WORD", env={"WORD": "here"}, show=False).output == "here\n"
    assert capsys.readouterr().out == ""


def test_endless_line_is_killed_with_its_whole_pipeline(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ShellError, match="still running after 0.3 seconds"):
        sh(f"sh -c 'echo $$ > {tmp_path}/pid; sleep 60; :' | cat", timeout=0.3)
    assert time.monotonic() - begun < 10
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while proc.status(pid).get("State", "Z")[:1] not in "ZX" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert proc.status(pid).get("State", "Z")[:1] in "ZX"


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    assert "�" in sh("printf '\\377'", show=False).output


@pytest.fixture
def fresh_mark():
    clean.mark()
    yield
    clean._before.clear()


def test_clean_says_so_in_one_line(fresh_mark, capsys: pytest.CaptureFixture[str]) -> None:
    clean.assert_clean()
    output = capsys.readouterr().out
    assert output.startswith("clean: ") and output.count("\n") == 1


def test_a_process_left_behind_is_named(fresh_mark) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(MinicontainerError, match=f"process {process.pid}"):
            clean.assert_clean()
        clean.mark()
        clean.assert_clean()  # what was there at the mark is not ours to clear
    finally:
        process.kill()
        process.wait()


def test_directories_containers_and_mounts_left_behind_are_named(
    fresh_mark, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path))
    record = tmp_path / "containers" / ("a" * 64) / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    directory = tempfile.mkdtemp(prefix="minicontainer-check-")
    try:
        assert clean.leftovers() == [f"container {'a' * 12}", f"directory {directory}"]
    finally:
        os.rmdir(directory)
