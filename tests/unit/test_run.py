"""The test run itself: counts, leaks that fail it, and the size it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import run
import size

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_good"/>
<testcase classname="tests.unit.test_a" name="test_bad"><failure message="no">...</failure></testcase>
<testcase classname="tests.unit.test_a" name="test_broken"><error message="no">...</error></testcase>
<testcase classname="tests.unit.test_a" name="test_skipped"><skipped message="no nft here"/></testcase>
</testsuite></testsuites>"""


def test_counts_come_from_the_report(tmp_path: Path):
    report = tmp_path / "junit.xml"
    report.write_text(JUNIT)
    result = run.Result("unit")
    run.read_junit(report, 1, result)
    assert result.passed == 1
    assert result.failures == ["unit: tests.unit.test_a::test_bad", "unit: tests.unit.test_a::test_broken"]
    assert result.skips == [("tests.unit.test_a::test_skipped", "no nft here")]


def test_an_end_without_a_report_is_a_failure(tmp_path: Path):
    result = run.Result("unit")
    run.read_junit(tmp_path / "none.xml", 139, result)
    assert result.failures == ["unit: pytest ended with 139 and without a report"]


def test_an_error_that_no_test_shows_is_a_failure(tmp_path: Path):
    report = tmp_path / "junit.xml"
    report.write_text("<testsuites><testsuite><testcase classname='a' name='b'/></testsuite></testsuites>")
    result = run.Result("unit")
    run.read_junit(report, 3, result)
    assert result.failures == ["unit: pytest ended with 3"]


def test_a_suite_without_a_test_is_told_as_not_tested(tmp_path: Path):
    report = tmp_path / "junit.xml"
    report.write_text("<testsuites><testsuite/></testsuites>")
    result = run.Result("peers")
    run.read_junit(report, 5, result)
    assert (result.failures, result.skips) == ([], [("peers", "no test was found")])


def test_what_a_suite_leaves_on_the_machine_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    left = Path("/var/tmp/minicontainer-left-by-a-suite")

    def careless(options: run.Options) -> run.Result:
        """Leaves a file."""
        left.touch()
        return run.Result("careless", passed=1)

    monkeypatch.setitem(run.SUITES, "careless", careless)
    monkeypatch.setattr(run, "PATIENCE", 0.2)
    try:
        result = run.run_suite("careless", run.Options())
    finally:
        left.unlink()
    assert f"careless: left behind: file {left}" in result.failures


def test_the_closing_line_stands_alone_and_skips_are_told(capsys: pytest.CaptureFixture):
    results = [
        run.Result("unit", passed=3, skips=[("test_x", "no nft here")]),
        run.Result("kernel", passed=2),
    ]
    assert run.summarize(results) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "5 passed, 0 failed, 1 skipped"
    assert re.search(r"NOT TESTED HERE:\n  1 × no nft here\n      test_x", out)


def test_a_failure_fails_the_run_and_so_does_a_run_of_nothing(capsys: pytest.CaptureFixture):
    assert run.summarize([run.Result("unit", passed=1, failures=["unit: test_bad"])]) == 1
    assert "✗ FAILED:\n  unit: test_bad" in capsys.readouterr().out
    assert run.summarize([run.Result("unit", skips=[("unit", "nothing there")])]) == 1


def test_an_unknown_suite_is_refused():
    done = subprocess.run([sys.executable, run.__file__, "unti"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no suite 'unti'" in done.stderr


def test_each_suite_gets_directories_of_its_own_and_they_go():
    with run.Place() as place:
        environment = place.environment(in_lab=False)
        data = Path(environment["MINICONTAINER_ROOT"])
        (data / "work").mkdir(parents=True)
        (data / "work").chmod(0)  # as overlayfs leaves it
        assert data.is_relative_to(place.directory)
    assert not place.directory.exists()


def test_code_lines_are_without_comments_docstrings_and_blank_lines():
    source = '''"""A module
of two lines."""

import os  # why


def f(
    x: int,
) -> str:
    """What it does."""
    # a comment
    text = """one
two"""
    return text
'''
    assert size.code_lines(source) == 7
