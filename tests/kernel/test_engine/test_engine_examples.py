"""The examples in the engine's documentation run as they are printed, and the engine works where notebooks need it."""

from __future__ import annotations

import asyncio
import doctest
import shutil
import subprocess
import sys

import pytest

import minicontainer.engine.engine
from minicontainer import steps
from minicontainer.errors import StepError


def test_examples_of_the_documentation(engine, monkeypatch):
    """They are marked to be skipped elsewhere, as they need an image and the right to make containers."""
    monkeypatch.setenv("MINICONTAINER_ROOT", engine.root)
    monkeypatch.setenv("MINICONTAINER_RUN", engine.run_root)
    found = [test for test in doctest.DocTestFinder().find(minicontainer.engine.engine) if test.examples]
    runner = doctest.DocTestRunner(verbose=False)
    for test in found:
        for example in test.examples:
            example.options.pop(doctest.SKIP, None)
        runner.run(test)
    assert runner.failures == 0 and runner.tries > 5


def test_inside_a_running_event_loop(engine):
    async def cell() -> str:
        return engine.run("busybox", ["echo", "hi"]).stdout

    assert asyncio.run(cell()) == "hi\n"


def test_the_caller_is_never_forked_or_moved(engine, monkeypatch):
    import os

    def refuse(*_arguments) -> None:
        raise AssertionError("the calling process was forked")

    before = {
        name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid_for_children", "net", "uts")
    }
    monkeypatch.setattr(os, "fork", refuse)
    assert engine.run("busybox", ["true"]).status == 0
    assert {name: os.readlink(f"/proc/self/ns/{name}") for name in before} == before


def test_a_learners_step_runs_in_the_engine_and_its_prints_come_home(engine, capsys):
    def mine(hostname: str) -> None:
        from minicontainer.linux.process import sethostname

        print("naming", len(hostname))
        sethostname("learner")

    with steps.use(name_host=mine):
        assert engine.run("busybox", ["hostname"]).stdout == "learner\n"
    assert capsys.readouterr().out == "naming 12\n"
    assert engine.run("busybox", ["hostname"]).stdout != "learner\n"


def test_a_learners_mistake_comes_home_with_their_line_and_leaves_nothing(engine):
    def mine(hostname: str) -> None:
        raise LookupError("my own mistake")

    with steps.use(name_host=mine), pytest.raises(StepError) as caught:
        engine.run("busybox", ["hostname"])
    assert "my own mistake" in str(caught.value) and "in mine" in caught.value.traceback
    assert engine.containers(all=True) == []


def test_in_a_user_namespace_with_a_single_id(engine, tmp_path):
    """What an ordinary user has without subordinate ids: root only, and a clear word about other users."""
    code = """
import sys
from minicontainer.engine import Engine
from minicontainer.errors import MinicontainerError
engine = Engine(sys.argv[1], sys.argv[2])
print(engine.run("busybox", ["id", "-u"]).stdout.strip())
try:
    engine.run("busybox", ["id"], user="guest")
except MinicontainerError as error:
    print(error)
print(engine.containers(all=True))
"""
    shutil.copytree(f"{engine.root}/images", tmp_path / "images")
    inside = ["unshare", "-U", "-r", "-m", "-p", "-f", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run([*inside, tmp_path, tmp_path / "run"], capture_output=True, text=True, timeout=60)
    expected = ["0", "uid 1000 does not exist in this user namespace", "[]"]
    assert done.stdout.splitlines() == expected, done.stderr
