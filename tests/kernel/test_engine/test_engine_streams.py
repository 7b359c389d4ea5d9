"""Logs, attachments and exec: where a container's input comes from and where its output goes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from minicontainer.engine import TimedOut
from minicontainer.errors import MinicontainerError, StepError, UsageError


def test_logs_keep_each_streams_lines_in_order(engine):
    script = "for i in $(seq 200); do echo o$i; echo e$i >&2; done; printf unfinished"
    container = engine.run("busybox", ["sh", "-c", script], detach=True)
    container.wait()
    entries = list(engine.logs(container.id))
    assert [e.data for e in entries if e.stream == "stdout"] == [b"o%d\n" % i for i in range(1, 201)] + [
        b"unfinished"
    ]
    assert [e.data for e in entries if e.stream == "stderr"] == [b"e%d\n" % i for i in range(1, 201)]
    times = [entry.time for entry in entries]
    assert times == sorted(times) and times[0].endswith("Z") and len(times[0]) == 30


@pytest.mark.parametrize("tail", [0, 1, 5, 1000, 20_000])
def test_tail(engine, tail):
    container = engine.run("busybox", ["seq", "10000"], detach=True)
    container.wait()
    expected = "".join(f"{number}\n" for number in range(1, 10_001)[max(0, 10_000 - tail) :])
    assert container.logs(tail=tail) == expected


def test_since_and_until(engine):
    container = engine.run(
        "busybox", ["sh", "-c", "echo a; sleep 0.4; echo b; sleep 0.4; echo c"], detach=True
    )
    container.wait()
    times = [entry.time for entry in engine.logs(container.id)]
    assert container.logs(since=times[1]) == "b\nc\n"
    assert container.logs(until=times[1]) == "a\nb\n"
    assert container.logs(since="10m") == "a\nb\nc\n"
    with pytest.raises(UsageError):
        container.logs(since="yesterday")


def test_following_gives_lines_as_they_come_and_ends_with_the_container(engine):
    container = engine.run(
        "busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"], detach=True
    )
    arrivals = [(entry.data, time.monotonic()) for entry in container.follow()]
    assert [data for data, _ in arrivals] == [b"1\n", b"2\n", b"3\n"]
    assert arrivals[2][1] - arrivals[0][1] > 0.4


def test_following_an_auto_removed_container_ends(engine):
    container = engine.run("busybox", ["sh", "-c", "sleep 0.3; echo last"], detach=True, remove=True)
    assert [entry.data for entry in container.follow()] == [b"last\n"]


def test_binary_output_survives_in_the_log(engine):
    container = engine.run("busybox", ["printf", r"\377\000\200x\n"], detach=True)
    container.wait()
    assert [entry.data for entry in engine.logs(container.id)] == [b"\xff\x00\x80x\n"]


def test_slow_client_holds_the_container_back_but_not_the_supervisor(engine):
    container_id = engine.create("busybox", ["sh", "-c", "yes 0123456789 | head -c 50000000; echo done >&2"])
    attachment = engine.start(container_id, attach=True)
    time.sleep(1)  # nothing is read meanwhile
    size = os.path.getsize(f"{engine.directory(container_id)}/container.log")
    assert size < 20_000_000, "the container was not held back"
    # exec, stop and others are served all the same.
    assert engine.exec(container_id, ["echo", "hi"]).stdout == "hi\n"
    assert engine.get(container_id).status == "running"
    status = Path(f"/proc/{engine.get(container_id).state.supervisor}/status").read_text()
    memory = int(status.partition("VmHWM:")[2].split()[0])
    assert memory < 60_000
    attachment.close()
    assert engine.wait(container_id, timeout=30) == 0


def test_slow_client_gets_everything_in_the_end(engine):
    container_id = engine.create("busybox", ["sh", "-c", "yes 0123456789 | head -c 3000000"])
    with engine.start(container_id, attach=True) as attachment:
        time.sleep(0.5)
        status, stdout, _ = attachment.collect()
    assert (status, len(stdout)) == (0, 3_000_000)


def test_attach_gets_output_from_now_on_and_may_leave(engine, until):
    container = engine.run(
        "busybox", ["sh", "-c", "i=0; while :; do echo $((i+=1)); sleep 0.05; done"], detach=True
    )
    with container.attach() as attachment:
        received = b""
        while received.count(b"\n") < 3:
            received += b"".join(data for _, data in attachment.receive())
    before = len(container.logs())
    assert until(lambda: len(container.logs()) > before)


def test_input_of_the_attached_client_ends_with_it(engine):
    container_id = engine.create("busybox", ["cat"], stdin_open=True)
    attachment = engine.start(container_id, attach=True, stdin=True)
    attachment.send(b"first\n")
    while not attachment.receive():
        continue
    attachment.close()
    assert engine.wait(container_id, timeout=5) == 0


def test_input_stays_open_for_the_next_client_when_detached(engine):
    container = engine.run(
        "busybox", ["sh", "-c", "read a; echo $a; read b; echo $b"], stdin_open=True, detach=True
    )
    with container.attach() as attachment:
        attachment.send(b"one\n")
        while not attachment.receive():
            continue
    with container.attach() as attachment:
        attachment.send(b"two\n")
        assert attachment.collect()[0] == 0
    assert container.logs() == "one\ntwo\n"


def test_other_users_cannot_reach_the_socket(engine):
    container = engine.run("busybox", ["sleep", "100"], detach=True)
    path = f"{engine.run_root}/containers/{container.id}"
    assert os.stat(path).st_mode & 0o777 == 0o700
    assert os.stat(f"{path}/attach.sock").st_mode & 0o777 == 0o600


def test_terminal_ctrl_c_reaches_the_foreground_job(engine):
    container_id = engine.create("busybox", ["sh"], tty=True, stdin_open=True)
    with engine.start(container_id, attach=True, stdin=True) as attachment:
        attachment.send(b"sleep 100\n")
        time.sleep(0.5)
        attachment.send(b"\x03")
        attachment.send(b"exit 42\n")
        assert attachment.collect(timeout=10)[0] == 42


def test_terminal_can_be_resized(engine, until):
    container_id = engine.create("busybox", ["sh"], tty=True, stdin_open=True)
    with engine.start(container_id, attach=True, stdin=True, size=(10, 20)) as attachment:
        attachment.resize(44, 155)
        attachment.send(b"stty size; exit\n")
        assert b"44 155" in attachment.collect(timeout=10)[1]


# -- exec ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(engine):
    return engine.run("busybox", ["sleep", "100"], detach=True, env=["FROM=container"], workdir="/tmp")


def test_exec_output_status_and_input(sleeper):
    result = sleeper.exec(["sh", "-c", "cat; echo err >&2; exit 6"], input="in")
    assert (result.status, result.stdout, result.stderr) == (6, "in", "err\n")


def test_exec_inherits_environment_and_directory(sleeper):
    out = sleeper.exec(["sh", "-c", "echo $FROM $EXTRA $PWD $HOME"], env=["EXTRA=e"]).stdout
    assert out == "container e /tmp /root\n"
    assert sleeper.exec(["pwd"], workdir="/etc").stdout == "/etc\n"


def test_exec_as_another_user(sleeper):
    assert (
        sleeper.exec(["sh", "-c", "id -un; echo $HOME; id -G"], user="guest").stdout
        == "guest\n/home/guest\n1000 10 50\n"
    )
    with pytest.raises(MinicontainerError, match="unable to find user"):
        sleeper.exec(["id"], user="nobody-here")


def test_exec_user_comes_from_the_containers_files_of_now(sleeper):
    sleeper.exec(["sh", "-c", "echo 'late:x:4321:4321::/:/bin/sh' >> /etc/passwd"])
    assert sleeper.exec(["id", "-u"], user="late").stdout == "4321\n"


@pytest.mark.parametrize(
    ("command", "options", "code"),
    [
        (["no-such-program"], {}, 127),
        (["/bin/not-executable"], {}, 126),
        (["/etc"], {}, 126),
    ],
)
def test_exec_that_cannot_start(sleeper, command, options, code):
    with pytest.raises(StepError) as caught:
        sleeper.exec(command, **options)
    assert caught.value.exit_code == code
    assert sleeper.status == "running"


def test_exec_leaves_no_process_behind(engine, sleeper, until):
    relays = len(relays_of(engine))
    sleeper.exec(["true"])
    sleeper.exec(["sleep", "0.2"], detach=True)
    assert until(lambda: len(relays_of(engine)) == relays)
    assert sleeper.exec(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).stdout.strip() in ("2", "3", "4")


def relays_of(engine) -> list[str]:
    return subprocess.run(["pgrep", "-x", "mc-exec"], capture_output=True, text=True).stdout.split()


def test_exec_times_out_and_the_container_goes_on(sleeper, until):
    with pytest.raises(TimedOut):
        sleeper.exec(["sleep", "55"], timeout=0.3)
    assert until(lambda: "55" not in sleeper.exec(["ps"]).stdout)
    assert sleeper.status == "running"


def test_exec_ends_with_the_container(sleeper):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(sleeper.exec(["sleep", "100"]).status))
    thread.start()
    time.sleep(0.5)
    sleeper.kill()
    thread.join(5)
    assert statuses == [137]


def test_exec_with_a_terminal(sleeper):
    result = sleeper.exec(["sh", "-c", "tty; echo $TERM; echo err >&2"], tty=True, stdin_open=True)
    lines = result.stdout.split("\r\n")
    assert lines[0].startswith("/dev/pts/") and lines[1:3] == ["xterm", "err"]


def test_exec_in_the_containers_control_group(engine, sleeper):
    inside = sleeper.exec(["cat", "/proc/self/cgroup"]).stdout
    assert ":/\n" in inside and sleeper.id not in inside.replace(":/\n", "")


def test_inspect_has_dockers_fields(engine, sleeper):
    found = sleeper.inspect()
    assert found["Id"] == sleeper.id and found["Name"] == f"/{sleeper.name}"
    assert found["State"]["Running"] and found["State"]["Pid"] == sleeper.state.pid
    assert found["Config"]["Env"] == ["PATH=/bin", "FROM=container"]
    assert (found["Path"], found["Args"]) == ("sleep", ["100"])
    assert os.path.exists(found["LogPath"])
    assert engine.info()["ContainersRunning"] == 1
