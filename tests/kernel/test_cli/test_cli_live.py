"""pause, unpause, stats, top, update, rename and attach, each by its effect on a container that lives."""

from __future__ import annotations

import json
import re
import shutil
import time

import pytest

from minicontainer.engine import Engine, live
from tests.kernel.cgroup_workload import needs_controller

pytestmark = pytest.mark.needs("overlay")

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
BUSY = "while :; do :; done"


def run(mc, script: str, *flags: str) -> None:
    mc.good("run", "-d", "--name", "box", *flags, "busybox", "sh", "-c", script)


def limit_of(mc, name: str) -> int | None:
    return Engine(mc.root, mc.root / "run").stats(name).usage.memory_limit


@pytest.fixture
def frozen(mc):
    """A counting container that is paused."""
    run(mc, COUNT)
    done = mc("pause", "box")
    if "has a freezer" in done.stderr:
        pytest.skip("no freezer here")
    assert (done.returncode, done.stdout) == (0, "box\n"), done
    return mc


def test_a_paused_container_stands_still_and_goes_on_after(frozen, until):
    before = frozen.good("logs", "box")
    time.sleep(0.3)
    assert frozen.good("logs", "box") == before
    assert re.search(r" Up .* \(Paused\) ", frozen.good("ps"))
    assert (
        frozen.good("inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}", "box")
        == "paused true true\n"
    )
    assert frozen.good("ps", "-q", "--filter", "status=paused") and not frozen.good(
        "ps", "-q", "--filter", "status=running"
    )
    assert frozen.good("unpause", "box") == "box\n"
    until(lambda: frozen.good("logs", "box") != before)
    assert "Paused" not in frozen.good("ps")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pause", "box"), "is already paused"),
        (("exec", "box", "true"), "is paused, unpause the container before exec"),
        (("attach", "box"), "You cannot attach to a paused container, unpause it first"),
        (("start", "box"), "cannot start a paused container, try unpause instead"),
    ],
)
def test_what_a_paused_container_cannot_do(frozen, words, message):
    done = frozen(*words)
    assert done.returncode == 1 and message in done.stderr


@pytest.mark.parametrize("words", [("kill", "box"), ("stop", "-t", "0", "box"), ("rm", "-f", "box")])
def test_a_paused_container_can_be_ended(frozen, words):
    assert frozen.good(*words) == "box\n"
    assert frozen.state("box") in ("exited", "")


def test_what_does_not_run_cannot_be_paused(mc):
    mc.good("create", "--name", "box", "busybox")
    for verb, words in (
        ("pause", "is not running"),
        ("unpause", "is not running"),
        ("pause", "is not running"),
    ):
        done = mc(verb, "box")
        assert done.returncode == 1 and words in done.stderr


@pytest.mark.needs("cgroups")
def test_stats_tell_the_busy_from_the_idle(mc):
    needs_controller("cpuacct", "cpu")
    run(mc, BUSY, "-m", "32m")
    mc.good("run", "-d", "--name", "idle", "busybox", "sleep", "100")
    heading, *lines = mc.good("stats", "--no-stream").splitlines()
    assert re.split(r"\s{3,}", heading) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    rows = {fields[1]: fields for fields in (re.split(r"\s{3,}", line) for line in lines)}
    assert float(rows["box"][2].rstrip("%")) > 10 > float(rows["idle"][2].rstrip("%"))
    assert rows["box"][3].endswith(" / 32MiB") and rows["idle"][7] == "1"


def test_stats_of_one_that_does_not_run_are_zero(mc):
    mc.good("create", "--name", "box", "busybox")
    assert (
        mc.good("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}", "box")
        == "box 0.00% 0\n"
    )
    assert mc.good("stats", "--no-stream", "-a", "--format", "{{.Name}}") == "box\n"
    assert mc("stats", "--no-stream", "nowhere").returncode == 1


def test_stats_repeat_until_ctrl_c(mc):
    run(mc, "sleep 100")
    terminal = mc.on_terminal("stats")
    for _ in range(3):
        terminal.expect(r"CONTAINER ID[^\n]*\n[^\n]* box ")
    terminal.type("\x03")
    assert terminal.wait() in (130, -2)


def test_top_shows_the_containers_processes_and_no_others(mc, until):
    if shutil.which("ps") is None:
        pytest.skip("no ps on this machine (Debian: procps)")
    run(mc, "sleep 4321 & sleep 8765; :")
    until(
        lambda: {"sleep 4321", "sleep 8765"} <= set(re.findall("sleep [0-9]+$", mc.good("top", "box"), re.M))
    )
    assert len(mc.good("top", "box").splitlines()) == 4
    assert {line.split()[1] for line in mc.good("top", "box", "-o", "pid,comm").splitlines()} == {
        "COMMAND",
        "sh",
        "sleep",
    }
    mc.good("kill", "box")
    assert mc("top", "box").returncode == 1


@pytest.mark.needs("cgroups")
def test_update_changes_the_limit_of_a_running_container(mc):
    needs_controller("memory")
    run(mc, "sleep 100", "-m", "64m")
    assert limit_of(mc, "box") == 64 << 20
    assert mc.good("update", "-m", "32m", "--pids-limit", "7", "box") == "box\n"
    assert limit_of(mc, "box") == 32 << 20
    host = json.loads(mc.good("inspect", "box"))[0]["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (32 << 20, 7)
    done = mc("exec", "box", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done")
    assert "can't fork" in done.stderr
    mc.good("stop", "-t", "0", "box")
    mc.good("start", "box")
    assert limit_of(mc, "box") == 32 << 20


@pytest.mark.needs("cgroups")
def test_updates_that_make_no_sense(mc):
    run(mc, "sleep 100", "-m", "16m")
    for flags, words in (
        ((), "you must provide one or more flags"),
        (("-m", "1m"), "Minimum memory limit allowed is 6MB"),
        (("--cpus", "1", "--cpu-quota", "2000"), "Nano CPUs and CPU Quota cannot both be set"),
    ):
        done = mc("update", *flags, "box")
        assert done.returncode == 1 and words in done.stderr
    assert limit_of(mc, "box") == 16 << 20


@pytest.mark.needs("cgroups")
def test_update_without_a_memory_limit_before(mc):
    needs_controller("memory")
    run(mc, "sleep 100")
    mc.good("update", "-m", "32m", "box")
    assert limit_of(mc, "box") == 32 << 20


def test_rename_of_a_running_container_lasts(mc):
    run(mc, "sleep 100")
    mc.good("create", "--name", "other", "busybox")
    done = mc("rename", "box", "other")
    assert done.returncode == 1 and "already in use" in done.stderr
    assert "same name as its current name" in mc("rename", "box", "box").stderr
    mc.good("rename", "box", "new")
    assert mc.state("new") == "running" and mc.state("box") == ""
    mc.good("stop", "-t", "0", "new")
    assert mc.good("inspect", "-f", "{{.Name}} {{.State.Status}}", "new") == "/new exited\n"
    mc.good("create", "--name", "box", "busybox")


def test_attach_shows_the_output_and_ends_as_the_container_does(mc):
    run(mc, "read line; echo got $line; exit 7", "-i")
    done = mc("attach", "box", input="words\n")
    assert (done.returncode, done.stdout) == (7, "got words\n")
    done = mc("attach", "box")
    assert done.returncode == 1 and "You cannot attach to a stopped container, start it first" in done.stderr


def test_detach_keys_of_ones_own(mc):
    mc.good("run", "-d", "-it", "--name", "box", "busybox", "cat")
    terminal = mc.on_terminal("attach", "--detach-keys", "ctrl-a,x", "box")
    terminal.type("one\r")
    terminal.expect("one\r\none\r\n")
    terminal.type("\x01x")
    assert terminal.wait() == 0
    assert mc.is_running("box")
    assert "Unknown character" in mc("attach", "--detach-keys", "ctrl-1", "box").stderr


def test_processes_are_found_without_a_control_group(mc, monkeypatch, until):
    run(mc, "sleep 4321 & sleep 8765; :")
    engine = Engine(mc.root, mc.root / "run")
    known = engine.get("box")
    directory = engine.directory(known.id)
    until(lambda: len(live.processes(known.record, directory)) == 3)
    expected = live.processes(known.record, directory)
    monkeypatch.setattr("minicontainer.cgroup.group.Group.processes", lambda self: [])
    assert live.processes(known.record, directory) == expected
