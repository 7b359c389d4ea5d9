"""Signals to the command reach the container; Ctrl-C always ends it, and before it lives undoes what was begun."""

from __future__ import annotations

import os
import signal
import time

import pytest

pytestmark = pytest.mark.needs("overlay")


def trap(names: str) -> list[str]:
    """A program that says which of these signals it got, and ends with 3."""
    traps = "; ".join(f"trap 'echo got {name}; exit 3' {name}" for name in names.split())
    return ["sh", "-c", f"{traps}; echo ready; while :; do sleep 0.05; done"]


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM"])
def test_a_signal_is_passed_on(mc, name):
    process = mc.start("run", "--rm", "busybox", *trap(name))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (3, f"got {name}\n", "")


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_pid_1_that_does_not_catch_the_signal_ends_all_the_same(mc, name):
    """Docker drops it, since the kernel does: `docker run busybox sleep 100` cannot be ended with Ctrl-C."""
    number = getattr(signal, f"SIG{name}")
    process = mc.start("run", "--rm", "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (128 + number, "")
    assert mc("ps", "-aq").stdout == ""


def test_a_signal_that_pid_1_ignores_stays_ignored(mc):
    process = mc.start("run", "--rm", "busybox", "sh", "-c", "trap '' INT; echo ready; sleep 0.5; echo alive")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "alive\n"
    assert process.returncode == 0


def test_without_sig_proxy_the_signal_is_ours_alone(mc):
    process = mc.start("run", "--rm", "--sig-proxy=false", "--name", "deaf", "busybox", *trap("TERM"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert mc.is_running("deaf")


def test_without_rm_an_interrupted_container_stays_in_the_list(mc):
    process = mc.start("run", "--name", "kept", "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert mc.state("kept") == "exited"


def test_a_killed_command_leaves_the_container_running(mc):
    process = mc.start(
        "run", "--name", "orphan", "busybox", "sh", "-c", "echo one; sleep 0.3; echo two; sleep 1000"
    )
    assert process.stdout.readline() == "one\n"
    process.kill()
    process.wait()
    assert mc.is_running("orphan")
    time.sleep(0.5)
    assert mc.good("logs", "orphan") == "one\ntwo\n"
    mc.good("exec", "orphan", "true")


def test_a_signal_ends_a_command_of_exec_and_not_the_container(mc):
    mc.good("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    process = mc.start("exec", "host", "sh", "-c", "echo ready; exec sleep 1001")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert mc.is_running("host")
    assert "sleep 1001" not in mc.good("exec", "host", "ps")


def installed(pid: int) -> bool:
    """Whether the process has its own handler for SIGTERM: it is in the middle of making a container."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("delay", range(0, 60, 5))
def test_ctrl_c_while_the_container_is_made_leaves_nothing(mc, until, delay):
    process = mc.start("run", "--rm", "--name", "brief", "busybox", "sleep", "1000")
    until(lambda: installed(process.pid))
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (130, "", "")
    until(lambda: mc("ps", "-aq").stdout == "", 2)


@pytest.mark.parametrize("delay", range(0, 60, 10))
def test_ctrl_c_while_a_detached_container_is_made_leaves_nothing(mc, until, delay):
    process = mc.start("run", "-d", "--name", "brief", "busybox", "sleep", "1000")
    until(lambda: installed(process.pid) or process.poll() is not None)
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors
    if process.returncode == 0:  # it was done before
        assert len(output) == 65
        assert mc.is_running("brief")
    else:
        assert (process.returncode, errors) == (130, "")
        assert mc("ps", "-aq").stdout == ""


def test_ctrl_c_to_the_whole_foreground_group_leaves_nothing(mc, until):
    """A terminal's Ctrl-C goes to every process of the group, a supervisor just being forked included."""
    for delay in range(0, 50, 5):
        process = mc.start("run", "--rm", "busybox", "sleep", "1000", start_new_session=True)
        until(lambda pid=process.pid: installed(pid))
        time.sleep(delay / 1000)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
        until(lambda: mc("ps", "-aq").stdout == "", 2)


def test_ctrl_c_ends_logs_f_and_wait_quietly(mc):
    mc.good("run", "-d", "--name", "host", "busybox", "sh", "-c", "echo line; sleep 1000")
    following = mc.start("logs", "-f", "host")
    assert following.stdout.readline() == "line\n"
    waiting = mc.start("wait", "host")
    time.sleep(0.3)
    for process in (following, waiting):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
    assert mc.is_running("host")


def test_nohup_keeps_its_meaning(mc):
    process = mc.start(
        "run",
        "--rm",
        "busybox",
        *trap("TERM"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 3
