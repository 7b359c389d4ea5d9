"""A container's life: detached, stopped, killed, removed; what survives whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minicontainer.engine import Engine, record
from minicontainer.errors import ContainerNotFound, MinicontainerError, NameConflict, NotRunning
from minicontainer.linux.process import start_time

CATCHES_TERM = ["sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"]


def processes_in(container) -> list[str]:
    return container.exec(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()


def test_detached_container_runs_and_is_listed(engine):
    container = engine.run("busybox", ["sleep", "100"], detach=True, name="bg")
    assert container.status == "running"
    assert [found.name for found in engine.containers()] == ["bg"]
    assert engine.get(container.id[:6]).id == engine.get("/bg").id == container.id


def test_exec_sees_the_containers_processes_not_the_hosts(engine):
    container = engine.run("busybox", ["sleep", "100"], detach=True)
    assert "sleep" in processes_in(container)
    assert len(container.exec(["ls", "/proc"]).stdout.split()) < 120
    assert "python3" not in processes_in(container)


def test_stop_asks_first(engine, until):
    container = engine.run("busybox", CATCHES_TERM, detach=True)
    assert until(lambda: container.logs() == "ready\n")
    start = time.monotonic()
    container.stop()
    assert time.monotonic() - start < 3
    assert container.refresh().state.exit_code == 7
    assert container.logs() == "ready\nbye\n"


def test_stop_kills_after_the_timeout_and_not_before(engine):
    container = engine.run(
        "busybox", ["sleep", "100"], detach=True
    )  # PID 1 without a handler ignores SIGTERM
    start = time.monotonic()
    container.stop(timeout=0.5)
    assert 0.5 <= time.monotonic() - start < 3
    assert container.refresh().state.exit_code == 137
    container.stop()  # already stopped is well


def test_stop_signal_of_the_container_is_used(engine, until):
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    container = engine.run("busybox", ["sh", "-c", script], detach=True, stop_signal="USR1")
    assert until(container.logs)
    container.stop()
    assert container.refresh().state.exit_code == 9


def test_kill_with_another_signal_only_sends_it(engine, until):
    script = "trap 'echo got' HUP; echo ready; while :; do sleep 0.05; done"
    container = engine.run("busybox", ["sh", "-c", script], detach=True)
    assert until(container.logs)
    container.kill("SIGHUP")
    assert until(lambda: container.logs() == "ready\ngot\n")
    assert container.status == "running"


def test_restart_keeps_the_files_and_the_log(engine, until):
    script = "echo run >> /runs; cat /runs; echo; exec sleep 100"
    container = engine.run("busybox", ["sh", "-c", script], detach=True)
    assert until(lambda: container.logs().count("\n\n") == 1)
    first = container.state.pid
    container.restart(timeout=0)
    assert until(lambda: container.logs().endswith("run\nrun\n\n"))
    assert container.refresh().state.pid != first


def test_remove(engine):
    container = engine.run("busybox", ["sleep", "100"], detach=True, name="rm-me")
    with pytest.raises(MinicontainerError, match="container is running") as caught:
        container.remove()
    assert caught.value.exit_code == 1
    container.remove(force=True)
    assert container.status == "removed"
    with pytest.raises(ContainerNotFound):
        engine.get("rm-me")


def test_auto_remove_of_a_detached_container(engine, until):
    container = engine.run("busybox", ["sleep", "0.2"], detach=True, remove=True)
    assert container.wait() == 0
    assert until(lambda: container.status == "removed")


def test_operations_on_what_does_not_run(engine):
    container_id = engine.create("busybox", ["true"], name="idle")
    for operation in (engine.kill, lambda name: engine.exec(name, ["true"]), engine.attach):
        with pytest.raises(NotRunning) as caught:
            operation("idle")
        assert caught.value.exit_code == 1 and container_id in str(caught.value)
    engine.stop("idle")
    assert engine.wait("idle") == 0
    for operation in (
        engine.stop,
        engine.start,
        engine.remove,
        engine.wait,
        engine.kill,
        engine.logs,
        engine.inspect,
    ):
        with pytest.raises(ContainerNotFound, match="No such container: nobody"):
            operation("nobody")


def test_start_of_a_running_container_changes_nothing(engine):
    container = engine.run("busybox", ["sleep", "100"], detach=True)
    container.start()
    assert container.refresh().state == container.state


def test_wait_returns_when_it_ends(engine):
    container = engine.run("busybox", ["sh", "-c", "sleep 0.3; exit 5"], detach=True)
    with pytest.raises(TimeoutError):
        container.wait(timeout=0.05)
    assert container.wait() == 5 == container.wait()


# -- crashes ---------------------------------------------------------------------------------------------------------


def test_killed_supervisor_takes_the_container_and_is_noticed(engine, until):
    container = engine.run("busybox", ["sh", "-c", "sleep 100 & sleep 100"], detach=True)
    state = container.state
    os.kill(state.supervisor, signal.SIGKILL)
    assert until(lambda: start_time(state.pid) is None), "the container outlived its supervisor"
    assert until(lambda: container.status == "exited")
    known = container.refresh().state
    assert (known.exit_code, known.error, known.pid) == (137, record.LOST, 0)
    written = json.loads(Path(f"{engine.directory(container.id)}/record.json").read_text())
    assert written["state"]["exit_code"] == 137
    container.start()
    assert container.status == "running"


def test_wait_and_run_end_when_the_supervisor_is_killed(engine):
    results = []
    waiting = threading.Thread(
        target=lambda: results.append(engine.run("busybox", ["sleep", "100"], name="watched").status)
    )
    waiting.start()
    deadline = time.monotonic() + 5
    while not engine.containers() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(engine.get("watched").state.supervisor, signal.SIGKILL)
    waiting.join(10)
    assert results == [137]


def test_stopped_reader_of_a_record_cannot_be_fooled_by_a_reused_pid(engine):
    """A record that says "running" with the PID of a living process of somebody else's is still found out."""
    container_id = engine.create("busybox", ["true"])
    directory = engine.directory(container_id)
    lie = record.read(directory)
    mine = record.State(
        status="running", pid=os.getpid(), pid_started=start_time(os.getpid()) or 0, supervisor=os.getpid()
    )
    record.write(directory, lie.replace(state=mine))
    assert engine.get(container_id).state.exit_code == 137


def test_killed_client_leaves_the_container_running(engine, until):
    code = (
        "import sys\n"
        "from minicontainer.engine import Engine\n"
        "engine = Engine(sys.argv[1], sys.argv[2])\n"
        "engine.run('busybox', ['sh', '-c', 'while :; do echo tick; sleep 0.05; done'], name='survivor')\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code, engine.root, engine.run_root])
    assert until(lambda: any(container.name == "survivor" for container in engine.containers()))
    client.kill()
    client.wait()
    survivor = engine.get("survivor")
    before = len(survivor.logs())
    assert until(lambda: len(survivor.logs()) > before + 10), "it does not go on"
    assert survivor.status == "running"


def test_forking_command_line_mode_leaves_a_supervisor_of_its_own(engine, until):
    code = (
        "import sys\n"
        "from minicontainer.engine import Engine, spawn\n"
        "spawn.direct = True\n"
        "engine = Engine(sys.argv[1], sys.argv[2])\n"
        "print(engine.run('busybox', ['sleep', '100'], detach=True).id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, engine.root, engine.run_root], capture_output=True, text=True, timeout=20
    )
    container = engine.get(done.stdout.strip())  # its output ended although the container goes on
    assert container.status == "running"
    assert os.getsid(container.state.supervisor) == container.state.supervisor


def test_record_that_is_damaged_is_shown_and_can_be_removed(engine):
    container_id = engine.create("busybox", ["true"], name="damaged")
    with open(f"{engine.directory(container_id)}/record.json", "w") as file:
        file.write('{"config": ')
    assert [(found.id, found.state.status) for found in engine.containers(all=True)] == [
        (container_id, "dead")
    ]
    with pytest.raises(MinicontainerError, match="damaged"):
        engine.start(container_id)
    engine.remove(container_id, force=True)
    assert engine.create("busybox", ["true"], name="damaged")


def test_gc_clears_what_killed_makers_left(engine):
    container_id = "ab" * 32
    directory = engine.directory(container_id)
    os.makedirs(f"{directory}/upper")
    os.symlink(container_id, f"{engine.root}/names/half-made")
    os.makedirs(f"{engine.directory('cd' * 32)}.removing/upper/x")
    os.symlink("ef" * 32, f"{engine.root}/names/dangling")
    nameless = engine.directory("12" * 32)
    os.makedirs(f"{nameless}/upper")
    os.utime(nameless, (0, 0))
    assert len(engine.gc()) >= 4
    assert engine.gc() == []
    assert os.listdir(f"{engine.root}/containers") == os.listdir(f"{engine.root}/names") == []


def test_gc_keeps_the_promise_of_a_lost_supervisor(engine, until):
    container = engine.run("busybox", ["sleep", "100"], detach=True, remove=True)
    os.kill(container.state.supervisor, signal.SIGKILL)
    assert until(lambda: container.status == "exited")
    engine.gc()
    assert container.status == "removed"


def test_name_of_a_half_made_container_can_be_taken(engine):
    container_id = "ab" * 32
    os.makedirs(f"{engine.directory(container_id)}/upper")
    os.symlink(container_id, f"{engine.root}/names/wanted")
    assert engine.get(engine.create("busybox", ["true"], name="wanted")).name == "wanted"


# -- races -----------------------------------------------------------------------------------------------------------


def test_of_fifty_that_want_one_name_exactly_one_gets_it(engine):
    def attempt(_number: int) -> str:
        try:
            return engine.create("busybox", ["true"], name="wanted")
        except NameConflict as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(attempt, range(50)))
    winners = [outcome for outcome in outcomes if len(outcome) == 64]
    assert len(winners) == 1
    losers = [outcome for outcome in outcomes if len(outcome) != 64]
    assert all('"/wanted" is already in use by container "' + winners[0] in outcome for outcome in losers)
    assert len(engine.containers(all=True)) == 1
    assert os.listdir(f"{engine.root}/containers") == winners


def test_two_starts_at_once_give_one_process(engine):
    container_id = engine.create("busybox", ["sh", "-c", "echo started; exec sleep 100"])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _number: Engine(engine.root, engine.run_root).start(container_id), range(6)))
    time.sleep(0.2)
    assert engine.get(container_id).logs() == "started\n"


def test_remove_by_force_while_starting(engine):
    for _ in range(10):
        container_id = engine.create("busybox", ["sleep", "100"])
        starter = threading.Thread(target=_start_quietly, args=(engine, container_id))
        starter.start()
        engine.remove(container_id, force=True)
        starter.join()
        assert not os.path.exists(engine.directory(container_id))
    assert engine.containers(all=True) == []


def _start_quietly(engine, container_id: str) -> None:
    try:
        engine.start(container_id)
    except MinicontainerError:
        pass  # it was removed first


def test_ctrl_c_at_any_moment_of_create_leaves_nothing(engine):
    """Interrupt after each of the first hundred lines that create executes."""
    interrupted = 0
    for limit in range(1, 60):
        tracer = _Interrupt(limit)
        created = ""
        sys.settrace(tracer)
        try:
            created = engine.create("busybox", ["true"], name="interrupted")
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        if created:
            engine.remove(created)
        assert os.listdir(f"{engine.root}/containers") == os.listdir(f"{engine.root}/names") == [], limit
    assert interrupted > 10


class _Interrupt:
    """A trace function that presses Ctrl-C before the line number `limit` that the making of a container executes."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self, frame, event, argument):
        if event == "line" and frame.f_code.co_name in (
            "make",
            "_claim",
            "claim",
            "acquire",
            "write",
            "write_whole",
        ):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_a_full_disk_is_one_clear_error(engine, engine_root, tmp_path):
    """A small tmpfs is mounted in a child's own mount namespace, filled, and used as the data directory."""
    code = f"""
import os, shutil, sys
from minicontainer.linux import mount, namespace
namespace.unshare(namespace.CLONE_NEWNS)
mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
mount.mount("tmpfs", {str(tmp_path)!r}, "tmpfs", 0, "size=32m")
shutil.copytree({str(engine_root)!r} + "/images", {str(tmp_path)!r} + "/images")
from minicontainer.engine import Engine, spawn
spawn.direct = True
engine = Engine({str(tmp_path)!r}, {str(tmp_path / "run")!r})
container_id = engine.create("busybox", ["true"])
try:
    with open({str(tmp_path / "fill")!r}, "wb") as file:
        while True:
            file.write(bytes(65536))
except OSError:
    pass
for attempt in (lambda: engine.create("busybox", ["true"]), lambda: engine.start(container_id)):
    try:
        attempt()
    except Exception as error:
        print(type(error).__name__, getattr(error, "exit_code", None), error)
print(len(os.listdir({str(tmp_path)!r} + "/containers")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert len(lines) == 3 and all("No space left on device" in line for line in lines[:2]), done.stdout
    assert lines[2] == "1"
