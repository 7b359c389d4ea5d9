"""One more process in a running container."""

from __future__ import annotations

import os

import pytest

from minicontainer.errors import NotRunning, StepError
from minicontainer.runtime.execute import execute

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL"]


@pytest.fixture
def running(bundle):
    process = bundle.create("sleep", "100", die_with_parent=True)
    process.start()
    bundle.init = process
    return bundle


def _exec(bundle, *args: str, **fields) -> tuple[int, str, str]:
    wanted = {"args": list(args), "env": ["PATH=/bin"], "cwd": "/"} | fields
    out, err = (open(bundle.directory / name, "w+") for name in ("exec-out", "exec-err"))
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        process = execute(bundle.init.pid, bundle.directory, wanted, (null, out.fileno(), err.fileno()))
        process.start()
        status = bundle.wait(process)
        os.close(process.pidfd)
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()
    finally:
        os.close(null)
        out.close()
        err.close()


def test_exec_is_in_every_namespace_of_the_container(running):
    status, out, _ = _exec(
        running, "sh", "-c", "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done"
    )
    assert status == 0
    expected = [
        os.readlink(f"/proc/{running.init.pid}/ns/{n}") for n in ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    ]
    assert out.split() == expected


def test_exec_sees_the_containers_processes_and_returns_its_status(running):
    status, out, _ = _exec(running, "sh", "-c", "ps -o pid,args; exit 7")
    assert status == 7
    assert out.splitlines()[1].split() == ["1", "sleep", "100"]


def test_exec_is_in_the_containers_control_group(running):
    _, out, _ = _exec(running, "cat", "/proc/self/cgroup")
    mine = open("/proc/self/cgroup")
    with mine:
        names = {line.split(":")[1] for line in mine}
    for line in out.splitlines():
        _, name, path = line.split(":")
        if name in names and name in ("cpu", "memory", "pids", "devices", "freezer", "blkio", "cpuacct"):
            assert path == "/", line


def test_exec_has_only_the_capabilities_and_the_filter_it_was_given(running):
    sets = {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES}
    _, out, _ = _exec(
        running, "grep", "-E", "^(CapEff|CapBnd|CapInh|Seccomp:)", "/proc/self/status", capabilities=sets
    )
    found = dict(line.split(":\t") for line in out.splitlines())
    assert found["CapEff"] == found["CapBnd"] == f"{1 << 0 | 1 << 5:016x}"
    assert found["CapInh"] == "0" * 16
    assert found["Seccomp"] == "2"


def test_exec_has_no_descriptor_beyond_the_three(running):
    _, out, _ = _exec(running, "sh", "-c", "ls /proc/$$/fd; true")
    assert out.split() == ["0", "1", "2"]


@pytest.mark.parametrize(("program", "code"), [("nowhere", 127), ("/etc/passwd", 126)])
def test_exec_of_what_cannot_run_says_why(running, program, code):
    with pytest.raises(StepError) as caught:
        _exec(running, program)
    assert caught.value.exit_code == code


def test_exec_with_leaked_working_directory_is_refused(running):
    for number in range(3, 12):
        with pytest.raises(StepError):
            _exec(running, "pwd", cwd=f"/proc/self/fd/{number}")


def test_exec_in_a_dead_container_is_a_clear_error(running):
    running.init.kill()
    running.wait(running.init)
    with pytest.raises(NotRunning):
        _exec(running, "true")


def test_exec_with_a_terminal(running):
    wanted = {"args": ["sh", "-c", "tty; stty size"], "env": ["PATH=/bin"], "cwd": "/", "terminal": True}
    wanted["consoleSize"] = {"height": 20, "width": 70}
    process = execute(running.init.pid, running.directory, wanted, (0, 1, 2))
    process.start()
    text = b""
    while True:
        try:
            part = os.read(process.console, 4096)
        except OSError:  # EIO: the slave side is closed
            break
        text += part
    assert running.wait(process) == 0
    os.close(process.console)
    os.close(process.pidfd)
    lines = text.decode().split("\r\n")
    assert lines[0].startswith("/dev/pts/") and lines[1] == "20 70"
