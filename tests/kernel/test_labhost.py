"""The lab host, by what a command inside it can and cannot see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAB = [sys.executable, "-m", "minicontainer.labhost.lab"]


def inside(*command: str, options: tuple[str, ...] = (), **extra) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAB, *options, "--", *command], capture_output=True, text=True, timeout=30, **extra
    )


def output(*command: str, **extra) -> str:
    done = inside(*command, **extra)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_is_root_of_its_own_process_tree():
    assert output("id", "-u").strip() == "0"
    listed = output("sh", "-c", "ls /proc | grep -c '^[0-9]*$'")
    assert int(listed) <= 5  # the first process, the shell, ls and grep


def test_host_name_is_its_own():
    before = os.uname().nodename
    assert output("sh", "-c", "hostname other; hostname || uname -n").strip() in ("other", "lab")
    assert os.uname().nodename == before


def test_mounts_made_inside_are_not_seen_outside(tmp_path: Path):
    output("sh", "-c", f"mount -t tmpfs lab {tmp_path} && touch {tmp_path}/inside && ls {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_run_is_private_and_live_things_go_there():
    assert output("sh", "-c", "ls /run; echo $MINICONTAINER_RUN").split() == [
        "lock",
        "user",
        "/run/minicontainer",
    ]


def test_data_root_is_the_callers(tmp_path: Path):
    environment = {**os.environ, "MINICONTAINER_ROOT": str(tmp_path)}
    assert output("sh", "-c", "echo $MINICONTAINER_ROOT", env=environment).strip() == str(tmp_path)


def test_files_written_to_the_disk_stay(tmp_path: Path):
    output("touch", str(tmp_path / "kept"))
    assert (tmp_path / "kept").exists()


def test_network_none_has_only_loopback_and_it_is_up():
    lines = output("cat", "/proc/net/dev", options=("--network", "none")).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    script = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[0])"
    assert output(sys.executable, "-c", script, options=("--network", "none")).strip() == "127.0.0.1"


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_exit_status_is_the_commands(script: str, status: int):
    assert inside("sh", "-c", script).returncode == status


def test_unknown_command_is_127_and_one_that_cannot_run_126(tmp_path: Path):
    missing = inside("no-such-command")
    assert (missing.returncode, "cannot run no-such-command" in missing.stderr) == (127, True)
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert inside(str(plain)).returncode == 126


def test_nothing_started_inside_survives_the_command():
    marker = f"10{os.getpid()}"
    output("sh", "-c", f"setsid sleep {marker} & sleep 0.1")
    assert running("sleep", marker) == []


def test_orphans_are_reaped_inside():
    script = "(setsid sleep 0.1 &); sleep 0.5; cat /proc/[0-9]*/stat"
    states = [line.rpartition(")")[2].split()[0] for line in output("sh", "-c", script).splitlines()]
    assert "Z" not in states


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killing_it_from_outside_ends_everything_inside(number: signal.Signals):
    marker = f"20{os.getpid()}"
    lab = subprocess.Popen([*LAB, "--", "sh", "-c", f"setsid sleep {marker} & exec sleep {marker}"])
    wait_for(lambda: len(running("sleep", marker)) == 2)
    lab.send_signal(number)
    assert lab.wait(timeout=10) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: running("sleep", marker) == [])


@pytest.mark.needs("cgroups")
def test_control_groups_made_inside_are_removed():
    environment = {key: value for key, value in os.environ.items() if key != "MINICONTAINER_CGROUP_PARENT"}
    script = (
        "import os; from minicontainer.cgroup.group import Group, parent_path\n"
        "group = Group(parent_path() + '/leftover'); made = group.create(); assert made; print(made[0])"
    )
    made = Path(output(sys.executable, "-c", script, env=environment).strip())
    assert made.parent.name.startswith("minicontainer-lab-")
    assert not made.parent.exists()


def running(*words: str) -> list[int]:
    """Processes with this command line."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                line = (directory / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line == b"".join(word.encode() + b"\0" for word in words):
                found.append(int(directory.name))
    return found


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(("command", "status"), [("nosuchcommand", 127), ("/etc/passwd", 126)])
def test_the_command_line_keeps_the_status_of_what_cannot_run(command, status):
    words = [sys.executable, "-m", "minicontainer.cli.main", "lab", "--network", "none", "--", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr


def test_our_own_command_is_found_inside():
    words = [sys.executable, "-m", "minicontainer.cli.main", "lab", "--network", "none", "--"]
    inside = ["sh", "-c", "command -v minicontainer || command -v python3"]
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*words, *inside], capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 0, done.stderr
    if os.path.exists(os.path.join(os.path.dirname(sys.executable), "minicontainer")):
        assert done.stdout.strip().endswith("/minicontainer")
