"""`-t` gives a real terminal: its size, line editing, Ctrl-C and job control, and ours comes back afterwards."""

from __future__ import annotations

import os
import re
import signal

import pytest

pytestmark = pytest.mark.needs("overlay")

PROMPT = r"/ # "


@pytest.fixture
def shell(mc):
    """An interactive shell in a new container named "term", at its first prompt."""
    terminal = mc.on_terminal("run", "--rm", "-it", "--name", "term", "busybox", "sh")
    terminal.expect(PROMPT)
    return terminal


def test_the_container_has_our_size_from_the_start(mc):
    terminal = mc.on_terminal("run", "--rm", "-it", "busybox", "stty", "size", rows=33, columns=101)
    terminal.expect(r"33 101\r\n")
    assert terminal.wait() == 0


def test_a_terminal_without_input_has_our_size_too(mc):
    terminal = mc.on_terminal(
        "run", "--rm", "-t", "busybox", "sh", "-c", "sleep 0.2; stty size", rows=21, columns=55
    )
    terminal.expect(r"21 55\r")
    assert terminal.wait() == 0


def test_a_new_size_reaches_the_container_as_sigwinch(mc):
    script = "trap 'stty size; exit 5' WINCH; echo go; while :; do sleep 0.05; done"
    terminal = mc.on_terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
    terminal.expect(r"go\r\n")
    terminal.resize(44, 132)
    terminal.expect(r"44 132\r\n")
    assert terminal.wait() == 5


def test_ctrl_c_ends_the_foreground_job_and_not_the_shell(shell):
    shell.type("sh -c 'echo go; exec sleep 1000'\n")
    shell.expect(r"\r\ngo\r\n")
    shell.type("\x03")
    shell.expect(PROMPT)
    shell.type("echo status $?\n")
    shell.expect(r"\r\nstatus 130\r\n")
    shell.type("exit 7\n")
    assert shell.wait() == 7


def test_ctrl_z_and_fg(shell):
    shell.type("""sh -c 'trap "echo back" CONT; echo go; while :; do sleep 0.05; done'\n""")
    shell.expect(r"\r\ngo\r\n")
    shell.type("\x1a")
    shell.expect(r"\[1\]\+ +Stopped +sh -c")
    shell.expect(PROMPT)
    shell.type("fg\n")
    shell.expect(r"\r\nback\r\n")
    shell.type("\x03")
    shell.expect(PROMPT)
    shell.type("jobs; echo no more\n")
    shell.expect(r"jobs; echo no more\r\nno more\r\n")
    shell.type("exit\n")
    assert shell.wait() == 0


def test_keys_travel_untranslated(mc):
    terminal = mc.on_terminal(
        "run", "--rm", "-it", "busybox", "sh", "-c", "stty raw -echo; echo go; head -c 4 | od -c"
    )
    terminal.expect("go")
    terminal.type("\r\n\x03\x11")
    terminal.expect(r"\\r +\\n +003 +021")
    assert terminal.wait() == 0


def test_both_outputs_come_merged_with_crlf(mc):
    terminal = mc.on_terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo out; echo err >&2")
    terminal.expect(r"out\r\nerr\r\n")
    assert terminal.wait() == 0


def test_ctrl_d_ends_the_shell(shell):
    shell.type("\x04")
    assert shell.wait() == 0


def test_our_terminal_is_raw_meanwhile_and_comes_back(shell):
    assert shell.is_raw()
    shell.type("exit\n")
    assert shell.wait() == 0
    assert shell.settings() == shell.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_our_terminal_comes_back_when_a_signal_ends_it(mc, number):
    terminal = mc.on_terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo here; exec sleep 1000")
    terminal.expect("here")
    assert terminal.is_raw()
    os.kill(terminal.pid, number)
    assert terminal.wait() == 128 + number
    assert terminal.settings() == terminal.before


def test_our_terminal_comes_back_when_the_container_is_killed(mc, shell):
    mc.good("kill", "term")
    assert shell.wait() == 137
    assert shell.settings() == shell.before


def test_our_terminal_comes_back_when_the_supervisor_is_killed(mc):
    terminal = mc.on_terminal("run", "-it", "--name", "term", "busybox", "sh")
    terminal.expect(PROMPT)
    first = int(mc.good("inspect", "-f", "{{.State.Pid}}", "term"))
    with open(f"/proc/{first}/stat") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    terminal.expect("supervisor was killed")
    assert terminal.wait() == 137
    assert terminal.settings() == terminal.before
    assert mc.state("term") == "exited"


def test_detach_keys_leave_the_container_running(mc, shell):
    shell.type("\x10")
    shell.type("\x11")
    assert shell.wait() == 0
    assert shell.settings() == shell.before
    assert mc.is_running("term")


def test_ctrl_p_alone_is_a_key_like_any_other(mc):
    terminal = mc.on_terminal(
        "run", "--rm", "-it", "busybox", "sh", "-c", "stty raw -echo; echo go; head -c 2 | od -c"
    )
    terminal.expect("go")
    terminal.type("\x10x")
    terminal.expect(r"020 +x")
    assert terminal.wait() == 0


def test_stopped_from_outside_gives_the_terminal_back_for_the_while(mc, shell, until):
    os.kill(shell.pid, signal.SIGTSTP)
    until(lambda: _process_state(shell.pid) == "T")
    assert not shell.is_raw()
    os.kill(shell.pid, signal.SIGCONT)
    until(shell.is_raw)
    shell.type("echo still $((40+2))\n")
    shell.expect("still 42")
    shell.type("exit\n")
    assert shell.wait() == 0


def _process_state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_exec_t_is_a_terminal_of_its_own(mc):
    mc.good("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    terminal = mc.on_terminal("exec", "-it", "host", "sh", rows=20, columns=70)
    terminal.expect(PROMPT)
    terminal.type("stty size\n")
    terminal.expect(r"20 70\r\n")
    terminal.type("sh -c 'echo go; exec sleep 1000'\n")
    terminal.expect(r"\r\ngo\r\n")
    terminal.type("\x03")
    terminal.expect(PROMPT)
    terminal.resize(30, 80)
    terminal.type("stty size\n")
    terminal.expect(r"30 80\r\n")
    terminal.type("exit 3\n")
    assert terminal.wait() == 3
    assert terminal.settings() == terminal.before
    assert mc.is_running("host")


def test_start_ai_attaches_a_terminal(mc):
    mc.good("create", "-it", "--name", "term", "busybox", "sh")
    terminal = mc.on_terminal("start", "-ai", "term", rows=25, columns=90)
    terminal.expect(PROMPT)
    terminal.type("stty size\n")
    terminal.expect(r"25 90\r\n")
    terminal.type("exit 4\n")
    assert terminal.wait() == 4


def test_a_container_with_terminal_can_run_detached(mc):
    name = mc.good("run", "-dit", "--name", "bg", "busybox", "sh")
    assert re.fullmatch(r"[0-9a-f]{64}\n", name)
    assert mc.is_running("bg")
    assert (
        mc.good("exec", "bg", "sh", "-c", "test -t 0 <>/proc/1/fd/0 && readlink /proc/1/fd/0")
        == "/dev/pts/0\n"
    )
