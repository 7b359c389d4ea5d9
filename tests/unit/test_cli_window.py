"""The window on a container: detach keys, raw mode, signals, environment files; parts that need no container."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from minicontainer.cli import signals, terminal
from minicontainer.cli.attach import DetachKeys, Target, write_all
from minicontainer.cli.run import read_env_file
from minicontainer.errors import UsageError


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        ([b"ls\n"], [b"ls\n"]),
        ([b"\x10\x11"], [None]),
        ([b"\x10", b"\x11"], [b"", None]),
        ([b"a\x10", b"b"], [b"a", b"\x10b"]),
        ([b"\x10", b"\x10", b"\x11"], [b"", b"\x10", None]),
        ([b"\x11\x10x"], [b"\x11\x10x"]),
    ],
)
def test_detach_keys(pieces, sent):
    keys = DetachKeys()
    assert [keys(piece) for piece in pieces] == sent


@pytest.fixture
def tty():
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def test_raw_mode_and_back(tty):
    before = termios.tcgetattr(tty)
    with terminal.Raw(tty) as raw:
        inside = termios.tcgetattr(tty)
        assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        assert not inside[1] & termios.OPOST
        raw.leave()
        assert termios.tcgetattr(tty) == before
        raw.enter()
        assert termios.tcgetattr(tty) == inside
    assert termios.tcgetattr(tty) == before


def test_raw_mode_comes_back_after_an_error(tty):
    before = termios.tcgetattr(tty)
    with pytest.raises(RuntimeError), terminal.Raw(tty):
        raise RuntimeError
    assert termios.tcgetattr(tty) == before


def test_raw_mode_on_something_else_is_nothing():
    with open(os.devnull) as null, terminal.Raw(null.fileno()):
        assert terminal.size(null.fileno()) is None


def test_size_of_a_terminal(tty):
    assert terminal.size(tty) is None  # 0 rows: it does not know
    termios.tcsetwinsize(tty, (30, 90))
    assert terminal.size(tty) == (30, 90)


def test_which_signals_a_pid_1_would_not_get():
    script = (
        "import signal, time; signal.signal(10, lambda *a: 0); signal.signal(12, signal.SIG_IGN);"
        "print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert signals.has_no_effect(process.pid, signal.SIGTERM)
        assert not signals.has_no_effect(process.pid, signal.SIGUSR1)  # caught
        assert not signals.has_no_effect(process.pid, signal.SIGUSR2)  # ignored on purpose
        process.kill()
        process.wait()
    assert not signals.has_no_effect(process.pid, signal.SIGTERM)  # gone


def test_a_target_that_has_gone_is_left_in_peace():
    process = subprocess.Popen(["true"])
    process.wait()
    target = Target(process.pid, first=False)
    target.send(signal.SIGTERM)
    assert target.status(5) == 5


def test_interruptible_remembers_until_a_good_moment():
    with signals.Interruptible() as interruptible:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(signals.Stopped) as caught:
            interruptible.check()
        interruptible.check()  # dealt with
    assert caught.value.number == signal.SIGTERM


def test_interruptible_interrupts_what_takes_long():
    started = time.monotonic()
    with pytest.raises(signals.Stopped), signals.Interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    assert time.monotonic() - started < 10


def test_handlers_are_put_back():
    numbers = (*signals.FORWARDED, signal.SIGWINCH)
    before = [signal.getsignal(number) for number in numbers]
    got: list[int] = []
    with signals.Interruptible(), signals.Handed(got.append, signals.FORWARDED, (signal.SIGWINCH,)) as handed:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGWINCH)
        time.sleep(0.01)
        assert got == [signal.SIGUSR1]
        assert handed.take() == {signal.SIGWINCH}
        assert handed.take() == set()
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_that_was_ignored_stays_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.Interruptible() as interruptible:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            interruptible.check()
    finally:
        signal.signal(signal.SIGHUP, former)


def test_write_all_waits_for_a_full_pipe_that_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    child = subprocess.Popen(["wc", "-c"], stdin=reader, stdout=subprocess.PIPE, text=True)
    os.close(reader)
    write_all(writer, data)
    os.close(writer)
    assert child.communicate(timeout=20)[0].strip() == str(len(data))


def test_write_all_names_the_stream():
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="/dev/stderr"):
        write_all(full, b"x")
    os.close(full)


def test_environment_file(tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"\xef\xbb\xbf# comment\r\n\r\nA=1\r\n  B= two  \n\tC\nD=a=b\nE=#x\nF=\xff\n\x20\n")
    expected = ["A=1", "B= two  ", "C", "D=a=b", "E=#x", b"F=\xff".decode(errors="surrogateescape")]
    assert read_env_file(str(path)) == expected


@pytest.mark.parametrize("line", ["A B=1", "A\tB", "=x", " = "])
def test_environment_file_with_a_bad_line(tmp_path, line):
    path = tmp_path / "env"
    path.write_text(f"OK=1\n{line}\n")
    with pytest.raises(UsageError, match="invalid env file"):
        read_env_file(str(path))
