"""Limits and privileges of `run`, each by what it does to the program inside; on cgroup v1, v2 and hybrid alike."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from minicontainer.cgroup.devices import is_real_root
from minicontainer.linux import capability
from tests.kernel.cgroup_workload import needs_controller
from tests.kernel.test_cli.conftest import COMMAND

pytestmark = pytest.mark.needs("overlay")

EAT = "x=$(yes | head -c 100000000); echo survived"


def held() -> int:
    """The capabilities that this process can give."""
    return capability.get()[1]


def status_of(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status as a mapping."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def processor_seconds(mc, *flags: str) -> float:
    """Processor time that a busy loop gets within about a second."""
    script = "(while :; do :; done) & sleep 1; kill $!; wait $! 2>/dev/null; times"
    children = mc.good("run", "--rm", *flags, "busybox", "sh", "-c", script).splitlines()[-1]
    return sum(
        float(part.split("m")[0]) * 60 + float(part.split("m")[1].rstrip("s")) for part in children.split()
    )


@pytest.mark.needs("cgroups")
def test_out_of_memory_ends_with_137_and_inspect_says_so(mc):
    needs_controller("memory")
    done = mc("run", "--name", "oom", "-m", "16m", "busybox", "sh", "-c", EAT)
    assert (done.returncode, done.stdout) == (137, "")
    shown = json.loads(mc.good("inspect", "oom"))[0]
    assert shown["State"]["OOMKilled"] is True and shown["State"]["ExitCode"] == 137
    assert shown["HostConfig"]["Memory"] == 16 << 20


@pytest.mark.needs("cgroups")
def test_a_kill_is_not_taken_for_want_of_memory(mc):
    needs_controller("memory")
    mc.good("run", "-d", "--name", "killed", "-m", "16m", "busybox", "sleep", "100")
    mc.good("kill", "killed")
    assert mc.good("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "killed") == "false 137\n"


@pytest.mark.needs("cgroups")
def test_the_least_memory_is_enough_to_start(mc):
    needs_controller("memory")
    assert mc.good("run", "--rm", "-m", "6m", "busybox", "echo", "hi") == "hi\n"


@pytest.mark.needs("cgroups")
def test_cpus_hold_a_busy_program_back(mc):
    needs_controller("cpu")
    assert processor_seconds(mc, "--cpus", "0.2") < 0.45
    assert processor_seconds(mc, "--cpu-period", "20000", "--cpu-quota", "4000") < 0.45


@pytest.mark.needs("cgroups")
def test_cpuset_is_the_programs_affinity(mc):
    needs_controller("cpuset")
    last = max(os.sched_getaffinity(0))
    output = mc.good("run", "--rm", "--cpuset-cpus", str(last), "busybox", "cat", "/proc/self/status")
    assert status_of(output)["Cpus_allowed_list"] == str(last)


@pytest.mark.needs("cgroups")
def test_pids_limit_stops_forks(mc):
    needs_controller("pids")
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all"
    done = mc("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script)
    assert "all" not in done.stdout and "can't fork" in done.stderr
    assert mc.good("run", "--rm", "--pids-limit", "-1", "busybox", "echo", "ok") == "ok\n"


def test_ulimits_and_oom_score_reach_the_program(mc):
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "321")
    script = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"
    assert mc.good("run", "--rm", *flags, "busybox", "sh", "-c", script).split() == ["100", "200", "0", "321"]


def test_capabilities_are_dropped_and_added(mc):
    flags = ("--cap-drop", "ALL", "--cap-add", "kill", "--cap-add", "CAP_CHOWN")
    output = mc.good("run", "--rm", *flags, "busybox", "cat", "/proc/self/status")
    expected = capability.mask(("CAP_KILL", "CAP_CHOWN")) & held()
    assert int(status_of(output)["CapEff"], 16) == int(status_of(output)["CapBnd"], 16) == expected
    done = mc("run", "--rm", "--cap-drop", "chown", "busybox", "sh", "-c", "touch /tmp/a; chown 1 /tmp/a")
    assert done.returncode == 1 and "Operation not permitted" in done.stderr


def test_a_capability_brings_its_system_calls(mc):
    command = ("busybox", "mount", "-t", "tmpfs", "tmpfs", "/tmp")
    assert mc("run", "--rm", *command).returncode != 0
    assert (
        mc("run", "--rm", "--security-opt", "seccomp=unconfined", *command).returncode != 0
    )  # no capability
    mc.good("run", "--rm", "--cap-add", "SYS_ADMIN", *command)


def test_seccomp_is_what_was_asked_for(mc, tmp_path):
    def mode(*flags: str) -> str:
        return status_of(mc.good("run", "--rm", *flags, "busybox", "cat", "/proc/self/status"))["Seccomp"]

    assert mode() == "2"
    assert mode("--security-opt", "seccomp=unconfined") == "0"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 36}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    done = mc("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/tmp/x")
    assert "File name too long" in done.stderr


def test_no_new_privileges(mc):
    def flag(*flags: str) -> str:
        return status_of(mc.good("run", "--rm", *flags, "busybox", "cat", "/proc/self/status"))["NoNewPrivs"]

    assert (flag(), flag("--security-opt", "no-new-privileges")) == ("0", "1")
    assert flag("--security-opt", "no-new-privileges:true") == "1"


def test_privileged_has_all_that_we_have(mc):
    script = "cat /proc/self/status; grep -c ' /proc/.* ro[, ]' /proc/self/mounts; ls /dev"
    output = mc("run", "--rm", "--privileged", "busybox", "sh", "-c", script).stdout
    seen = status_of(output)
    assert int(seen["CapEff"], 16) == held() and seen["Seccomp"] == "0"
    words = output.split()
    assert "kmsg" in words or not os.path.exists("/dev/kmsg")
    ordinary = mc("run", "--rm", "busybox", "sh", "-c", script).stdout
    assert "kmsg" not in ordinary.split()


def test_read_only_root_with_a_tmpfs(mc):
    script = "touch /x 2>/dev/null || echo refused; touch /t/x && echo written; grep ' /t ' /proc/self/mounts"
    output = mc.good(
        "run", "--rm", "--read-only", "--tmpfs", "/t:size=64k,mode=700", "busybox", "sh", "-c", script
    )
    lines = output.splitlines()
    assert lines[:2] == ["refused", "written"]
    assert {"size=64k", "mode=700", "noexec", "nosuid", "nodev"} <= set(lines[2].split()[3].split(","))


def test_a_device_may_be_used_as_far_as_was_said(mc):
    # An ordinary user has no rights on the host's /dev/fuse, and gets the host's own node instead of a new one.
    host = "/dev/fuse" if is_real_root() else "/dev/zero"
    if not os.path.exists(host):
        pytest.skip(f"no {host} to give")
    given = ("run", "--rm", "--device", f"{host}:/dev/mine:r", "busybox", "sh", "-c")
    mc.good(*given, "exec 3</dev/mine")
    if is_real_root():  # nobody else may set device rules
        done = mc(*given, "exec 3>/dev/mine")
        assert done.returncode != 0 and "Operation not permitted" in done.stderr


def test_inspect_shows_what_was_asked_for_under_dockers_names(mc):
    flags = (
        "--memory", "64m", "--memory-swap", "-1", "--memory-reservation", "32m", "--cpu-shares", "512", "--cpus", "1",
        "--cpuset-cpus", "0", "--pids-limit", "9", "--ulimit", "nofile=5", "--cap-add", "net_admin", "--privileged",
        "--security-opt", "no-new-privileges", "--tmpfs", "/t:size=1m", "--device", "/dev/null", "--oom-score-adj", "7",
        "--device-read-bps", "/dev/sda:1mb", "--blkio-weight", "300",
    )  # fmt: skip
    mc("create", "--name", "full", *flags, "busybox")
    shown = json.loads(mc.good("inspect", "full"))[0]["HostConfig"]
    expected = {
        "Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20, "CpuShares": 512, "NanoCpus": 10**9,
        "CpusetCpus": "0", "PidsLimit": 9, "Ulimits": [{"Name": "nofile", "Hard": 5, "Soft": 5}],
        "CapAdd": ["CAP_NET_ADMIN"], "CapDrop": None, "Privileged": True, "SecurityOpt": ["no-new-privileges=true"],
        "Tmpfs": {"/t": "size=1m"}, "OomScoreAdj": 7, "BlkioWeight": 300, "CpuQuota": 0,
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1048576}], "OomKillDisable": False,
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rwm"}],
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-m", "foo"), 'invalid argument "foo" for "-m, --memory" flag: invalid size: \'foo\''),
        (("-m", "5m"), "Minimum memory limit allowed is 6MB"),
        (("--cpus", "0.001"), "Range of CPUs is from 0.01"),
        (("--device-read-bps", "/dev/nowhere:1mb"), "/dev/nowhere: No such file or directory"),
        (
            ("--device", "/dev/nowhere"),
            'error gathering device information while adding custom device "/dev/nowhere"',
        ),
        (("--ulimit", "nofile=2:1"), "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        (("--cap-add", "FLY"), "invalid capability: FLY"),
    ],
)
def test_what_cannot_be_ends_with_125_and_leaves_nothing(mc, flags, words):
    done = mc("run", "--rm", *flags, "busybox", "true")
    assert done.returncode == 125 and words in done.stderr
    assert mc.good("ps", "-aq") == ""


def test_a_limit_without_a_control_group_is_an_error(mc):
    """What this machine cannot give must not be forgotten in silence."""
    hidden = 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"'
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        hidden,
        "sh",
        *COMMAND,
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "true",
    ]
    done = subprocess.run(command, env=mc.environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 125 and "no pids controller" in done.stderr


def disk_below(path: os.PathLike[str]) -> str:
    """The whole disk that holds `path`."""
    number = os.stat(path).st_dev
    directory = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if os.path.exists(f"{directory}/partition"):
        directory = os.path.dirname(directory)
    disk = f"/dev/{os.path.basename(directory)}"
    if not os.path.isdir(directory) or not os.path.exists(disk):
        pytest.skip("the containers' files lie on no disk of this machine")
    return disk


def test_reads_from_a_disk_are_slowed(mc):
    needs_controller("blkio", "io")
    flags = ("--device-read-bps", f"{disk_below(mc.root)}:1mb")
    read = "dd if=/dev/zero of=/file bs=1M count=2; sync; dd if=/file of=/dev/null bs=256k iflag=direct"
    before = time.monotonic()
    done = mc("run", "--rm", *flags, "busybox", "sh", "-c", read)
    if done.returncode:
        pytest.skip(f"this file system cannot be read directly: {done.stderr}")
    assert time.monotonic() - before > 1.2
