"""A container's life from the command line: run, exec, stop, ps, rm; options that reach the program."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

pytestmark = pytest.mark.needs("overlay")


def test_run_prints_pid_1_the_id_and_the_images_root(mc):
    lines = mc.good("run", "--rm", "busybox", "sh", "-c", "echo $$; hostname; ls /").splitlines()
    assert lines[0] == "1"
    assert re.fullmatch(r"[0-9a-f]{12}", lines[1])
    assert {"bin", "dev", "etc", "proc", "sys"} <= set(lines[2:])
    assert not {"boot", "home", "usr", "work"} & set(lines[2:]) or "bin" in lines


def test_a_detached_containers_life(mc):
    identifier = mc.good("run", "-d", "--name", "web", "busybox", "sleep", "100").strip()
    assert re.fullmatch(r"[0-9a-f]{64}", identifier)
    processes = mc.good("exec", "web", "ps")
    assert re.search(r"^ +1 root +sleep 100$", processes, re.M)
    assert len(processes.splitlines()) == 3
    before = time.monotonic()
    assert mc.good("stop", "-t", "1", "web") == "web\n"
    assert time.monotonic() - before < 5
    listing = mc.good("ps", "-a")
    assert re.search(rf'^{identifier[:12]} +busybox +"sleep 100" .* Exited \(137\) .* web$', listing, re.M)
    assert mc.good("ps", "-q") == ""
    assert mc.good("rm", "web") == "web\n"
    assert mc.good("ps", "-aq") == ""


def test_stop_is_quick_where_the_program_listens(mc):
    mc.good(
        "run",
        "-d",
        "--name",
        "kind",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.05; done",
    )
    before = time.monotonic()
    mc.good("stop", "kind")
    assert time.monotonic() - before < 5
    assert mc.good("inspect", "-f", "{{.State.ExitCode}}", "kind") == "0\n"


def test_stop_signal_and_stop_timeout_are_the_containers_own(mc):
    script = "trap 'exit 12' USR1; while :; do sleep 0.05; done"
    mc.good("run", "-d", "--name", "own", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
    time.sleep(0.2)
    mc.good("stop", "own")
    assert mc.good("inspect", "-f", "{{.State.ExitCode}}", "own") == "12\n"
    mc.good("run", "-d", "--name", "hasty", "--stop-timeout", "0", "busybox", "sleep", "100")
    before = time.monotonic()
    mc.good("stop", "hasty")
    assert time.monotonic() - before < 5


def test_create_start_wait_and_restart(mc):
    mc.good("create", "--name", "job", "busybox", "sh", "-c", "echo run >> /count; cat /count; exit 4")
    assert mc.state("job") == "created"
    assert mc.good("start", "job") == "job\n"
    assert mc.good("wait", "job") == "4\n"
    done = mc("start", "-a", "job")
    assert (done.returncode, done.stdout) == (4, "run\nrun\n")
    assert mc.good("restart", "job") == "job\n"
    assert mc.good("wait", "job") == "4\n"
    assert mc.good("logs", "job") == "run\n" + "run\n" * 2 + "run\n" * 3


def test_start_a_joins_a_container_that_runs_already(mc):
    script = "trap 'echo asked; exit 6' TERM; while :; do echo on; sleep 0.05; done"
    mc.good("run", "-d", "--name", "busy", "busybox", "sh", "-c", script)
    process = mc.start("start", "-a", "busy")
    assert process.stdout.readline() == "on\n"
    process.terminate()
    output, _ = process.communicate(timeout=20)
    assert output.endswith("asked\n")
    assert process.returncode == 6


def test_restart_of_a_running_container_gives_it_a_new_process(mc):
    mc.good("run", "-d", "--name", "again", "busybox", "sleep", "1000")
    first = mc.good("inspect", "-f", "{{.State.Pid}}", "again")
    mc.good("restart", "-t", "0", "again")
    assert mc.is_running("again")
    assert mc.good("inspect", "-f", "{{.State.Pid}}", "again") != first


def test_rm_f_ends_a_running_one_and_several_go_at_once(mc):
    for name in ("one", "two", "three"):
        mc.good("run", "-d", "--name", name, "busybox", "sleep", "1000")
    done = mc("rm", "-f", "one", "nosuch", "two", "three")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\nthree\n")
    assert mc.good("ps", "-aq") == ""


def test_an_id_may_be_shortened(mc):
    identifier = mc.good("create", "busybox").strip()
    assert mc.good("inspect", "-f", "{{.Id}}", identifier[:6]).strip() == identifier
    assert mc.good("rm", identifier[:12]) == f"{identifier[:12]}\n"


def test_environment_of_flags_files_and_ours(mc, tmp_path):
    (tmp_path / "env").write_text(
        "# comment\nA=file\n\nB=with  spaces \n  C=indented\nMINE\nNOT_SET_ANYWHERE\nD=${A}\n"
    )
    shown = mc.good(
        "run", "--rm", "--env-file", str(tmp_path / "env"), "-e", "A=flag", "-e", "E=x=y", "-e", "MINE2", "-e", "GONE",
        "busybox", "env", MINE="yes", MINE2="too",
    )  # fmt: skip
    variables = shown.splitlines()
    for expected in ("A=flag", "B=with  spaces ", "C=indented", "MINE=yes", "MINE2=too", "D=${A}", "E=x=y"):
        assert expected in variables
    assert not any(line.startswith(("NOT_SET_ANYWHERE", "GONE")) for line in variables)
    assert any(line.startswith("PATH=") for line in variables)
    assert "HOME=/root" in variables


@pytest.mark.parametrize(
    ("content", "problem"),
    [("A B=1\n", "variable 'A B' contains whitespaces"), ("=1\n", "no variable name on line '=1'")],
)
def test_a_bad_environment_file_is_refused(mc, tmp_path, content, problem):
    (tmp_path / "env").write_text(content)
    done = mc("run", "--env-file", str(tmp_path / "env"), "busybox", "env")
    assert done.returncode == 125
    assert problem in done.stderr


def test_cidfile_holds_the_id_and_is_never_reused(mc, tmp_path):
    path = tmp_path / "cid"
    identifier = mc.good("run", "-d", "--cidfile", str(path), "busybox", "sleep", "1000").strip()
    assert path.read_text() == identifier
    done = mc("run", "--cidfile", str(path), "busybox", "true")
    assert done.returncode == 125
    assert "container ID file found, make sure the other container isn't running or delete" in done.stderr
    assert mc.good("ps", "-aq", "--no-trunc") == f"{identifier}\n"


def test_cidfile_of_a_container_that_could_not_be_made_is_taken_away(mc, tmp_path):
    assert mc("run", "--cidfile", str(tmp_path / "cid"), "nosuch").returncode == 125
    assert mc("run", "--cidfile", str(tmp_path / "cid"), "--name", "../x", "busybox").returncode == 125
    assert os.listdir(tmp_path) == []


def test_a_failed_start_leaves_a_created_container_unless_rm(mc):
    assert mc("run", "--rm", "--name", "gone", "busybox", "nosuch").returncode == 127
    assert mc.state("gone") == ""
    done = mc("run", "-d", "--name", "kept", "busybox", "nosuch")
    assert done.returncode == 127
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
    state = json.loads(mc.good("inspect", "-f", "{{json .State}}", "kept"))
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "nosuch" in state["Error"]
    assert mc("start", "kept").returncode == 1


def test_labels_and_host_name(mc):
    mc.good(
        "run",
        "-d",
        "--name",
        "labelled",
        "-l",
        "a=1",
        "--label",
        "b",
        "-h",
        "box",
        "busybox",
        "sleep",
        "1000",
    )
    assert mc.good("inspect", "-f", "{{json .Config.Labels}}", "labelled") == '{"a":"1","b":""}\n'
    assert mc.good("exec", "labelled", "hostname") == "box\n"


def test_network_host_is_ours(mc):
    ours = os.readlink("/proc/self/ns/net")
    assert (
        mc.good("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net") == f"{ours}\n"
    )
    assert mc.good("run", "--rm", "busybox", "readlink", "/proc/self/ns/net") != f"{ours}\n"


def test_rmi_of_an_image_in_use_and_unused(mc):
    from minicontainer.image.store import Store

    Store(mc.root).tag("busybox", "spare:1")
    mc.good("create", "--name", "user", "spare:1")
    assert mc.good("rmi", "spare:1") == "Untagged: spare:1\n"
    assert mc("rmi", "busybox").returncode == 1
    assert mc.good("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest\n"


def test_many_at_once(mc):
    """Twenty command lines side by side: every container gets its own name, id and end."""
    processes = [mc.start("run", "--rm", "busybox", "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]
    for number, process in enumerate(processes):
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (number, f"{number}\n", "")
    assert mc.good("ps", "-aq") == ""


def test_two_that_want_one_name(mc):
    processes = [mc.start("run", "-d", "--name", "one", "busybox", "sleep", "1000") for _ in range(5)]
    results = sorted((process.communicate(timeout=60)[1] != "", process.returncode) for process in processes)
    assert results == [(False, 0)] + [(True, 125)] * 4
