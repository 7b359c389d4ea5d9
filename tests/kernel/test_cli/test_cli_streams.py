"""Input and output: kept apart, complete, in order, and no trouble when a reader leaves or a disk is full."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from .conftest import COMMAND

pytestmark = pytest.mark.needs("overlay")


def test_input_reaches_the_program_and_ends(mc):
    assert (
        mc.good("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", input="one\ntwo\n")
        == "one\ntwo\nend\n"
    )


def test_without_i_the_program_reads_nothing(mc):
    assert mc.good("run", "--rm", "busybox", "sh", "-c", "cat; echo end", input="one\n") == "end\n"


def test_input_of_exec(mc):
    mc.good("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    assert mc.good("exec", "-i", "host", "cat", input="through\n") == "through\n"
    assert mc.good("exec", "host", "sh", "-c", "cat; echo end", input="through\n") == "end\n"


def test_megabytes_pass_unchanged_in_both_directions(mc):
    data = os.urandom(3 << 20)
    done = subprocess.run(
        [*COMMAND, "run", "--rm", "-i", "busybox", "cat"],
        env=mc.environment,
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("attempt", range(10))
def test_the_output_of_a_very_short_program_is_never_lost(mc, attempt):
    done = mc("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")


def test_a_reader_that_leaves_ends_it_quietly(mc, until):
    """Docker's client reports a broken pipe and leaves the container running for ever."""
    reader, writer = os.pipe()
    process = mc.start("run", "--rm", "busybox", "yes", stdout=writer)
    os.close(writer)
    assert os.read(reader, 4) == b"y\ny\n"
    os.close(reader)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (141, "")
    assert mc("ps", "-aq").stdout == ""


def test_without_rm_a_reader_that_leaves_does_not_stop_the_container(mc):
    reader, writer = os.pipe()
    process = mc.start(
        "run", "--name", "talker", "busybox", "sh", "-c", "while echo y; do sleep 0.01; done", stdout=writer
    )
    os.close(writer)
    os.read(reader, 2)
    os.close(reader)
    assert process.wait(timeout=20) == 141
    assert mc.is_running("talker")


@pytest.mark.parametrize("words", [["ps"], ["images"], ["--help"], ["version"], ["info"]])
def test_a_closed_pipe_is_no_error(mc, words):
    reader, writer = os.pipe()
    os.close(reader)
    process = mc.start(*words, stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.parametrize("words", [["ps"], ["--help"], ["run", "--rm", "busybox", "echo", "x"]])
def test_a_full_disk_under_the_output_is_named(mc, words):
    with open("/dev/full", "w") as full:
        process = mc.start(*words, stdout=full)
        _, errors = process.communicate(timeout=20)
    assert errors == "minicontainer: write /dev/stdout: no space left on device\n"
    assert process.returncode in (1, 125)


def test_closed_standard_streams_do_no_harm(mc):
    """Or the container's record would be opened as descriptor 1 and written over by the output."""
    script = 'exec "$@" 0<&- 1>&- 2>&-'
    done = subprocess.run(
        [
            "sh",
            "-c",
            script,
            "sh",
            *COMMAND,
            "run",
            "--name",
            "quiet",
            "busybox",
            "sh",
            "-c",
            "echo hi; exit 5",
        ],
        env=mc.environment,
        timeout=20,
    )
    assert done.returncode == 5
    assert mc.good("logs", "quiet") == "hi\n"


def test_output_that_is_not_text_passes(mc):
    done = subprocess.run(
        [*COMMAND, "run", "--name", "raw", "busybox", "printf", r"\377\0\033[2J"],
        env=mc.environment,
        capture_output=True,
        timeout=20,
    )
    assert done.stdout == b"\xff\0\x1b[2J"
    logged = subprocess.run([*COMMAND, "logs", "raw"], env=mc.environment, capture_output=True, timeout=20)
    assert logged.stdout == b"\xff\0\x1b[2J"


def test_detached_prints_the_id_and_nothing_else(mc):
    done = mc("run", "-d", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", 65)


def test_a_pipe_on_a_detached_run_ends_at_once(mc):
    """The supervisor must not keep our output open: `$(minicontainer run -d ...)` would hang."""
    script = 'x=$("$@" run -d busybox sleep 1000) && echo "${#x}"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND], env=mc.environment, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "64\n"


def test_logs_keep_streams_apart_and_follow_to_the_end(mc):
    mc.good("run", "-d", "--name", "talker", "busybox", "sh", "-c", "echo a; echo b >&2; sleep 0.5; echo c")
    done = mc("logs", "-f", "talker")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nc\n", "b\n")


def test_the_locale_does_not_matter(mc):
    """The ellipsis and a file name that is not UTF-8 are printed under LC_ALL=C as elsewhere."""
    mc.good("create", "--name", "long", "busybox", "echo", "ünïcode and a long line")
    for locale in ("C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1"):
        done = mc("ps", "-a", LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert (done.returncode, done.stderr) == (0, ""), sys.version
        assert '"echo \'ünïcode and a…"' in done.stdout
