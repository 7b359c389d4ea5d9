"""The front door: every failure is one line and a status, help is there for each verb, and starting costs little."""

from __future__ import annotations

import doctest
import errno
import importlib
import os
import subprocess
import sys

import pytest

from minicontainer.cli import dispatch, main, output, usage
from minicontainer.cli.flags import FlagError
from minicontainer.cli.signals import Stopped
from minicontainer.cli.verbs import GUESTS, VERBS
from minicontainer.errors import (
    ContainerNotFound,
    ImageNotFound,
    Interrupted,
    MinicontainerError,
    StepError,
    UsageError,
)

BY_NAME = {verb.name: verb for verb in VERBS}
COMMAND = [sys.executable, "-m", "minicontainer.cli.main"]


@pytest.fixture(autouse=True)
def _own_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    monkeypatch.delenv("MINICONTAINER_DEBUG", raising=False)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("verb", "error", "status", "text"),
    [
        ("run", MinicontainerError("it broke", hint="mend it"), 125, "minicontainer: it broke\nmend it\n"),
        (
            "run",
            StepError("exec: 'x': not found", exit_code=127),
            127,
            "minicontainer: exec: 'x': not found\n",
        ),
        ("run", StepError("exec: 'x': denied", exit_code=126), 126, "minicontainer: exec: 'x': denied\n"),
        ("run", UsageError("conflicting options", exit_code=1), 1, "minicontainer: conflicting options\n"),
        (
            "start",
            StepError("exec: 'x': not found", exit_code=127),
            1,
            "minicontainer: exec: 'x': not found\n",
        ),
        ("exec", ContainerNotFound("No such container: x"), 1, "minicontainer: No such container: x\n"),
        ("rmi", ImageNotFound("No such image: x"), 1, "minicontainer: No such image: x\n"),
        ("inspect", UsageError("bad template", exit_code=64), 64, "minicontainer: bad template\n"),
        (
            "run",
            PermissionError(errno.EACCES, "", "/x"),
            125,
            "minicontainer: /x: permission denied\nrun it with sudo",
        ),
        (
            "ps",
            OSError(errno.ENOSPC, "", "/x"),
            1,
            "minicontainer: /x: no space left on device\nfree some space",
        ),
        (
            "ps",
            OSError(errno.ENOSPC, "", "/dev/stdout"),
            1,
            "minicontainer: write /dev/stdout: no space left on device\n",
        ),
        (
            "ps",
            OSError(errno.ENOSYS, "", None),
            1,
            "minicontainer: function not implemented\nthis kernel lacks",
        ),
        ("run", OSError(errno.EROFS, "", b"/x"), 125, "minicontainer: /x: read-only file system\n"),
        (
            "ps",
            KeyError("oops"),
            1,
            "minicontainer: unexpected KeyError: 'oops'\nthis is a fault of minicontainer",
        ),
        ("ps", MinicontainerError("a\x1b[2Jb", hint="c\x07d"), 1, "minicontainer: a\\x1b[2Jb\nc\\ad\n"),
    ],
)
def test_errors_become_a_line_and_a_status(capfd, verb, error, status, text):
    assert dispatch.report(error, BY_NAME[verb]) == status
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(text)
    assert len(shown.err.splitlines()) <= 2


def test_a_wrong_flag_shows_the_usage(capfd):
    assert dispatch.report(FlagError("unknown flag: --x"), BY_NAME["ps"]) == 125
    assert capfd.readouterr().err == (
        "minicontainer: unknown flag: --x\n\nUsage:  minicontainer ps [OPTIONS]\n\n"
        "Run 'minicontainer ps --help' for more information\n"
    )


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyboardInterrupt(), 130), (Stopped(15), 143), (Interrupted("stopped"), 130)]
)
def test_an_interruption_is_only_a_status(monkeypatch, capfd, raised, status):
    def broken(self, words):
        raise raised

    monkeypatch.setattr(dispatch.Call, "__call__", broken)
    assert dispatch.run(["ps"]) == status
    assert capfd.readouterr().err == ""


def test_a_guest_leaves_by_the_ordinary_way():
    script = (
        "import atexit, sys; from minicontainer.cli import main, verbs; atexit.register(print, 'at the end');"
        "verbs.GUESTS['exit'] = ('sys:exit', '');"
        "sys.argv[1:] = ['exit', 'word']; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "at the end\n", "['word']\n")


def test_main_returns_the_status_when_it_is_called_with_words(capsys):
    assert main.main(["nosuch"]) == 1
    assert main.main(["ps", "-q"]) == 0


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_help_and_a_function(verb):
    text = usage.of(verb)
    assert text.startswith(f"Usage:  minicontainer {verb.name} {verb.arguments}\n\n{verb.summary}\n")
    assert all(f"--{flag.name}" in text for flag in verb.flags)
    assert max(len(line) for line in text.splitlines()) <= 110
    module, _, name = verb.where.partition(":")
    assert callable(getattr(importlib.import_module(f"minicontainer.cli.{module}"), name))


def test_help_in_all_its_forms(capsys):
    assert main.main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert main.main([]) == 0
    assert capsys.readouterr().out == overview
    assert all(f"  {name} " in overview for name in [*BY_NAME, *GUESTS])
    assert main.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert main.main(["help", "run"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", sorted(GUESTS))
def test_guests_answer_for_themselves(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_an_unknown_verb_gets_a_suggestion():
    done = run("imagse")
    assert done.returncode == 1
    assert done.stderr == (
        "minicontainer: unknown command: minicontainer imagse\ndid you mean `minicontainer images`?\n\n"
        "Run 'minicontainer --help' for more information\n"
    )


def test_a_closed_standard_error_does_no_harm():
    done = subprocess.run(
        ["sh", "-c", '"$@" nosuch 2>&-; echo $?', "sh", *COMMAND], capture_output=True, text=True
    )
    assert done.stdout == "1\n"


def test_output_survives_any_encoding(capfdbinary):
    output.write("…" + b"\xff".decode(errors="surrogateescape"))
    output.flush()
    assert capfdbinary.readouterr().out == b"\xe2\x80\xa6\xff"


HEAVY = {
    "argparse", "ast", "asyncio", "click", "cloudpickle", "concurrent", "ctypes", "dataclasses", "difflib", "email",
    "gettext", "hashlib", "http", "importlib.metadata", "inspect", "logging", "multiprocessing", "pyroute2", "random",
    "rich", "shlex", "shutil", "ssl", "subprocess", "tarfile", "tempfile", "textwrap", "traceback", "typing",
}  # fmt: skip


@pytest.mark.parametrize("words", [["ps"], ["ps", "-aq"], ["--version"], ["run", "--help"]])
def test_the_quick_verbs_import_nothing_heavy(words):
    """Start-up is part of the interface: `ps` within four times a bare interpreter's start."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "minicontainer.cli.main", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    bare = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True)
    ours = _imported(done.stderr) - _imported(bare.stderr)
    assert "minicontainer.cli.dispatch" in ours
    assert ours & HEAVY == set()
    if words[0] != "ps":
        assert not any(name.startswith(("minicontainer.engine", "minicontainer.runtime")) for name in ours)


def _imported(trace: str) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in trace.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("name", ["attach", "flags", "listing", "system", "template", "text"])
def test_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"minicontainer.cli.{name}"))
    assert result.failed == 0
    assert result.attempted > 0 or name in ("flags", "listing")
